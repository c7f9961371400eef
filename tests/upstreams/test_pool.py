"""Who gets which connection: bounds, order, reuse, and counters that return to zero whatever happens."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.settings import ProxySettings
from gateway.upstreams.http import PoolCounts, Timeouts
from gateway.upstreams.http.errors import ConnectError, PoolTimeout, UpstreamError
from gateway.upstreams.origin import Lane

from .wire import OK, PATIENT, Line, always, answers, everything, line

HURRIED = Timeouts(connect=0.1, first_byte=60, idle=60, total=60)


async def test_200_calls_share_10_connections():
    busy = peak = 0

    async def script(peer):
        nonlocal busy, peak
        while request := await peer.request():
            busy += 1
            peak = max(peak, busy)
            await asyncio.sleep(0.005)
            busy -= 1
            body = request.split(b" ")[1]
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with line(script) as up:
        targets = [b"/%d" % number for number in range(200)]
        responses = await asyncio.gather(*(fetch(up, target) for target in targets))
        assert responses == targets
        assert peak == up.server.connections == 10
        await up.settled(open=10, idle=10)


async def fetch(up: Line, target: bytes) -> bytes:
    return await everything(await up.send(target=target))


async def test_the_connection_used_last_is_used_next():
    ports = []

    async def script(peer):
        while await peer.request():
            ports.append(peer.writer.get_extra_info("peername")[1])
            await asyncio.sleep(0.02)
            await peer.say(OK)

    async with line(script) as up:
        await asyncio.gather(up.get(), up.get(), up.get())
        last = ports[-1]
        for _ in range(3):
            await up.get()
        assert len(set(ports[3:])) == 1
        assert ports[3] in ports[:3]
        assert last in ports


async def test_waiting_is_first_come_first_served():
    order = []
    first = True

    async def script(peer):
        nonlocal first
        while await peer.request():
            await peer.say(OK.replace(b": 2", b": 9") if first else OK)
            first = False

    async def one(up, number):
        await everything(await up.send())
        order.append(number)

    async with line(script, max_connections=1) as up:
        held = await up.send()
        calls = []
        for number in range(5):
            calls.append(asyncio.ensure_future(one(up, number)))
            await asyncio.sleep(0)
        assert up.client.counts == PoolCounts(open=1, idle=0, in_use=1, waiting=5)
        await held.aclose()
        await asyncio.gather(*calls)
        assert order == [0, 1, 2, 3, 4]
        await up.settled(open=1, idle=1)


async def test_no_free_connection_in_time():
    async with line(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), max_connections=1) as up:
        held = await up.send()
        with pytest.raises(PoolTimeout) as caught:
            await up.send(timeouts=HURRIED)
        assert caught.value.sent is False
        assert up.client.counts == PoolCounts(open=1, in_use=1)
        await held.aclose()


async def test_a_lane_has_connections_of_its_own_and_another_limit_is_another_lane():
    go = asyncio.Event()

    async def script(peer):
        while await peer.request():
            await go.wait()
            await peer.say(OK)

    async with line(script, max_connections=5) as up:
        narrow, wide = Lane(up.origin, "shop", 1), Lane(up.origin, "shop", 2)

        def call(lane, timeouts=PATIENT):
            return asyncio.ensure_future(up.client.send(lane, b"GET", b"/", [], None, timeouts))

        waiting = [call(narrow), call(up.origin), call(wide), call(wide)]
        await asyncio.sleep(0.05)
        assert up.client.counts.in_use == 4
        for full in (narrow, wide):
            with pytest.raises(PoolTimeout) as caught:
                await call(full, HURRIED)
            assert not caught.value.sent
        go.set()
        for answer in await asyncio.gather(*waiting):
            assert await everything(answer) == b"ok"
        assert await everything(await call(narrow)) == b"ok"


async def test_a_closed_connections_slot_goes_to_the_next_in_line():
    async with line(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), max_connections=1) as up:
        held = await up.send()
        call = asyncio.ensure_future(up.send())
        await asyncio.sleep(0.02)
        await held.aclose()
        second = await call
        assert up.server.connections == 2
        await second.aclose()


@pytest.mark.parametrize("max_idle", [0, 2])
async def test_surplus_idle_connections_are_closed(max_idle):
    async with line(always(OK), max_idle=max_idle) as up:
        await asyncio.gather(*(up.get() for _ in range(6)))
        await up.settled(open=max_idle, idle=max_idle)


def test_as_many_are_kept_as_calls_may_be_on_their_way():
    it = ProxySettings()
    assert it.idle_connections_per_upstream >= it.connections_per_upstream, "or each burst makes connections anew"


async def test_idle_connections_expire_by_themselves():
    async with line(always(OK), idle_seconds=0.1) as up:
        await up.get()
        assert up.client.counts.idle == 1
        await up.settled()
        await up.get()
        assert up.server.connections == 2


async def test_an_expired_connection_is_not_used_even_if_its_timer_is_late():
    async with line(always(OK), idle_seconds=0.1) as up:
        await up.get()
        pool = next(iter(up.client._pools.values()))
        assert pool.take(asyncio.get_running_loop().time() + 0.2) is None
        await up.settled()


async def test_cancelled_while_waiting_in_line():
    async with line(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), max_connections=1) as up:
        held = await up.send()
        call = asyncio.ensure_future(up.send())
        await asyncio.sleep(0.01)
        assert up.client.counts.waiting == 1
        call.cancel()
        await asyncio.wait([call])
        assert up.client.counts == PoolCounts(open=1, in_use=1)
        await held.aclose()
        await up.settled()


async def test_cancelled_in_the_moment_a_connection_is_handed_over():
    async with line(always(OK), max_connections=1) as up:
        await up.get()
        pool = next(iter(up.client._pools.values()))
        connection = pool.take(0.0)
        assert connection is not None
        call = asyncio.ensure_future(up.send())
        await asyncio.sleep(0)
        assert up.client.counts.waiting == 1
        pool.release(connection)
        call.cancel()  # after the hand-over, before the receiver ran
        await asyncio.wait([call])
        assert call.cancelled()
        await up.settled(open=1, idle=1)


async def test_cancelled_in_the_moment_a_slot_is_handed_over():
    async with line(answers(OK.replace(b": 2", b": 9")), max_connections=1) as up:
        held = await up.send()
        call = asyncio.ensure_future(up.send())
        await asyncio.sleep(0)
        await held.aclose()
        assert up.client.counts == PoolCounts(open=1, in_use=1)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await up.settled()


async def test_cancelled_in_the_moment_of_the_answer_while_another_call_takes_the_connection():
    async with line(always(OK), max_connections=1) as up:
        first = asyncio.ensure_future(up.send())
        second = asyncio.ensure_future(up.send())
        while not (pool := next(iter(up.client._pools.values()), None)) or pool.counts.in_use == 0 or pool.counts.idle:
            await asyncio.sleep(0)
        while pool.counts.waiting:  # the answer has come and the connection was handed on: neither task has run
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first, second])
        assert await everything(second.result()) == b"ok"
        assert up.server.connections == 1


async def test_cancelled_while_waiting_for_the_head():
    async def script(peer):
        await peer.request()
        assert await peer.closed_by_client()

    async with line(script) as up:
        call = asyncio.ensure_future(up.send())
        await asyncio.sleep(0.05)
        assert up.client.counts.in_use == 1
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await up.settled()


@pytest.mark.parametrize("wire", [OK, OK.replace(b": 2", b": 9")])
async def test_cancelled_in_the_moment_the_answer_comes(wire):
    async def script(peer):
        await peer.request()
        assert await peer.closed_by_client()

    async with line(script) as up:
        call = asyncio.ensure_future(up.send())
        await asyncio.sleep(0.05)
        connection = next(iter(next(iter(up.client._pools.values()))._alive))
        call.cancel()
        connection.data_received(wire)  # before the cancelled task has run
        await asyncio.wait([call])
        assert call.cancelled()
        await up.settled()


async def test_cancelled_while_reading_the_body():
    async def script(peer):
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        assert await peer.closed_by_client()

    async with line(script) as up:
        response = await up.send()
        assert await response.read() == b"abc"
        call = asyncio.ensure_future(response.read())
        await asyncio.sleep(0.02)
        call.cancel()
        await asyncio.wait([call])
        await up.settled()


async def test_cancelled_while_uploading():
    closed = asyncio.Event()

    async def body():
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.001)
        finally:
            closed.set()

    async def script(peer):
        while await peer.reader.read(65_536):
            pass

    async with line(script) as up:
        call = asyncio.ensure_future(up.send(b"POST", body=body()))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await asyncio.wait_for(closed.wait(), 60)
        await up.settled()


async def test_cancelled_at_any_moment_no_slot_leaks():
    """300 calls over 3 connections, each cancelled after a random number of loop turns."""
    dice = random.Random(7)

    async def script(peer):
        while await peer.request():
            wire = dice.choice([OK, OK, OK.replace(b": 2", b": 9"), b"", b"HTTP/1.1 103 x\r\n\r\n" + OK])
            await peer.say(wire, by=dice.choice([None, 5]))
            if wire == b"":
                return

    async with line(script, max_connections=3) as up:
        await asyncio.gather(*(impatient(up, dice) for _ in range(300)))
        await up.settled(open=up.client.counts.idle, idle=up.client.counts.idle)
        assert await retrying(up) == b"ok"


async def impatient(up: Line, dice: random.Random) -> None:
    body = None if dice.random() < 0.7 else slow_body()
    call = asyncio.ensure_future(up.send(b"POST" if body else b"GET", body=body))
    for _ in range(dice.randrange(60)):
        await asyncio.sleep(0 if dice.random() < 0.9 else 0.001)
    call.cancel()
    try:
        response = await call
        await response.aclose()
    except (UpstreamError, asyncio.CancelledError):
        pass


async def slow_body():
    for _ in range(5):
        yield b"x" * 100
        await asyncio.sleep(0)


async def retrying(up: Line) -> bytes:
    """The script above breaks some answers on purpose; one of many must be whole."""
    for _ in range(100):
        response = None
        try:
            response = await up.send(timeouts=HURRIED)
            if response.headers == [(b"Content-Length", b"2")]:
                return await everything(response)
        except UpstreamError:
            pass
        if response is not None:
            await response.aclose()
    raise AssertionError("no whole answer in 100")


async def test_closing_the_client_fails_what_is_under_way_and_in_line():
    async with line(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), max_connections=1) as up:
        held = await up.send()
        waiting = asyncio.ensure_future(up.send())
        await asyncio.sleep(0.02)
        await up.client.aclose()
        with pytest.raises(ConnectError):
            await waiting
        with pytest.raises(ConnectError):
            await held.read()
        with pytest.raises(ConnectError):
            await up.send()
        assert up.client.counts == PoolCounts()
