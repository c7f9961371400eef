"""SIGTERM while calls are in flight: what can finish does, what cannot is cut off with its money settled, on every server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.sockets import SocketUpstream
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

PRICE = 10_000
FUNDS = 1_000_000
PATIENCE = 30


@dataclass
class Doomed:
    """A gateway that will be told to stop, and who calls it."""

    gateway: RunningGateway
    shop: Shop
    talks: Shop

    async def stop(self) -> int:
        self.gateway.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.gateway.process.wait, 60)


@pytest.fixture
def drain() -> str:
    """How long the calls in flight have."""
    return "4"


@pytest_asyncio.fixture
async def doomed(
    server: str, drain: str, services: Services, database_url: str, world: World, sockets: SocketUpstream
) -> AsyncIterator[Doomed]:
    shop = await world.publisher(PRICE)
    talks = await world.publisher(PRICE, api_url=sockets.url, websocket_enabled=True)
    running = await start_gateway(services, database_url, SERVER=server, SERVER_DRAIN=drain)
    yield Doomed(running, shop, talks)
    await running.stop(signal.SIGKILL)


async def whole(doomed: Doomed, agent: Agent, path: str) -> bytes:
    """Read one answer to its end."""
    async with httpx.AsyncClient(base_url=doomed.gateway.url, timeout=60) as client:
        answer = await client.get(f"/publishers/{doomed.shop.slug}{path}", headers=agent.headers)
        return answer.status_code.to_bytes(2, "big") + answer.content


async def idle(doomed: Doomed) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection that has had one answer and waits for the next request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", doomed.gateway.port)
    writer.write(b"HEAD /publishers/-/- HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def arrived(upstream: RecordingUpstream, calls: int) -> None:
    """Wait until so many calls have reached the publisher's server."""
    async with asyncio.timeout(PATIENCE):
        while upstream.calls < calls:
            await asyncio.sleep(0.01)


async def closing(doomed: Doomed, agent: Agent, heard: asyncio.Event) -> tuple[int | None, str]:
    """Hold a WebSocket until it is closed and return how; say when its publisher's server has answered."""
    url = f"ws://127.0.0.1:{doomed.gateway.port}/publishers/{doomed.talks.slug}/echo"
    async with connect(url, additional_headers=agent.headers, proxy=None, close_timeout=2) as socket:
        await socket.send("open")
        assert await socket.recv() == "open"
        heard.set()
        try:
            await socket.recv()
        except ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (None, "")
    raise AssertionError("it was not closed")


async def reasons(connection: Connection, agent: Agent) -> list[tuple[str, str]]:
    """Return how an agent's exchanges ended."""
    rows = await connection.fetch(
        "SELECT s.outcome, s.reason FROM ledger.settlement s JOIN ledger.transfer t ON t.cause_id = s.exchange_id"
        " WHERE t.kind = 'charge' AND t.leg = 0 AND t.wallet_id = $1",
        agent.wallet_id,
    )
    return [(row["outcome"], row["reason"]) for row in rows]


async def test_sigterm_ends_everything_in_time_and_every_exchange(
    doomed: Doomed, world: World, connection: Connection, upstream: RecordingUpstream, sockets: SocketUpstream
) -> None:
    sockets.forget()
    brief, endless, waiting, talker = [await world.agent(FUNDS) for _ in range(4)]
    upstream.forget()
    resting, its_writer = await idle(doomed)
    heard = asyncio.Event()
    cut = asyncio.create_task(whole(doomed, endless, "/chunks?n=1000&pause=100"))
    unanswered = asyncio.create_task(whole(doomed, waiting, "/hang"))
    talking = asyncio.create_task(closing(doomed, talker, heard))
    await asyncio.wait_for(heard.wait(), PATIENCE)
    await arrived(upstream, 2)
    finishing = asyncio.create_task(whole(doomed, brief, "/chunks?n=10&pause=150"))
    await arrived(upstream, 3)
    upstream.forget()
    ending = asyncio.create_task(doomed.stop())

    code, _reason = await asyncio.wait_for(talking, PATIENCE)
    assert code == 1012, "both sides may connect again at once"
    await asyncio.wait_for(sockets.last.ended.wait(), PATIENCE)
    assert sockets.last.code == 1012
    assert await asyncio.wait_for(resting.read(), PATIENCE) == b"", "a connection that waits for a request is closed"
    its_writer.close()
    assert not ending.done()
    with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)):
        await whole(doomed, brief, "/x")

    assert await finishing == b"\x00\xc8" + b"".join(f"data: {index}\n\n".encode() for index in range(10))
    with pytest.raises(httpx.RemoteProtocolError):
        await cut
    answer = await unanswered
    assert answer[:2] == (503).to_bytes(2, "big")
    assert b"/problems/unavailable" in answer
    assert await ending == 0, doomed.gateway.output()
    assert upstream.calls == 0, "nothing new was begun"

    assert (await proof.verify(connection)).open_exchanges == 0, "no reconciler was needed"
    assert await reasons(connection, brief) == [("settled", "delivered")]
    assert await reasons(connection, talker) == [("settled", "delivered")]
    assert await reasons(connection, endless) == await reasons(connection, waiting) == [("refunded", "gateway_stopped")]
    assert [FUNDS - await world.balance(agent) for agent in (brief, talker, endless, waiting)] == [PRICE, PRICE, 0, 0]


@pytest.mark.parametrize("drain", ["120"])
async def test_a_gateway_without_calls_stops_at_once(doomed: Doomed, drain: str) -> None:
    assert await doomed.stop() == 0, "the drain alone would be longer than anybody waits"


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_sigterm_ends_it_at_once(
    server: str, workers: str, services: Services, database_url: str, world: World, connection: Connection,
    upstream: RecordingUpstream,
) -> None:  # fmt: skip
    """The drain is an hour; what was open is given back by the worker itself."""
    shop, agent = await world.publisher(PRICE), await world.agent(FUNDS)
    running = await start_gateway(services, database_url, SERVER=server, SERVER_DRAIN="3600", WORKERS=workers)
    upstream.forget()
    doomed = Doomed(running, shop, shop)
    open_call = asyncio.create_task(whole(doomed, agent, "/hang"))
    await arrived(upstream, 1)
    running.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(1.5)  # what comes sooner may be the same request once more
    assert running.process.poll() is None
    running.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.process.wait, 120) == 0
    await asyncio.gather(open_call, return_exceptions=True)
    assert [outcome for outcome, _ in await reasons(connection, agent)] == ["refunded"]
    assert await world.balance(agent) == FUNDS
    await running.stop()
