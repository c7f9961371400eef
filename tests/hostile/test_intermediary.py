"""The gateway as an HTTP intermediary (RFC 9110 and 9112), byte for byte, on every server (EX-15 to EX-28)."""

from __future__ import annotations

import asyncio
import gzip
import hashlib

import pytest

from tests.hostile.servers import (
    BARE_QUESTION_MARK_KEPT,
    CONTINUES_UNASKED,
    ORDER_KEPT,
    REFUSES_BODY_BEHIND_UPGRADE,
    REFUSES_BYTES_BEHIND_CLOSE,
)
from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.wire import CLOSE, Answer, ScriptedUpstream, Wire, ask, request
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import Recorded, RecordingUpstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def seen_by(upstream: RecordingUpstream, wired: RunningGateway, raw: bytes) -> Recorded:
    """Send a request that must be served and return what arrived."""
    upstream.forget()
    answer = await ask(wired.port, raw)
    assert answer.status == 200, answer
    (seen,) = upstream.requests
    return seen


async def told(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, answer: bytes, method: str = "GET"
) -> Answer:
    """Let the publisher's server answer with these bytes and return what the caller reads."""
    scripted.answers["told"] = answer
    return await ask(wired.port, market.ask(method, "/told", shop=market.scripted), head=method == "HEAD")


# --- Fields of the request ---

HOP_BY_HOP = [
    "Connection: keep-alive, X-Listed", "CONNECTION: x-second", "X-Listed: 1", "X-Second: 1", "X_Second: 1", "Keep-Alive: 300",
    "TE: trailers", "Trailer: X-T", "Proxy-Authorization: Basic eA==", "Proxy-Connection: keep-alive",
    "Proxy-Authenticate: Basic", "HTTP2-Settings: AAMAAABkAAQAAP__",
]  # fmt: skip


async def test_hop_by_hop_and_listed_fields_stay_here(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *HOP_BY_HOP, "X-Stays: 1"))
    names = {name for name, _ in seen.headers}
    assert not names & {line.partition(":")[0].lower() for line in HOP_BY_HOP}
    assert seen.all("x-stays") == ["1"]


async def test_a_caller_cannot_list_away_what_we_write(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    listed = "host, x-forwarded-for, via, x-request-id, x-upstream-token, content-length, content-type, authorization"
    seen = await seen_by(
        upstream, wired, market.ask("POST", "/x", f"Connection: {listed}", "Content-Type: a/b", body=b"whole")
    )
    for name in ("host", "x-forwarded-for", "via", "x-request-id", "x-upstream-token", "content-type"):
        assert len(seen.all(name)) == 1, name
    assert (seen.body, seen.all("authorization")) == (b"whole", [])


async def test_what_the_agent_shows_us_alone_stays_here(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    private = [
        "Cookie: session=1",
        "PAYMENT-SIGNATURE: p",
        "X-PAYMENT: p",
        "X-Agent-Wallet: 0x0",
        "Idempotency-Key: once",
    ]
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *private[:-1]))
    assert market.agent.key.encode() not in seen.head
    assert not {name for name, _ in seen.headers} & {
        "authorization",
        *(line.partition(":")[0].lower() for line in private[:-1]),
    }


CLAIMS = [
    "X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 7.7.7.7", "X-Forwarded-Proto: gopher", "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 1", "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6", "True-Client-IP: 6.6.6.6", "CF-Connecting-IP: 6.6.6.6",
    "X-Client-IP: 6.6.6.6", "X_Forwarded_For: 6.6.6.6", "X_Real_IP: 6.6.6.6", "X-Request-Id: mine",
]  # fmt: skip


async def test_what_a_caller_claims_of_itself_is_replaced(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *CLAIMS))
    assert (seen.all("x-forwarded-for"), seen.all("x-forwarded-proto")) == (["127.0.0.1"], ["http"])
    assert seen.all("x-forwarded-host") == ["gateway"]
    assert b"6.6.6.6" not in seen.head
    assert b"evil" not in seen.head
    assert seen.all("x-request-id") != ["mine"]


async def test_a_trusted_proxy_is_believed_and_added_to_the_chain(
    services: Services, database_url: str, market: Market, upstream: RecordingUpstream
) -> None:
    behind = await start_gateway(services, database_url, SERVER_TRUSTED_PROXIES="127.0.0.1/32")
    try:
        seen = await seen_by(upstream, behind, market.ask("GET", "/x", *CLAIMS[:4], "X-Forwarded-Proto: https"))
        odd = await seen_by(upstream, behind, market.ask("GET", "/x", "X-Forwarded-Proto: https"))
    finally:
        await behind.stop()
    assert seen.all("x-forwarded-for") == ["6.6.6.6, 7.7.7.7, 127.0.0.1"]
    assert seen.all("x-forwarded-host") == ["evil.example"]
    assert seen.all("x-forwarded-proto") == ["http"], "neither http nor https"
    assert odd.all("x-forwarded-proto") == ["https"]


async def test_the_publishers_own_fields_cannot_be_doubled(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    """Nor in the spelling that CGI-like servers take for the same."""
    fields = ["X-Upstream-Token: mine", "X_Upstream_Token: mine", "x-upstream_token: mine"]
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *fields))
    assert seen.head.lower().count(b"token") == 1
    assert seen.all("x-upstream-token") == ["the-publishers-own"]


async def test_order_duplicates_and_bytes_of_fields_are_kept(
    wired: RunningGateway, server: str, market: Market, upstream: RecordingUpstream
) -> None:
    sent = [
        ("x-b", "2"), ("x-a", "1"), ("x-b", "\xe9\xff\xf0"), ("x-c", "a\tb"), ("x-empty", ""), ("x-b", 'q"\\,;='), ("x-d", "x" * 4_000),
    ]  # fmt: skip
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *(f"{name}: {value}" for name, value in sent)))
    arrived = [(name, value) for name, value in seen.headers if name in dict(sent)]
    if server in ORDER_KEPT:
        assert arrived == sent
    else:
        assert sorted(arrived) == sorted(sent)
        assert seen.all("x-b") == [value for name, value in sent if name == "x-b"]


async def test_request_trailers_are_no_fields(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    """A front that filters fields does not look at trailers: RFC 9110 section 6.5.1."""
    trailers = "X-Late: 1\r\nX-Forwarded-For: 6.6.6.6\r\nAuthorization: Bearer x\r\nHost: evil.example\r\n"
    raw = market.ask("POST", "/x", "Transfer-Encoding: chunked", "Trailer: X-Late")
    seen = await seen_by(upstream, wired, raw + b"5\r\nhello\r\n0\r\n" + trailers.encode() + b"\r\n")
    assert (seen.body, seen.all("x-late")) == (b"hello", [])
    assert b"6.6.6.6" not in seen.head


async def test_trailers_authenticate_nobody(wired: RunningGateway, market: Market, upstream: RecordingUpstream) -> None:
    upstream.forget()
    raw = request("POST", f"/publishers/{market.plain.slug}/x", "Transfer-Encoding: chunked")
    answer = await ask(wired.port, raw + f"0\r\nAuthorization: Bearer {market.agent.key}\r\n\r\n".encode())
    assert (answer.status, upstream.calls) == (402, 0)


# --- The target ---

TARGETS = [
    "/a%2Fb", "/a%2fb", "/a;b=c/d", "/a+b", "/a//b", "//a", "/a/", "/", "/%E2%82%AC", "/a%20b", "/a!$&'()*,=:@-._~", "/A%41", "/x?a=&&b",
    "/x?a+b=c%20d&a=%26", "/x?%", "/x?a=%zz", "/x?a/b?c", "/x?=&=", "/x?;a;b", "/x?redirect=http://e.example/%2e%2e/", "/a|b", '/a"b', "/a^b",
    "/a[1]{2}", "/x?a=[1]{2}|`", "/" + "a" * 4_000, "/x?" + "a=1&" * 1_000,
]  # fmt: skip


@pytest.mark.parametrize("below", TARGETS, ids=[target[:30] for target in TARGETS])
async def test_path_and_query_arrive_as_they_were_sent(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream, below: str
) -> None:
    upstream.forget()
    answer = await ask(wired.port, market.ask("GET", below, shop=market.keyed))
    if answer.status == 400:  # a server below refuses characters that RFC 3986 does not allow; nobody repairs them
        assert set(below) & set('|"^[]{}`%')
        assert upstream.calls == 0
        return
    assert (answer.status, [seen.target for seen in upstream.requests]) == (200, ["/base/v2" + below])


async def test_a_bare_question_mark(
    wired: RunningGateway, server: str, market: Market, upstream: RecordingUpstream
) -> None:
    seen = await seen_by(upstream, wired, market.ask("GET", "/x?"))
    assert seen.target == ("/x?" if server in BARE_QUESTION_MARK_KEPT else "/x")


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
    wired: RunningGateway, server: str, market: Market, upstream: RecordingUpstream
) -> None:
    upstream.forget()
    wire = await Wire.open(wired.port)
    await wire.send(market.ask("GET", "/first", "Connection: close") + market.ask("GET", "/second"))
    assert (await wire.answer()).status in ((200, 400) if server in REFUSES_BYTES_BEHIND_CLOSE else (200,))
    assert await wire.rest() == b""
    wire.close()
    served = [seen.target for seen in upstream.requests]
    assert served == ["/first"] or (served == [] and server in REFUSES_BYTES_BEHIND_CLOSE)


# --- Interim answers and Expect ---


async def test_interim_answers_of_an_upstream_disturb_nothing(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream
) -> None:
    """ASGI cannot pass them on (servers.py): the final answer must come whole, once and without their fields."""
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\nX-A: 1\r\n\r\n"
    wire = await Wire.open(wired.port)
    scripted.answers["told"] = hints + OK
    await wire.send(market.ask("GET", "/told", shop=market.scripted) * 2)
    for _ in range(2):
        answer = await wire.answer()
        assert (answer.status, answer.body, answer.all("link"), answer.all("x-a")) == (200, b"ok", [], [])
    wire.close()


@pytest.mark.parametrize("framed", ["length", "chunked"])
async def test_expect_is_met_by_100_and_the_body_forwarded_once(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream, framed: str
) -> None:
    body = bytes(index % 251 for index in range(1_000_000))
    framing = f"Content-Length: {len(body)}" if framed == "length" else "Transfer-Encoding: chunked"
    upstream.forget()
    wire = await Wire.open(wired.port)
    await wire.send(market.ask("POST", "/x", "Expect: 100-continue", framing))
    assert await wire.interim() == 100
    await wire.send(body if framed == "length" else b"f4240\r\n" + body + b"\r\n0\r\n\r\n")
    answer = await wire.answer()
    wire.close()
    (seen,) = upstream.requests
    assert (answer.status, seen.body_digest) == (200, hashlib.sha256(body).hexdigest())
    assert seen.all("expect") == []


async def test_a_refused_call_is_not_told_to_send_its_body(
    wired: RunningGateway, server: str, market: Market, upstream: RecordingUpstream
) -> None:
    upstream.forget()
    raw = request("POST", f"/publishers/{market.plain.slug}/x", "Expect: 100-continue", "Content-Length: 9")
    wire = await Wire.open(wired.port)
    await wire.send(raw)
    first = await wire.interim()
    if server in CONTINUES_UNASKED:
        assert first == 100
        first = (await wire.answer()).status
    assert (first, upstream.calls) == (402, 0)
    wire.close()


async def test_an_unknown_expectation_is_no_reason_to_hang(
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    seen = await seen_by(upstream, wired, market.ask("POST", "/x", "Expect: a-miracle", body=b"ok"))
    assert (seen.body, seen.all("expect")) == (b"ok", [])


async def test_an_upstream_may_answer_before_it_has_read_the_body(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, tills: Tills
) -> None:
    agent = await tills.agent("early")

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await asyncio.sleep(0.3)

    scripted.early["early"] = refuse
    wire = await Wire.open(wired.port)
    await wire.send(request("POST", f"/publishers/{market.scripted.slug}/early", "Content-Length: 1000", key=agent.key))
    await wire.send(b"a" * 10)
    answer = await wire.answer()
    wire.close()
    assert (answer.status, answer.body) == (413, b"no")
    await tills.expect(agent, PRICE)


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


# --- Streams: by handshake, not by the clock ---


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_an_answer_arrives_as_it_is_produced(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, framing: str
) -> None:
    """The upstream says the next event only after the caller has read the last one. Comments and retry pass (EX-20)."""
    events = [b": keep-alive\n\n", b"retry: 10\n\n", b"data: one\n\n", b"data: last\n\n"]
    read = asyncio.Queue[None]()

    async def produce(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        how = {
            "chunked": "Transfer-Encoding: chunked\r\n", "length": f"Content-Length: {sum(map(len, events))}\r\n", "close": "",
        }  # fmt: skip
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{how[framing]}\r\n".encode())
        for event in events:
            writer.write(b"%x\r\n%b\r\n" % (len(event), event) if framing == "chunked" else event)
            await writer.drain()
            await read.get()
        if framing == "chunked":
            writer.write(b"0\r\n\r\n")

    scripted.early["events"] = produce
    wire = await Wire.open(wired.port)
    await wire.send(market.ask("GET", "/events", shop=market.scripted))
    await wire.until(b"\r\n\r\n")
    for event in events:
        await wire.until(event)
        read.put_nowait(None)
    if framing != "length":
        await wire.until(b"0\r\n\r\n")
    wire.close()


@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_an_upload_arrives_as_it_is_sent(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, framing: str
) -> None:
    """The caller sends the next piece only after the upstream has read the last one."""
    arrived = asyncio.Queue[bytes]()
    pieces = [b"one", b"two", b"three"]

    async def consume(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            await reader.readuntil(piece[:-1])
            arrived.put_nowait(piece)
        await reader.readuntil(b"0\r\n\r\n" if framing == "chunked" else b"e")
        writer.write(OK)
        await writer.drain()

    scripted.early["upload"] = consume
    how = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {len(b''.join(pieces)) + 3}"
    wire = await Wire.open(wired.port)
    await wire.send(market.ask("POST", "/upload", how, shop=market.scripted))
    for piece in pieces:
        # One byte more than the upstream waits for: a gateway may hold the last one until it knows what follows.
        await wire.send(b"%x\r\n%b\r\n" % (len(piece) + 1, piece + b"-") if framing == "chunked" else piece + b"-")
        async with asyncio.timeout(5):
            assert await arrived.get() == piece
    if framing == "chunked":
        await wire.send(b"0\r\n\r\n")
    assert (await wire.answer()).status == 200
    wire.close()


@pytest.mark.parametrize("raw", [b"", b"Connection: keep-alive\r\n"])
async def test_http_1_0_is_answered_in_its_own_framing(
    wired: RunningGateway, server: str, market: Market, scripted: ScriptedUpstream, raw: bytes
) -> None:
    scripted.answers["old"] = OK
    wire = await Wire.open(wired.port)
    key = market.agent.key.encode()
    await wire.send(
        b"GET /publishers/%b/old HTTP/1.0\r\nAuthorization: Bearer %b\r\n%b\r\n"
        % (market.scripted.slug.encode(), key, raw)
    )
    answer = await wire.answer()
    wire.close()
    assert (answer.status, answer.body, answer.all("transfer-encoding")) == (200, b"ok", [])


async def test_an_upstream_that_breaks_off_after_its_head_is_no_empty_success(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream, tills: Tills
) -> None:
    """EX-23: the caller can tell; and it costs nothing."""
    agent = await tills.agent("breaks off")
    for how in (
        b"Content-Length: 10\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ):
        scripted.answers["head-only"] = b"HTTP/1.1 200 OK\r\n" + how + CLOSE
        raw = request("GET", f"/publishers/{market.scripted.slug}/head-only", key=agent.key)
        try:
            answer = await ask(wired.port, raw)
        except EOFError:
            continue
        assert not answer.complete or answer.status >= 500
    await tills.expect(agent, 0)


async def test_an_upgrade_to_something_else_is_ignored(
    wired: RunningGateway, server: str, market: Market, upstream: RecordingUpstream
) -> None:
    fields = ["Connection: Upgrade", "Upgrade: foo/2"]
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *fields))
    assert (seen.all("upgrade"), seen.all("connection")) == ([], [])
    upstream.forget()
    answer = await ask(wired.port, market.ask("POST", "/x", *fields, body=b"body"))
    if server in REFUSES_BODY_BEHIND_UPGRADE:
        assert (answer.status, upstream.calls) == (400, 0)
    else:
        assert (answer.status, upstream.requests[0].body) == (200, b"body")
