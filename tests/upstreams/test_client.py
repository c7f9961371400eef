"""When a request is not sent again, and the timeouts of each phase. When it is: test_stale.py."""

from __future__ import annotations

import asyncio

import pytest

from gateway.upstreams.http import Timeouts
from gateway.upstreams.http.errors import (
    Disconnected,
    FirstByteTimeout,
    IdleTimeout,
    TotalTimeout,
)

from .wire import OK, always, answers, everything, line


def dies_on_second_request(counts):
    """Serve one request per connection, then read the next and close without a byte: a stale connection."""

    async def script(peer):
        counts.append(0)
        await peer.request()
        counts[-1] += 1
        await peer.say(OK)
        if await peer.request():
            counts[-1] += 1

    return script


async def test_no_retry_on_a_fresh_connection_or_after_a_response_byte():
    requests = 0

    async def script(peer):
        nonlocal requests
        while await peer.request():
            requests += 1
            if requests in (1, 3):
                await peer.say(b"H" if requests == 3 else b"")
                return
            await peer.say(OK)

    async with line(script) as up:
        with pytest.raises(Disconnected):
            await up.send()
        await up.get()
        with pytest.raises(Disconnected) as caught:
            await up.send()
        assert caught.value.received
        assert requests == 3


async def test_a_connection_known_to_be_closed_is_not_written_to():
    async with line(answers(OK, close=True)) as up:
        for _ in range(3):
            assert await everything(await up.send(b"POST", body=b"x")) == b"ok"
            await up.settled()
        assert up.server.connections == 3


async def test_no_head_in_time():
    async with line(answers(b"HTTP/1.1 103 Hint\r\n\r\nHTTP/1.1 200 OK\r\n")) as up:
        with pytest.raises(FirstByteTimeout) as caught:
            await up.send(timeouts=Timeouts(connect=60, first_byte=0.1, idle=60, total=60))
        assert caught.value.sent
        await up.settled()


async def test_silence_in_the_body_after_what_had_arrived():
    async with line(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")) as up:
        response = await up.send(timeouts=Timeouts(connect=60, first_byte=60, idle=0.2, total=60))
        assert await response.read() == b"abc"
        with pytest.raises(IdleTimeout):
            await response.read()
        await up.settled()


@pytest.mark.parametrize("dribble", [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100])
async def test_a_dribbling_upstream_meets_the_total_timeout(dribble):
    async def script(peer):
        await peer.request()
        for byte in dribble:
            await peer.say(bytes([byte]))
            await asyncio.sleep(0.01)

    async with line(script) as up:
        with pytest.raises(TotalTimeout):
            await everything(await up.send(timeouts=Timeouts(connect=60, first_byte=60, idle=60, total=0.3)))
        await up.settled()


async def test_a_steady_body_outlives_the_idle_timeout():
    async def script(peer):
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n")
        for _ in range(30):
            await peer.say(b"x")
            await asyncio.sleep(0.05)

    async with line(script) as up:
        response = await up.send(timeouts=Timeouts(connect=60, first_byte=60, idle=1, total=60))
        assert await everything(response) == b"x" * 30


async def test_a_caller_who_does_not_read_is_no_silence_of_the_upstream():
    async def script(peer):
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000)
        await peer.reader.read()

    async with line(script) as up:
        response = await up.send(timeouts=Timeouts(connect=60, first_byte=60, idle=0.5, total=60))
        await asyncio.sleep(1)
        assert len(await everything(response)) == 9_000_000


async def test_one_timer_serves_many_calls():
    loop = asyncio.get_running_loop()
    armed = []
    original = loop.call_at

    def counting(when, *args, **kwargs):
        armed.append(when)
        return original(when, *args, **kwargs)

    async with line(always(OK)) as up:
        await up.get()
        await up.get()
        loop.call_at = counting
        try:
            for _ in range(100):
                await up.get()
        finally:
            del loop.call_at
        assert armed == []


async def test_times_may_shrink_from_call_to_call():
    async with line(answers(OK, b"")) as up:
        await up.send(timeouts=Timeouts(connect=60, first_byte=60, idle=60, total=60))
        with pytest.raises(FirstByteTimeout):
            await up.send(b"POST", timeouts=Timeouts(connect=60, first_byte=0.1, idle=60, total=60))


async def test_gauges_count_over_all_origins():
    async with line(always(OK)) as one:
        await one.get()
        one.origin = type(one.origin)("http", "localhost", one.port)
        await one.get()
        assert (one.client.counts.open, one.client.counts.idle, one.client.counts.in_use) == (2, 2, 0)
