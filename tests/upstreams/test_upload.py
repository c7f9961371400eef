"""Request bodies on the wire: framing kept, lengths enforced, early answers honoured."""

from __future__ import annotations

import asyncio
import re
import socket
import threading

import pytest

from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http import Origin, Timeouts, UpstreamClient
from gateway.upstreams.http.errors import Disconnected, IdleTimeout, UnsafeRequest, UploadError

from .wire import HOST, LOOPBACK, OK, PATIENT, answers, everything, line, pieces


def recording(seen, then=OK):
    """Answer one request with `then` and note its bytes; go on reading until the client closes."""

    async def script(peer):
        while request := await peer.request():
            seen.append(request)
            await peer.say(then)

    return script


async def test_iterators_go_out_chunked_without_empty_chunks():
    seen = []
    async with line(recording(seen)) as up:
        response = await up.send(b"POST", body=pieces(b"hello", b"", b"x" * 17))
        assert await everything(response) == b"ok"
        assert seen == [
            b"POST / HTTP/1.1\r\nHost: upstream.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n11\r\n" + b"x" * 17 + b"\r\n0\r\n\r\n"
        ]
        await up.settled(open=1, idle=1)


async def test_a_given_length_is_kept_and_bytes_are_not_chunked():
    seen = []
    async with line(recording(seen)) as up:
        await everything(await up.send(b"PUT", headers=[(b"content-length", b"6")], body=pieces(b"abc", b"", b"def")))
        await everything(await up.send(b"PUT", headers=[], body=b"abcdef"))
        assert seen == [
            b"PUT / HTTP/1.1\r\ncontent-length: 6\r\n\r\nabcdef",
            b"PUT / HTTP/1.1\r\nContent-Length: 6\r\n\r\nabcdef",
        ]
        assert up.server.connections == 1


@pytest.mark.parametrize("promised", [0, 1, 3, 5])
async def test_too_long_a_body_never_reaches_the_upstream_as_a_whole_request(promised):
    received = b""

    async def script(peer):
        nonlocal received
        received = await peer.reader.read()

    smuggled = b"GET /smuggled HTTP/1.1\r\n\r\n"
    async with line(script) as up:
        with pytest.raises(UploadError):
            await up.send(
                b"POST", headers=[(b"Content-Length", b"%d" % promised)], body=pieces(b"a", b"bb", b"cc", smuggled)
            )
        await up.settled()
    assert b"smuggled" not in received
    body = received.partition(b"\r\n\r\n")[2]
    assert len(body) < promised or not received


@pytest.mark.parametrize("parts", [[], [b"abc"], [b"", b"abcd"]])
async def test_too_short_a_body_closes_the_connection(parts):
    async with line(answers(OK)) as up:
        with pytest.raises(UploadError) as caught:
            await up.send(b"POST", headers=[(b"Content-Length", b"5")], body=pieces(*parts))
        assert caught.value.sent
        await up.settled()


async def test_a_failing_iterator_is_told_apart_from_a_failing_upstream():
    async def body():
        yield b"abc"
        raise KeyError("secret")

    async with line(answers(OK)) as up:
        with pytest.raises(UploadError) as caught:
            await up.send(b"POST", body=body())
        assert isinstance(caught.value.__cause__, KeyError)
        assert "secret" not in str(caught.value)
        await up.settled()


async def test_an_empty_iterator_with_length_zero_is_a_request_without_body():
    seen = []
    async with line(recording(seen)) as up:
        await everything(await up.send(b"POST", headers=[(b"Content-Length", b"0")], body=pieces(b"")))
        assert seen == [b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"]


async def test_unsafe_requests_open_no_connection():
    async with line(answers(OK)) as up:
        with pytest.raises(UnsafeRequest):
            await up.send(headers=[(b"X", b"a\r\nb: c")])
        assert up.server.connections == 0


@pytest.mark.parametrize("sized", [True, False])
async def test_an_early_answer_stops_the_upload(sized):
    stopped = asyncio.Event()

    async def body():
        try:
            yield b"first"
            await asyncio.sleep(3600)
            yield b"never"
        finally:
            stopped.set()

    async def script(peer):
        await peer.reader.readuntil(b"first")
        await peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        assert await peer.closed_by_client() or not sized

    async with line(script) as up:
        headers = [(b"Content-Length", b"10")] if sized else HOST
        response = await up.send(b"POST", headers=headers, body=body())
        assert response.status == 413
        assert stopped.is_set()
        assert await everything(response) == b"big"
        await up.settled()


async def test_an_early_answer_to_large_bytes_stops_them_too():
    got = 0

    async def script(peer):
        nonlocal got
        await peer.reader.readexactly(70_000)
        await peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        while data := await peer.reader.read(65_536):
            got += len(data)

    async with line(script) as up:
        response = await up.send(b"POST", body=b"z" * 64_000_000)
        assert await everything(response) == b"big"
        await up.settled()
    assert got < 32_000_000


async def test_an_answer_while_written_bytes_still_wait_closes_the_connection():
    got = 0

    async def script(peer):
        nonlocal got
        await peer.reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.05)  # by now everything is in the client's buffers: for the uploader it is done
        await peer.say(OK)
        while data := await peer.reader.read(65_536):
            got += len(data)

    async with line(script) as up:
        response = await up.send(b"POST", headers=[(b"Content-Length", b"32000000")], body=pieces(b"z" * 32_000_000))
        assert await everything(response) == b"ok"
        await up.settled()
    assert got < 32_000_000


async def test_a_body_that_fails_after_the_answer_does_not_spoil_it():
    stopped = asyncio.Event()

    async def body():
        yield b"first"
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            stopped.set()
            raise OSError("the caller has gone") from None

    async def script(peer):
        await peer.reader.readuntil(b"first")
        await peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\n")
        await asyncio.sleep(0.05)
        await peer.say(b"big")

    async with line(script) as up:
        response = await up.send(b"POST", body=body())
        assert stopped.is_set()
        assert await everything(response) == b"big"
        await up.settled()


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("answer", [b"big", b"x" * 100_000])
async def test_an_answer_is_not_lost_when_its_connection_is_reset_before_we_look(sized, answer):
    """The upstream refuses, closes with our bytes unread (a reset), and our next write fails before the next read."""
    listener, refused = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def refuse() -> None:
        with listener.accept()[0] as connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        refused.set()

    async def body():
        yield b"a" * 50_000
        yield b"b" * 50_000
        assert refused.wait(60)  # the loop stands still: it learns of the answer only after the writes below
        for _ in range(20):
            yield b"c" * 50_000

    thread = threading.Thread(target=refuse)
    thread.start()
    client = UpstreamClient(EgressGuard(LOOPBACK), max_connections=1, max_idle=1)
    headers = [(b"Content-Length", b"1100000")] if sized else HOST
    try:
        origin = Origin("http", "127.0.0.1", listener.getsockname()[1])
        response = await client.send(origin, b"POST", b"/", headers, body(), PATIENT)
        assert (response.status, await everything(response)) == (413, answer)
    finally:
        await client.aclose()
        thread.join(60)
        listener.close()


async def test_the_rest_of_a_long_answer_comes_after_an_aborted_upload():
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(b"HTTP/1.1 400 Bad\r\nContent-Length: 300000\r\n\r\n")
        await asyncio.sleep(0.05)
        await peer.say(b"e" * 300_000)
        assert await peer.reader.read() is not None

    async with line(script) as up:
        response = await up.send(b"POST", body=pieces(*[b"x" * 10] * 1000, pause=0.01))
        assert len(await everything(response)) == 300_000
        await up.settled()


@pytest.mark.parametrize("sized", [True, False])
async def test_upload_waits_for_a_slow_upstream(sized):
    produced = 0
    go = asyncio.Event()

    async def body():
        nonlocal produced
        for _ in range(500):
            produced += 64_000
            yield b"u" * 64_000

    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await go.wait()
        if sized:
            await peer.reader.readexactly(32_000_000)
        else:
            tail = b""
            while tail != b"\r\n0\r\n\r\n":
                tail = (tail + await peer.reader.read(1 << 20))[-7:]
        await peer.say(OK)

    async with line(script) as up:
        headers = [(b"Content-Length", b"32000000")] if sized else HOST
        call = asyncio.ensure_future(up.send(b"POST", headers=headers, body=body()))
        before = -1
        while before != produced:
            before = produced
            await asyncio.sleep(0.2)
        assert produced < 20_000_000
        go.set()
        assert await everything(await call) == b"ok"


async def test_an_upstream_that_stops_accepting_times_out_as_idle():
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(5)

    async with line(script) as up:
        with pytest.raises(IdleTimeout):
            await up.send(
                b"POST", body=b"z" * 64_000_000, timeouts=Timeouts(connect=60, first_byte=60, idle=0.2, total=60)
            )
        await up.settled()


async def test_a_slow_caller_is_not_the_upstreams_fault():
    impatient = Timeouts(connect=60, first_byte=0.5, idle=0.5, total=60)
    async with line(recording([])) as up:
        response = await up.send(b"POST", body=pieces(b"a", b"b", b"c", pause=0.7), timeouts=impatient)
        assert await everything(response) == b"ok"


@pytest.mark.parametrize("sized", [True, False])
async def test_an_upstream_that_leaves_during_the_upload(sized):
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")

    async with line(script) as up:
        headers = [(b"Content-Length", b"4000")] if sized else HOST
        with pytest.raises(Disconnected) as caught:
            await up.send(b"PUT", headers=headers, body=pieces(*[b"x" * 4] * 1000, pause=0.005))
        assert caught.value.sent
        assert up.server.connections == 1
        await up.settled()


async def test_head_and_small_body_leave_in_one_segment():
    first = b""

    async def script(peer):
        nonlocal first
        first = await peer.reader.read(65_536)
        await peer.say(OK)

    async with line(script) as up:
        await up.send(b"POST", headers=[], body=b"b" * 1000, timeouts=PATIENT)
    assert re.fullmatch(rb"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nb{1000}", first)
