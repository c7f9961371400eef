"""Uploads that take places instead of bringing bytes: `slowhttptest -B` and its relatives shut no publisher.

The gateways here let a body fall 3 s behind its least rate (conftest.py); no test measures how long.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.hostile.shops import PRICE, Market, Tills
from tests.hostile.wire import Answer, ScriptedUpstream, Wire, ask, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Shop, World

PLACES = 4
DRIPS = 60
BEGINNING = b"x" * 100_000  # more than is read before there is a place

HOW = {
    "a short body": ("Content-Length: 4096", b"x"),
    "a long body": ("Content-Length: 10000000", BEGINNING),
    "chunks": ("Transfer-Encoding: chunked", b"1\r\nx\r\n"),
    "a long body in chunks": ("Transfer-Encoding: chunked", b"186a0\r\n" + BEGINNING + b"\r\n"),
    "a byte at a time after 100 Continue": ("Expect: 100-continue\r\nContent-Length: 4096", b""),
}


@pytest_asyncio.fixture(scope="module")
async def narrow(world: World) -> Shop:
    """A publisher with few places, for which nobody waits long."""
    return await world.publisher(PRICE, max_connections=PLACES, connect_timeout_seconds=20)


class Drips:
    """Connections that begin an upload and go on by a byte at a time, each anew when it is ended."""

    def __init__(self, port: int, raw: bytes, piece: bytes) -> None:
        self._port, self._raw, self._piece = port, raw, piece
        self.statuses: list[int] = []
        self.begun = 0

    async def run(self) -> None:
        while True:
            wire = await Wire.open(self._port)
            answering = asyncio.ensure_future(wire.answer())
            try:
                await wire.send(self._raw)
                self.begun += 1
                while not answering.done():
                    await wire.send(self._piece)
                    await asyncio.wait((answering,), timeout=0.5)
                with contextlib.suppress(EOFError):
                    self.statuses.append(answering.result().status)
            finally:
                answering.cancel()
                wire.close()


@contextlib.asynccontextmanager
async def dripping(port: int, raw: bytes, piece: bytes) -> AsyncIterator[Drips]:
    """While as many connections drip as `DRIPS` says."""
    drips = Drips(port, raw, piece)
    running = [asyncio.create_task(drips.run()) for _ in range(DRIPS)]
    try:
        async with asyncio.timeout(60):
            while drips.begun < DRIPS:
                await asyncio.sleep(0.05)
        yield drips
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@pytest.mark.parametrize("how", HOW)
async def test_dripping_uploads_do_not_shut_a_publisher(
    wired: RunningGateway, market: Market, narrow: Shop, tills: Tills, how: str
) -> None:
    agent = await tills.agent(how)
    framing, first = HOW[how]
    raw = request("POST", f"/publishers/{narrow.slug}/x", framing, key=agent.key) + first
    async with dripping(wired.port, raw, b"1\r\nx\r\n" if "chunked" in framing else b"x") as drips:
        for _ in range(5):
            answers = await asyncio.gather(
                ask(wired.port, market.ask("GET", "/x", shop=narrow)),
                ask(wired.port, market.ask("POST", "/x", shop=narrow, body=b"short")),
            )
            assert [answer.status for answer in answers] == [200, 200]
        async with asyncio.timeout(120):
            while 408 not in drips.statuses:
                await asyncio.sleep(0.1)
    assert set(drips.statuses) <= {408, 503}
    await tills.expect(agent, 0)


async def test_an_upload_at_its_pace_arrives_whole(
    wired: RunningGateway, market: Market, narrow: Shop, upstream: RecordingUpstream
) -> None:
    """Above the least rate, with pauses, for longer than a body may fall behind."""
    upstream.forget()
    wire = await Wire.open(wired.port)
    await wire.send(market.ask("POST", "/paced", "Content-Length: 70000", shop=narrow))
    for _ in range(14):
        await wire.send(b"y" * 5_000)
        await asyncio.sleep(0.3)
    answer = await wire.answer()
    wire.close()
    assert (answer.status, [len(seen.body) for seen in upstream.requests if seen.target.endswith("/paced")]) == (
        200,
        [70_000],
    )


async def test_a_caller_who_leaves_the_line_takes_no_place(
    wired: RunningGateway, scripted: ScriptedUpstream, world: World, tills: Tills
) -> None:
    shop = await world.publisher(PRICE, api_url=scripted.url, max_connections=1, connect_timeout_seconds=30)
    agent = await tills.agent("line")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    def call(method: str, below: str, *fields: str, body: bytes = b"") -> bytes:
        return request(method, f"/publishers/{shop.slug}/{below}", *fields, key=agent.key, body=body)

    scripted.early["works"] = work
    scripted.answers["told"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    scripted.forget()
    async with asyncio.timeout(60):
        working = asyncio.create_task(ask(wired.port, call("GET", "works")))
        await begun.wait()
        for raw in (call("GET", "left"), call("POST", "left", body=b"x")):
            leaving = await Wire.open(wired.port)
            await leaving.send(raw)
            await asyncio.sleep(0.5)
            leaving.close()
        staying: list[asyncio.Task[Answer]] = [
            asyncio.create_task(ask(wired.port, raw)) for raw in (call("GET", "told"), call("POST", "told", body=b"x"))
        ]
        await asyncio.sleep(0.5)
        go_on.set()
        assert [(await answer).status for answer in (working, *staying)] == [200] * 3
    assert sorted(target.rsplit(b"/", 1)[-1] for target in scripted.targets) == [b"told", b"told", b"works"]
    await tills.expect(agent, 3 * PRICE)
