"""Restarts on a socket that somebody keeps: under a steady load of paid calls not one fails, and each is paid once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import httpx
import pytest
import pytest_asyncio

from tests.support.services import Services
from tests.support.socket_keeper import SocketKeeper
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

PRICE = 100
FUNDS = 100_000_000
PATIENCE = 60
PAUSE = 0.02  # between the calls of one client: a steady load, not all that the machine can bear
BODY = b'{"question": "as long as it is"}'
# The default with one worker, and the rest in the slow suite.
KINDS = [
    pytest.param(kind, workers, marks=[] if (kind, workers) == ("tollway", "1") else pytest.mark.slow)
    for kind in ("tollway", "hypercorn")
    for workers in ("1", "2")
]


@dataclass
class Client:
    """One caller with one connection, which keeps it alive as its library does, and repeats nothing."""

    agent: Agent
    url: str
    done: int = 0
    farewells: int = 0
    failures: list[str] = field(default_factory=list)
    stopping: bool = False

    async def run(self, work: Callable[[Client], Awaitable[None]]) -> None:
        """Call until it is told to stop, or fails."""
        try:
            async with asyncio.timeout(600):
                await work(self)
        except Exception as error:
            self.failures.append(f"{work.__name__} after {self.done} calls: {error!r}")

    def count(self, status: int, connection: str) -> None:
        """Note an answer."""
        self.farewells += connection.lower() == "close"
        self.done += 1
        if status != 200:
            raise AssertionError(f"status {status}")


async def bare(client: Client, pause: float = PAUSE) -> None:
    """Speak HTTP/1.1 by hand: nothing is kept from the test."""
    where = httpx.URL(client.url)
    head = (
        f"POST {where.raw_path.decode()} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.agent.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode()
    writer: asyncio.StreamWriter | None = None
    try:
        while not client.stopping:
            if writer is None:
                reader, writer = await asyncio.open_connection(where.host, where.port)
            writer.write(head + BODY)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            fields = dict(line.split(": ", 1) for line in answer.split("\r\n")[1:-2])
            await reader.readexactly(int(fields["content-length"]))
            client.count(int(answer[9:12]), fields.get("connection", ""))
            if fields.get("connection") == "close":
                writer.close()
                writer = None
            await asyncio.sleep(pause)
    finally:
        if writer is not None:
            writer.close()


async def slower(client: Client) -> None:
    """Think between calls, for less than a farewell lasts."""
    await bare(client, 0.2)


async def with_httpx(client: Client) -> None:
    """Call with httpx."""
    async with httpx.AsyncClient(headers=client.agent.headers, timeout=PATIENCE) as session:
        while not client.stopping:
            answer = await session.post(client.url, content=BODY)
            client.count(answer.status_code, answer.headers.get("connection", ""))
            await asyncio.sleep(PAUSE)


async def long_calls(client: Client) -> None:
    """Make calls that take longer than a farewell: one of them is in flight whenever a gateway ends."""
    async with httpx.AsyncClient(headers=client.agent.headers, timeout=PATIENCE) as session:
        while not client.stopping:
            answer = await session.get(f"{client.url}/slow?ms=1500")
            client.count(answer.status_code, answer.headers.get("connection", ""))


async def streams(client: Client) -> None:
    """Read answers that come in pieces."""
    async with httpx.AsyncClient(headers=client.agent.headers, timeout=PATIENCE) as session:
        while not client.stopping:
            answer = await session.get(f"{client.url}/chunks?n=5&pause=50")
            assert answer.content.count(b"data: ") == 5
            client.count(answer.status_code, answer.headers.get("connection", ""))


async def with_aiohttp(client: Client) -> None:
    """Call with aiohttp, which repeats GETs by itself, but no POSTs."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(headers=client.agent.headers, timeout=timeout) as session:
        while not client.stopping:
            async with session.post(client.url, data=BODY) as answer:
                await answer.read()
                client.count(answer.status, answer.headers.get("connection", ""))
            await asyncio.sleep(PAUSE)


CALLERS = (bare, bare, slower, with_httpx, with_aiohttp, long_calls, streams)


class Load:
    """All clients."""

    def __init__(self, agents: list[Agent], url: str) -> None:
        self.clients = [Client(agent, url) for agent in agents]
        self._tasks = [
            asyncio.create_task(client.run(work)) for client, work in zip(self.clients, CALLERS, strict=True)
        ]

    @property
    def failures(self) -> list[str]:
        return [failure for client in self.clients for failure in client.failures]

    async def goes_on(self, calls: int = 3) -> None:
        """Wait until each client has made some more calls."""
        before = [client.done for client in self.clients]
        async with asyncio.timeout(PATIENCE):
            while any(client.done < done + calls for client, done in zip(self.clients, before, strict=True)):
                assert not self.failures, self.failures
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        for client in self.clients:
            client.stopping = True
        await asyncio.gather(*self._tasks)


@pytest_asyncio.fixture
async def keeper(kind: str, workers: str, services: Services, database_url: str) -> AsyncIterator[SocketKeeper]:
    keeper = SocketKeeper(services, database_url, SERVER=kind, WORKERS=workers, SERVER_FAREWELL="1", SERVER_DRAIN="20")
    yield keeper
    keeper.close()


@pytest.mark.parametrize(("kind", "workers"), KINDS)
async def test_no_call_fails_while_gateways_are_restarted_and_replaced(
    keeper: SocketKeeper, world: World, upstream: RecordingUpstream
) -> None:
    shop: Shop = await world.publisher(PRICE)
    agents = [await world.agent(FUNDS) for _ in CALLERS]
    upstream.forget()
    first = await keeper.start()
    load = Load(agents, f"http://127.0.0.1:{keeper.port}/publishers/{shop.slug}/x")
    await load.goes_on()

    assert await keeper.stop(first) == 0, keeper.output()  # systemctl restart: new connections wait in the queue
    second = await keeper.start()
    await load.goes_on()

    third = await keeper.start()  # a second gateway beside the first: nobody waits
    assert await keeper.stop(second) == 0, keeper.output()
    await load.goes_on()

    await load.stop()
    assert not load.failures
    assert await keeper.stop(third) == 0, keeper.output()
    assert all(client.farewells >= 2 for client in load.clients), "each client was told twice that its connection ends"
    assert upstream.calls == sum(client.done for client in load.clients)
    spent = [FUNDS - await world.balance(agent) for agent in agents]
    assert spent == [client.done * PRICE for client in load.clients]
    assert await world.earned(shop) == sum(spent)
