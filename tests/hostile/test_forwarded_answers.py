"""What a caller gets of an answer: fields, codings, ranges and framing, byte for byte, on every server (EX-18 to EX-24)."""

from __future__ import annotations

import gzip

import pytest

from tests.hostile.shops import Market
from tests.hostile.talk import OK, seen_by, told
from tests.hostile.wire import ScriptedUpstream, Wire, ask
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream

# --- Methods, and answers without a body ---


async def test_head_has_gets_fields_no_body_and_leaves_the_connection_in_step(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream
) -> None:
    scripted.answers["head"] = b'HTTP/1.1 200 OK\r\nETag: "v"\r\nContent-Length: 5\r\n\r\nhello'
    wire = await Wire.open(wired.port)
    await wire.send(
        market.ask("HEAD", "/head", shop=market.scripted) + market.ask("GET", "/head", shop=market.scripted)
    )
    head, get = await wire.answer(head=True), await wire.answer()
    wire.close()
    assert (head.get("content-length"), head.get("etag"), head.body) == ("5", '"v"', b"")
    assert (get.get("content-length"), get.get("etag"), get.body) == ("5", '"v"', b"hello")


@pytest.mark.parametrize(
    ("status", "fields"),
    [(204, ""), (204, "Content-Length: 5\r\n"), (304, 'ETag: "v"\r\n'), (304, 'ETag: "v"\r\nContent-Length: 500\r\n'), (205, "Content-Length: 0\r\n")],
)  # fmt: skip
async def test_an_answer_without_a_body_leaves_the_connection_in_step(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, status: int, fields: str
) -> None:
    scripted.answers |= {"empty": f"HTTP/1.1 {status} Whatever\r\n{fields}\r\n".encode(), "next": OK}
    wire = await Wire.open(wired.port)
    await wire.send(
        market.ask("GET", "/empty", 'If-None-Match: "v"', shop=market.scripted)
        + market.ask("GET", "/next", shop=market.scripted)
    )
    first, second = await wire.answer(), await wire.answer()
    wire.close()
    assert (first.status, first.body, second.status, second.body) == (status, b"", 200, b"ok")
    assert first.all("content-length") in ([], ["0"])
    assert first.get("etag") == ('"v"' if status == 304 else "")


@pytest.mark.parametrize("method", ["OPTIONS", "PROPFIND", "PURGE", "M-SEARCH", "LINK", "REPORT"])
async def test_other_methods_go_on(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream, method: str
) -> None:
    seen = await seen_by(upstream, wired, market.ask(method, "/x", "Origin: https://a.example"))
    assert (seen.method, seen.all("origin")) == (method, ["https://a.example"])


async def test_pipelined_requests_are_answered_in_order(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    upstream.forget()
    wire = await Wire.open(wired.port)
    waits = (120, 60, 0)
    await wire.send(b"".join(market.ask("GET", f"/n{number}?ms={ms}") for number, ms in enumerate(waits)))
    answers = [await wire.answer() for _ in waits]
    wire.close()
    assert [f'"/n{number}?'.encode() in answer.body for number, answer in enumerate(answers)] == [True] * 3
    assert upstream.calls == 3


async def test_nothing_is_served_behind_connection_close(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    upstream.forget()
    wire = await Wire.open(wired.port)
    await wire.send(market.ask("GET", "/first", "Connection: close") + market.ask("GET", "/second"))
    assert (await wire.answer()).status == 200
    assert await wire.rest() == b""
    wire.close()
    served = [seen.target for seen in upstream.requests]
    assert served == ["/first"]


# --- Fields of the answer ---


async def test_hop_by_hop_fields_of_an_answer_stay_here(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream
) -> None:
    answer = await told(
        wired, market, scripted,
        b"HTTP/1.1 200 OK\r\nCONNECTION: X-Listed, keep-alive\r\nconnection: x-second\r\nX-LISTED: 1\r\nX-Second: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: X-T\r\nProxy-Connection: close\r\nX-Stays: 1\r\nContent-Length: 2\r\n\r\nok",
    )  # fmt: skip
    names = {name for name, _ in answer.headers}
    assert not names & {
        "x-listed",
        "x-second",
        "keep-alive",
        "proxy-authenticate",
        "upgrade",
        "trailer",
        "proxy-connection",
    }
    assert (answer.get("x-stays"), answer.body) == ("1", b"ok")


async def test_fields_of_an_answer_keep_their_bytes_and_order(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream
) -> None:
    answer = await told(
        wired, market, scripted,
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT\r\nX-B: \xe9\xff\r\nSet-Cookie: b=2\r\nX-Tab: a\tb\r\n"
        b"X-Empty:\r\nVia: 1.0 fred\r\nServer: mine/1\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nWarning: 199 - \"x\"\r\nContent-Length: 2\r\n\r\nok",
    )  # fmt: skip
    assert answer.all("set-cookie") == ["a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2"]
    assert (answer.get("x-b"), answer.get("x-tab"), answer.all("x-empty")) == ("\xe9\xff", "a\tb", [""])
    assert ", ".join(answer.all("via")) == "1.0 fred, 1.1 tollway"
    assert (answer.all("server"), answer.all("date")) == (["mine/1"], ["Thu, 01 Jan 1970 00:00:00 GMT"])


async def test_a_publishers_page_is_a_site_of_its_own_to_browsers(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream
) -> None:
    """Its scripts must not act as the reader's login at this gateway, nor its cookies become one."""
    scripted.answers["page"] = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: tollway_access=planted\r\n"
        b"Content-Security-Policy: default-src *\r\nContent-Length: 2\r\n\r\nok"
    )
    asked = market.ask("GET", "/page", "Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", shop=market.scripted)
    answer = await ask(wired.port, asked)
    assert answer.all("set-cookie") == []
    assert answer.all("content-security-policy") == ["default-src *", "sandbox allow-scripts allow-forms"]
    plain = await ask(wired.port, market.ask("GET", "/page", shop=market.scripted))
    assert (plain.all("set-cookie"), len(plain.all("content-security-policy"))) == (["tollway_access=planted"], 1)


@pytest.mark.parametrize("name", ["X-Cost", "x-COST-asset", "X-Balance", "X-Cost-Drawn", "X-Request-Id", "RateLimit", "RateLimit-Policy", "Idempotency-Replayed"])  # fmt: skip
async def test_an_upstream_cannot_speak_in_our_name(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, name: str
) -> None:
    claimed = b"HTTP/1.1 200 OK\r\n%b: forged\r\nContent-Length: 2\r\n\r\nok" % name.encode()
    answer = await told(wired, market, scripted, claimed)
    assert "forged" not in answer.all(name.lower())
    assert answer.all("x-cost") == ["0.01"]


async def test_trailers_of_an_answer_are_dropped_and_its_body_is_whole(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream
) -> None:
    raw = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2;a="b"\r\nok\r\n0\r\nX-T: 1\r\nX-Cost: 9\r\n\r\n'
    answer = await told(wired, market, scripted, raw)
    assert (answer.body, answer.complete, answer.all("x-t"), answer.all("x-cost")) == (b"ok", True, [], ["0.01"])


# --- Representations ---


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "unheard-of"])
async def test_a_coded_body_is_passed_as_it_is(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, coding: str
) -> None:
    body = gzip.compress(b"hello" * 100) if coding == "gzip" else bytes(range(256)) * 8
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nVary: Accept-Encoding\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    scripted.answers["coded"] = head.encode() + body
    answer = await ask(
        wired.port, market.ask("GET", "/coded", f"Accept-Encoding: {coding};q=1.0, identity;q=0", shop=market.scripted)
    )
    assert (answer.body, answer.all("content-encoding"), answer.get("vary")) == (body, [coding], "Accept-Encoding")
    assert scripted.fields(b"accept-encoding") == [f"{coding};q=1.0, identity;q=0".encode()]


RANGES = {
    "one": (206, "bytes=0-1", "Content-Range: bytes 0-1/10\r\nContent-Length: 2\r\n", b"ok"),
    "many": (
        206,
        "bytes=0-0,-1",
        "Content-Type: multipart/byteranges; boundary=B\r\nContent-Length: 8\r\n",
        b"--B\r\n\r\n\x00",
    ),
    "none": (416, "bytes=99-", "Content-Range: bytes */10\r\nContent-Length: 0\r\n", b""),
}


@pytest.mark.parametrize("kind", RANGES)
async def test_ranges_are_the_upstreams_business(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, kind: str
) -> None:
    status, asked, fields, body = RANGES[kind]
    scripted.answers["ranges"] = f"HTTP/1.1 {status} Whatever\r\nAccept-Ranges: bytes\r\n{fields}\r\n".encode() + body
    answer = await ask(
        wired.port, market.ask("GET", "/ranges", f"Range: {asked}", 'If-Range: "v"', shop=market.scripted)
    )
    assert (answer.status, answer.body, answer.get("accept-ranges")) == (status, body, "bytes")
    for line in fields.split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        assert answer.all(name.lower()) == [value]
    assert (scripted.fields(b"range"), scripted.fields(b"if-range")) == ([asked.encode()], [b'"v"'])
