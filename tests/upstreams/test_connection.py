"""Responses on the wire: what the caller gets, and whether the connection is used again."""

from __future__ import annotations

import asyncio

import pytest

from gateway.upstreams.http.errors import BrokenBody, Disconnected, ProtocolError, UpstreamError
from gateway.upstreams.http.response import HIGH_WATER

from .wire import HOST, OK, answers, everything, line

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
KEPT = {
    "length": (OK, b"ok"),
    "length ending in a line end": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", b"ok\n"),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b""),
    "chunked": (CHUNKED + b"2\r\nok\r\n3;a=b\r\nay!\r\n0\r\n\r\n", b"okay!"),
    "chunked with trailers": (CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\nX-T: \r\n\r\n", b"ok"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "204 with a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b""),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
    "100 first": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
    "102 and 103 first": (b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK, b"ok"),
    "1.0 kept alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "h2c offered, not taken": (
        b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
        b"",
    ),
}
CLOSED = {
    "connection: close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "a second response behind": (OK + OK, b"ok"),
    "part of one behind": (OK + b"H", b"ok"),
    "garbage behind": (OK + b"\x16\x03", b"ok"),
    "a line end behind": (OK + b"\r\n", b"ok"),
    "bytes behind a 204": (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", b""),
    "a line end behind chunks": (CHUNKED + b"2\r\nok\r\n0\r\n\r\n\r\n", b"ok"),
    "a response with fields behind chunks": (CHUNKED + b"0\r\n\r\n" + OK, b""),
}


@pytest.mark.parametrize("by", [None, 1, 7])
@pytest.mark.parametrize("shape", KEPT)
async def test_connection_is_kept_after(shape, by):
    wire, body = KEPT[shape]
    async with line(answers(wire, OK, by=by)) as up:
        response = await up.send()
        assert await everything(response) == body
        assert response.complete_body is None  # it was read
        await up.settled(open=1, idle=1)
        assert await up.get() == b"ok"
        assert up.server.connections == 1


@pytest.mark.parametrize("shape", CLOSED)
async def test_connection_is_closed_after(shape):
    wire, body = CLOSED[shape]
    async with line(answers(wire)) as up:
        response = await up.send()
        assert await everything(response) == body
        assert response.trailers == []
        await up.settled()
        assert await everything(await up.send()) == body
        assert up.server.connections == 2


async def test_head_and_body_in_one_segment_need_no_second_await():
    async with line(answers(OK)) as up:
        response = await up.send()
        assert response.complete_body == b"ok"
        assert up.client.counts.idle == 1
        assert await everything(response) == b"ok"


async def test_names_order_and_bytes_of_the_head_are_as_received():
    fields = b"set-COOKIE: a\r\nX:  padded \t\r\nset-COOKIE: \xfe\r\nE:\r\nContent-Length: 0\r\n"
    head = b"HTTP/1.1 299 Very \xffFine\r\n" + fields + b"\r\n"
    async with line(answers(head)) as up:
        response = await up.send()
        assert (response.status, response.reason) == (299, b"Very \xffFine")
        assert [(name, value.rstrip()) for name, value in response.headers] == [
            (b"set-COOKIE", b"a"),
            (b"X", b"padded"),
            (b"set-COOKIE", b"\xfe"),
            (b"E", b""),
            (b"Content-Length", b"0"),
        ]


async def test_interim_responses_leave_nothing_behind():
    async with line(answers(b"HTTP/1.1 103 Hint\r\nLink: x\r\n\r\n" + OK)) as up:
        response = await up.send()
        assert (response.status, response.reason, response.headers) == (200, b"OK", [(b"Content-Length", b"2")])


async def test_trailers_are_there_after_the_end():
    async with line(answers(CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", by=3)) as up:
        response = await up.send()
        assert response.trailers == []
        assert await everything(response) == b"ok"
        assert response.trailers == [(b"X-Sum", b"1")]
        assert response.headers == [(b"Transfer-Encoding", b"chunked")]


@pytest.mark.parametrize("by", [None, 1])
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n",
    ],
)
async def test_answers_to_head_have_no_body_and_keep_the_connection(head, by):
    async with line(answers(head, OK, by=by)) as up:
        response = await up.send(b"HEAD")
        assert response.complete_body in (b"", None)
        assert await everything(response) == b""
        assert await up.get() == b"ok"
        assert up.server.connections == 1


@pytest.mark.parametrize("behind", [b"x", b"\r\n", b"5\r\nhello\r\n0\r\n\r\n"])
async def test_a_body_behind_an_answer_to_head_closes_the_connection(behind):
    async with line(answers(CHUNKED + behind)) as up:
        assert await everything(await up.send(b"HEAD")) == b""
        await up.settled()


@pytest.mark.parametrize("by", [None, 1])
async def test_body_until_close(by):
    async with line(answers(b"HTTP/1.1 200 OK\r\n\r\nas long as it lasts", by=by, close=True)) as up:
        assert await up.get() == b"as long as it lasts"
        await up.settled()


BAD = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 201 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 65_536 + b"\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000,
    b"HTTP/1.1 103 Hint\r\n\r\n" * 4_000,
]


@pytest.mark.parametrize("wire", BAD, ids=lambda wire: repr(wire[16:60]))
async def test_broken_heads_are_protocol_errors(wire):
    async with line(answers(wire)) as up:
        with pytest.raises(ProtocolError) as caught:
            await up.send()
        assert caught.value.sent
        assert "xxx" not in str(caught.value)
        await up.settled()


async def test_a_large_but_allowed_head_and_body_in_one_read():
    head = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60_000 + b"\r\nContent-Length: 200000\r\n\r\n"
    async with line(answers(head + b"y" * 200_000)) as up:
        assert await up.get() == b"y" * 200_000


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        CHUNKED + b"5\r\nsh",
        CHUNKED + b"5\r\nshort\r\n",
        CHUNKED + b"5\r\nshort\r\n0\r\nX: y\r\n",
    ],
)
async def test_a_truncated_body_is_broken_after_its_intact_part(wire):
    async with line(answers(wire, by=5, close=True)) as up:
        response = await up.send()
        got = []
        with pytest.raises(BrokenBody) as caught:
            await collect(response, got)
        got = b"".join(got)
        assert caught.value.sent
        assert b"short".startswith(got)
        assert got
        with pytest.raises(BrokenBody):
            await response.read()
        assert response.complete_body is None
        await up.settled()


async def collect(response, into):
    while piece := await response.read():
        into.append(piece)


@pytest.mark.parametrize("tail", [b"zz\r\n", b"2\r\nokXX", b"2\nok\r\n", b"ffffffffffffffffff\r\n"])
async def test_malformed_chunks_break_the_body(tail):
    async with line(answers(CHUNKED + b"2\r\nok\r\n" + tail, by=9)) as up:
        response = await up.send()
        with pytest.raises(ProtocolError):
            await everything(response)
        await up.settled()


@pytest.mark.parametrize("endless", [b"0\r\nX: ", b"5;ext=", b"0\r\n"])
async def test_endless_framing_without_body_is_cut_off(endless):
    filler = b"X: y\r\n" if endless == b"0\r\n" else b"xxxxxx"
    async with line(answers(CHUNKED + b"1\r\na\r\n" + endless + filler * 100_000)) as up:
        response = await up.send()
        with pytest.raises(ProtocolError):
            await everything(response)
        await up.settled()


async def test_an_end_inside_the_head_is_a_disconnection():
    async with line(answers(b"HTTP/1.1 200 OK\r\nX", close=True)) as up:
        with pytest.raises(Disconnected) as caught:
            await up.send()
        assert caught.value.sent
        assert caught.value.received
        assert up.server.connections == 1


@pytest.mark.parametrize("late", [b"HTTP/1.1 408 Timeout\r\n\r\n", b"\r\n", b""])
async def test_an_idle_connection_that_says_anything_is_dropped(late):
    go = asyncio.Event()

    async def script(peer):
        await peer.request()
        await peer.say(OK)
        if up.server.connections == 1:
            await go.wait()
            await peer.say(late)
            if late:
                assert await peer.closed_by_client()

    async with line(script) as up:
        assert await up.get() == b"ok"
        assert up.client.counts.idle == 1
        go.set()
        await up.settled()
        assert await up.get() == b"ok"
        assert up.server.connections == 2


async def test_backpressure_stops_an_upstream_that_is_not_read():
    sent = 0

    async def script(peer):
        nonlocal sent
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n")
        for _ in range(1000):
            await peer.say(b"x" * 64_000)
            sent += 64_000

    async with line(script) as up:
        response = await up.send()
        before = -1
        while before != sent:  # until the server is stuck
            before = sent
            await asyncio.sleep(0.2)
        assert HIGH_WATER < before < 32_000_000
        assert len(await everything(response)) == 64_000_000
        await up.settled(open=1, idle=1)


async def test_a_connection_paused_by_the_last_bytes_of_a_body_notices_its_end():
    leave = asyncio.Event()

    async def script(peer):
        await peer.request()
        await leave.wait()

    async with line(script) as up:
        call = asyncio.ensure_future(up.send())
        await asyncio.sleep(0.05)
        connection = next(iter(next(iter(up.client._pools.values()))._alive))
        body = b"x" * (HIGH_WATER + 1)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        response = await call
        assert up.client.counts.idle == 1
        leave.set()
        await up.settled()
        assert response.complete_body == body


async def test_closing_early_closes_the_connection_and_late_closing_does_not():
    async with line(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")) as up:
        response = await up.send()
        assert await response.read() == b"abc"
        await response.aclose()
        await response.aclose()
        with pytest.raises(UpstreamError):
            await response.read()
        await up.settled()
    async with line(answers(OK)) as up:
        response = await up.send()
        await response.aclose()
        await up.settled(open=1, idle=1)


@pytest.mark.parametrize("by", [None, 1])
async def test_101_leaves_a_raw_stream(by):
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"

    async def script(peer):
        await peer.request()
        await peer.say(switch + b"hello HTTP/1.1", by=by)
        await peer.say(b"got " + await peer.reader.readexactly(4))

    async with line(script) as up:
        response = await up.send(headers=[*HOST, (b"Upgrade", b"echo"), (b"Connection", b"upgrade")])
        assert (response.status, response.complete_body) == (101, None)
        got = b""
        while len(got) < 14:
            got += await response.read()
        await response.write(b"ping")
        while piece := await response.read():
            got += piece
        assert got == b"hello HTTP/1.1got ping"
        with pytest.raises(UpstreamError):
            await response.write(b"late")
        await up.settled()


async def test_giving_up_a_raw_stream_closes_it():
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
    async with line(answers(switch)) as up:
        response = await up.send(headers=[(b"Upgrade", b"echo")])
        assert up.client.counts.in_use == 1
        await response.aclose()
        await up.settled()
