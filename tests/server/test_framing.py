"""What a request may look like: each row is sent as bytes, with a second request behind it that must not be served.

The same rules with money and an upstream behind them: tests/hostile/test_request_framing.py.
"""

from __future__ import annotations

import json

import pytest

from tests.hostile.wire import request
from tests.server.conftest import HEAD, Stage

SECOND = b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def chunked(body: bytes) -> bytes:
    return CHUNKED + body


REFUSED: dict[str, tuple[int, bytes]] = {
    # The request line.
    "GET of an asterisk": (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "authority form without CONNECT": (400, b"GET example.com:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "relative path": (400, b"GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "no target": (400, b"GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    "raw UTF-8 in the target": (400, b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "overlong UTF-8 in the target": (400, b"GET /\xc0\xaf HTTP/1.1\r\nHost: a\r\n\r\n"),
    "raw UTF-8 in the query": (400, b"GET /?q=\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "NUL in the target": (400, b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "DEL in the target": (400, b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
    "fragment": (400, b"GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n"),
    "another scheme": (400, b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "userinfo in the target": (400, b"GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "no host in the target": (400, b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "bad port in the target": (400, b"GET http://a:70000/x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "CONNECT": (405, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "two blanks": (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "blank behind the version": (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    "blank before the method": (400, b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "tab": (400, b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "version without minor": (400, b"GET / HTTP/1\r\nHost: a\r\n\r\n"),
    "version with zeros": (400, b"GET / HTTP/01.01\r\nHost: a\r\n\r\n"),
    "version in small letters": (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    "HTTP/2.0": (400, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    "HTTP/2 preface": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "two empty lines before": (400, b"\r\n\r\n" + GET + b"\r\n"),
    "CR for a line end": (400, b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
    "bare LF behind the line": (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    # Fields.
    "bare LF behind a field": (400, b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
    "bare CR in a field": (400, GET + b"X: a\rb\r\n\r\n"),
    "CR before CR LF": (400, GET + b"X: a\r\r\n\r\n"),
    "obs-fold": (400, GET + b"X: a\r\n b\r\n\r\n"),
    "blank line of blanks": (400, b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n"),
    "blank before the colon": (400, GET + b"X : a\r\n\r\n"),
    "no colon": (400, GET + b"X\r\n\r\n"),
    "empty name": (400, GET + b": a\r\n\r\n"),
    "bracket in a name": (400, GET + b"X[: a\r\n\r\n"),
    "8 bits in a name": (400, GET + b"X\xe9: a\r\n\r\n"),
    "NUL in a value": (400, GET + b"X: a\0\r\n\r\n"),
    "control in a value": (400, GET + b"X: a\x07\r\n\r\n"),
    "DEL in a value": (400, GET + b"X: \x7f\r\n\r\n"),
    # Host.
    "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "no Host with a whole URL": (400, b"GET http://a/ HTTP/1.1\r\n\r\n"),
    "empty Host": (400, b"GET / HTTP/1.1\r\nHost: \r\n\r\n"),
    "empty Host of HTTP/1.0": (400, b"GET / HTTP/1.0\r\nHost:\r\n\r\n"),
    "two Hosts": (400, GET + b"Host: a\r\n\r\n"),
    "port 0": (400, b"GET / HTTP/1.1\r\nHost: a:0\r\n\r\n"),
    "port 65536": (400, b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"),
    "Host with a path": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "endless Host": (400, b"GET / HTTP/1.1\r\nHost: " + b"a" * 5_000 + b"\r\n\r\n"),
    # Lengths and codings.
    "TE and CL": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    "CL twice, equal": (400, POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    "CL twice, different": (400, POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    "CL list": (400, POST + b"Content-Length: 5, 5\r\n\r\nhello"),
    "CL with zeros": (400, POST + b"Content-Length: 005\r\n\r\nhello"),
    "CL minus zero": (400, POST + b"Content-Length: -0\r\n\r\n"),
    "CL octal": (400, POST + b"Content-Length: 0o5\r\n\r\nhello"),
    "CL with a blank inside": (400, POST + b"Content-Length: 1 1\r\n\r\nhello hello"),
    "CL of 20 digits": (400, POST + b"Content-Length: 18446744073709551617\r\n\r\n"),
    "TE twice": (400, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "TE list": (400, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "TE with an empty member": (400, POST + b"Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n"),
    "TE gzip": (400, POST + b"Transfer-Encoding: gzip\r\n\r\n"),
    "TE of HTTP/1.0": (400, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    # Chunks.
    "size with a plus": (400, chunked(b"+5\r\nhello\r\n0\r\n\r\n")),
    "size with 0x": (400, chunked(b"0x5\r\nhello\r\n0\r\n\r\n")),
    "size with an underscore": (400, chunked(b"1_0\r\nhello\r\n0\r\n\r\n")),
    "size behind a blank": (400, chunked(b" 5\r\nhello\r\n0\r\n\r\n")),
    "size before a blank": (400, chunked(b"5 \r\nhello\r\n0\r\n\r\n")),
    "size before a tab": (400, chunked(b"5\t\r\nhello\r\n0\r\n\r\n")),
    "size of 16 digits": (400, chunked(b"0000000000000005\r\nhello\r\n0\r\n\r\n")),
    "empty size": (400, chunked(b"\r\nhello\r\n0\r\n\r\n")),
    "size ended by LF": (400, chunked(b"5\nhello\r\n0\r\n\r\n")),
    "size ended by CR": (400, chunked(b"5\rhello\r\n0\r\n\r\n")),
    "chunk ended by LF": (400, chunked(b"5\r\nhello\n0\r\n\r\n")),
    "chunk without an end": (400, chunked(b"5\r\nhello0\r\n\r\n")),
    "chunk that spills": (400, chunked(b"5\r\nhelloX\r\n0\r\n\r\n")),
    "blank before an extension": (400, chunked(b"5 ;a=b\r\nhello\r\n0\r\n\r\n")),
    "extension without a name": (400, chunked(b"5;\r\nhello\r\n0\r\n\r\n")),
    "extension that is no token": (400, chunked(b"5;a[=b\r\nhello\r\n0\r\n\r\n")),
    "control in an extension": (400, chunked(b"5;a=\x01\r\nhello\r\n0\r\n\r\n")),
    "bare LF in an extension": (400, chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n")),
    "open quotation in an extension": (400, chunked(b'5;a="b\r\nhello\r\n0\r\n\r\n')),
    "long extension": (400, chunked(b"5;a=" + b"b" * 2_000 + b"\r\nhello\r\n0\r\n\r\n")),
    "last chunk ended by LF": (400, chunked(b"5\r\nhello\r\n0\n\n")),
    "trailer ended by LF": (400, chunked(b"0\r\nX: a\n\r\n")),
    "trailer without a colon": (400, chunked(b"0\r\nX\r\n\r\n")),
    "trailer that is folded": (400, chunked(b"0\r\nX: a\r\n b\r\n\r\n")),
    "large trailers": (400, chunked(b"0\r\n" + b"X: aaaaaaaa\r\n" * 2_000 + b"\r\n")),
    # Others.
    "another expectation": (417, POST + b"Expect: a-miracle\r\nContent-Length: 5\r\n\r\nhello"),
    "long target": (414, b"GET /" + b"a" * HEAD + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "long fields": (431, GET + b"X: " + b"a" * HEAD + b"\r\n\r\n"),
    "long method": (400, b"G" * HEAD + b" / HTTP/1.1\r\nHost: a\r\n\r\n"),
}  # fmt: skip
SERVED: dict[str, tuple[bytes, bytes]] = {
    "empty line before": (b"\r\n" + GET + b"\r\n", b""),
    "odd but legal fields": (b"GET / HTTP/1.1\r\nhoSt:\ta\t \r\nempty:\r\nX:\xe9 \"\t'\r\n\r\n", b""),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", b""),
    "HTTP/1.0 without Host": (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b""),
    "length 0": (POST + b"Content-Length: 0\r\n\r\n", b""),
    "length with blanks around": (POST + b"Content-Length:  5 \r\n\r\nhello", b"hello"),
    "GET with a body": (GET + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "chunks": (chunked(b"5\r\nhello\r\n00a\r\n0123456789\r\n0\r\n\r\n"), b"hello0123456789"),
    "sizes of both cases": (chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n"), b"0123456789" * 2),
    "coding in capitals": (POST + b"Transfer-Encoding: CHUNKED \r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "extensions": (chunked(b'5;a;b=c;d="e \\" f;"\r\nhello\r\n0;last\r\n\r\n'), b"hello"),
    "trailers": (chunked(b"5\r\nhello\r\n0\r\nX: a\r\nContent-Length: 7\r\n\r\n"), b"hello"),
    "another upgrade with a body": (POST + b"Connection: upgrade\r\nUpgrade: foo\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "upgrade by POST": (
        POST + b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "upgrade of HTTP/1.0": (
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", b""),
    "upgrade that Connection does not name": (
        GET + b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", b""),
}  # fmt: skip


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("case", REFUSED)
async def test_what_may_not_be_is_refused_and_ends_the_connection(stage: Stage, case: str, apart: bool) -> None:
    status, raw = REFUSED[case]
    if apart and len(raw) > 2_000:
        return
    async with stage.wire() as wire:
        if apart:
            for at in range(len(raw)):
                await wire.send(raw[at : at + 1])
            await wire.send(SECOND)
        else:
            await wire.send(raw + SECOND)
        answer = await wire.answer()
        assert (answer.status, answer.get("connection"), answer.complete) == (status, "close", True)
        assert answer.get("content-type") == "application/problem+json"
        problem = json.loads(answer.body)
        assert (problem["status"], problem["type"][:10]) == (status, "/problems/")
        assert answer.get("date")
        assert await wire.ended()
    assert [scope["path"] for scope in stage.scopes if scope["path"] == "/second"] == []
    assert stage.bodies == []


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("case", SERVED)
async def test_what_may_be_is_served_and_the_next_request_behind_it(stage: Stage, case: str, apart: bool) -> None:
    raw, body = SERVED[case]
    async with stage.wire() as wire:
        if apart:
            for at in range(len(raw)):
                await wire.send(raw[at : at + 1])
        await wire.send(SECOND if apart else raw + SECOND)
        first, second = await wire.answer(), await wire.answer()
    assert (first.status, first.body, second.status) == (200, body, 200)
    assert [scope["path"] for scope in stage.scopes] == ["/", "/second"]


async def test_a_whole_url_is_its_path_and_its_authority_counts(stage: Stage) -> None:
    async with stage.wire() as wire:
        for target in ("http://other:81/x%20y?z", "HTTPS://other:81?z", "http://other:81"):
            await wire.send(request("GET", target))
            assert (await wire.answer()).status == 200
    told = [(scope["path"], scope["raw_path"], scope["query_string"]) for scope in stage.scopes]
    assert told == [("/x y", b"/x%20y", b"z"), ("/", b"/", b"z"), ("/", b"/", b"")]
    assert {dict(scope["headers"])[b"host"] for scope in stage.scopes} == {b"other:81"}


async def test_options_of_the_whole_server(stage: Stage) -> None:
    async with stage.wire() as wire:
        await wire.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        for _ in range(2):
            answer = await wire.answer()
            assert (answer.status, "GET" in answer.get("allow")) == (204, True)
            assert answer.all("content-length") == []
    assert stage.scopes == []


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_is_answered_at_once_is_no_request(stage: Stage, framing: str, apart: bool) -> None:
    head = b"OPTIONS * HTTP/1.1\r\nHost: a\r\n"
    if framing == "length":
        raw = head + b"Content-Length: %d\r\n\r\n%b" % (len(SECOND), SECOND)
    else:
        raw = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(SECOND), SECOND)
    async with stage.wire() as wire:
        # Behind another one, so that it is read from what is ahead.
        await wire.send(GET + b"\r\n" + raw + GET + b"\r\n")
        assert [(await wire.answer()).status for _ in range(3)] == [200, 204, 200]
    async with stage.wire() as wire:
        for at in range(0, len(raw), 1 if apart else len(raw)):
            await wire.send(raw[at : at + (1 if apart else len(raw))])
        assert (await wire.answer()).status == 204
    assert [scope["path"] for scope in stage.scopes] == ["/", "/"]


async def test_what_is_told_of_a_request(stage: Stage) -> None:
    async with stage.wire() as wire:
        await wire.send(b"PURGE /a%2Fb//?x=%20&&y HTTP/1.1\r\nHOST: a\r\nX-B: 1\r\nx-a: 2\r\nX-b: \xe9\r\n\r\n")
        assert (await wire.answer()).status == 200
        ours = wire.writer.get_extra_info("sockname")
    (scope,) = stage.scopes
    assert scope["headers"] == [(b"host", b"a"), (b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"\xe9")]
    assert (scope["method"], scope["http_version"], scope["scheme"]) == ("PURGE", "1.1", "http")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a/b//", b"/a%2Fb//", b"x=%20&&y")
    assert (scope["client"], scope["server"]) == (ours, ("127.0.0.1", stage.port))


async def test_head_that_is_refused_has_no_body(stage: Stage) -> None:
    async with stage.wire() as wire:
        await wire.send(b"HEAD * HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await wire.answer(head=True)).status == 400
        assert await wire.rest() == b""


@pytest.mark.parametrize(
    "begun", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\nHost: a\n\n", b"SSH-2.0-x\r\n", b"G" * 100]
)
async def test_what_cannot_become_a_request_is_refused_before_it_ends(stage: Stage, begun: bytes) -> None:
    async with stage.wire() as wire:
        await wire.send(begun)
        assert (await wire.answer()).status == 400
        assert await wire.ended()
