"""Bodies while they are on the way: 1xx, Expect, streams by handshake, and what breaks off, on every server (EX-17, EX-20, EX-23)."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from tests.hostile.servers import (
    CONTINUES_UNASKED,
    REFUSES_UNKNOWN_EXPECTATIONS,
)
from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.talk import OK, seen_by
from tests.hostile.wire import CLOSE, ScriptedUpstream, Wire, ask, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream

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
    wired: RunningGateway, server: str, market: Market, upstream: RecordingUpstream
) -> None:
    if server in REFUSES_UNKNOWN_EXPECTATIONS:
        upstream.forget()
        answer = await ask(wired.port, market.ask("POST", "/x", "Expect: a-miracle", body=b"ok"))
        assert (answer.status, upstream.calls) == (417, 0)
        return
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
        async with asyncio.timeout(60):
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


async def test_a_stream_to_http_1_0_ends_with_its_connection(
    wired: RunningGateway, market: Market, scripted: ScriptedUpstream
) -> None:
    scripted.answers["old"] = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + b"1\r\n!\r\n0\r\n\r\n"
    )
    wire = await Wire.open(wired.port)
    await wire.send(market.ask("GET", "/old", shop=market.scripted).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    answer = await wire.answer()
    assert (answer.status, answer.body, await wire.rest()) == (200, b"ok!", b"")
    wire.close()
    assert answer.all("transfer-encoding") == []


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
    wired: RunningGateway, market: Market, upstream: RecordingUpstream
) -> None:
    fields = ["Connection: Upgrade", "Upgrade: foo/2"]
    seen = await seen_by(upstream, wired, market.ask("GET", "/x", *fields))
    assert (seen.all("upgrade"), seen.all("connection")) == ([], [])
    upstream.forget()
    answer = await ask(wired.port, market.ask("POST", "/x", *fields, body=b"body"))
    assert (answer.status, upstream.requests[0].body) == (200, b"body")
