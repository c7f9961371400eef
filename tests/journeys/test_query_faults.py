"""Queries when something goes wrong: deadlines, a caller who leaves, a killed gateway, a database that hangs or changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.journeys.test_paid_call import settled
from tests.journeys.test_queries import DOLLAR, ask, narrow_role
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.market import Market, sell
from tests.support.services import Services
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
SLOW = "SELECT count(*) FROM generate_series(1, 1000000) AS a, generate_series(1, 1000) AS b"
# The first rows come at once, later ones ever more slowly.
SLOW_ROWS = "SELECT a.n, (SELECT count(*) FROM generate_series(1, 50 * a.n * a.n) AS b) AS c FROM generate_series(1, 1000) AS a (n)"


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway that gives queries little time."""
    running = await start_gateway(
        services,
        database_url,
        QUERIES_SECONDS="4",
        QUERIES_STATEMENT_SECONDS="1",
        QUERIES_CONNECTIONS="2",
        QUERIES_REFRESH="1",
        QUERIES_BUFFER="1024",
        MONEY_DEAD_AFTER="1",
    )
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def shop(gateway: RunningGateway, world: World, market: Market) -> Shop:
    """A publisher of the market, 0.001 dollars at least."""
    return await sell(gateway.client, await world.agent(), market.config(sample=False), pricing={"min_charge": "0.001"})


@pytest_asyncio.fixture
async def agent(world: World) -> Agent:
    """An agent with a hundred dollars."""
    return await world.agent(100 * DOLLAR)


async def test_a_query_without_a_row_in_time_costs_the_minimum(
    gateway: RunningGateway, world: World, shop: Shop, agent: Agent, connection: Connection
) -> None:
    answer = await ask(gateway, shop, agent, SLOW)
    assert (answer.status_code, answer.json()["type"], answer.json()["cost"]) == (
        504, "/problems/query-stopped", "0.001",
    ), answer.text  # fmt: skip
    await settled(connection)
    assert await world.balance(agent) == 100 * DOLLAR - 1_000


async def test_what_came_in_time_is_delivered_and_paid(
    gateway: RunningGateway, world: World, shop: Shop, agent: Agent, connection: Connection
) -> None:
    answer = (await ask(gateway, shop, agent, SLOW_ROWS)).json()
    assert answer["truncated"] == "seconds"
    assert 0 < answer["row_count"] < 1_000
    await settled(connection)
    assert await world.balance(agent) == 100 * DOLLAR - answer["cost_atomic"]
    assert answer["cost_atomic"] == answer["metered_rows"] * 1_000


async def test_a_caller_who_leaves_pays_what_was_read(
    gateway: RunningGateway, world: World, shop: Shop, agent: Agent, connection: Connection
) -> None:
    body = json.dumps({"query": "SELECT f.body, g.body AS again FROM filings f, filings g"}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        f"POST /publishers/{shop.slug} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.transport.abort()
    await settled(connection)
    paid = 100 * DOLLAR - await world.balance(agent)
    assert paid > 1_000


async def test_a_killed_gateway_leaves_no_hold(
    services: Services, database_url: str, gateway: RunningGateway, world: World, shop: Shop, connection: Connection
) -> None:
    agent = await world.agent(DOLLAR)
    dying = await start_gateway(
        services, database_url, QUERIES_SECONDS="20", QUERIES_STATEMENT_SECONDS="5", MONEY_DEAD_AFTER="1"
    )
    asking = asyncio.create_task(ask(dying, shop, agent, SLOW))
    while await connection.fetchval("SELECT count(*) FROM ledger.hold WHERE status = 'pending'") == 0:
        await asyncio.sleep(0.02)
        assert not asking.done(), asking.result().text
    await dying.kill()
    with pytest.raises(httpx.HTTPError):
        await asking
    for _ in range(1200):
        if await world.balance(agent) == DOLLAR:
            break
        await asyncio.sleep(0.05)
    await settled(connection)
    assert await world.balance(agent) == DOLLAR


class Relay:
    """Passes bytes on to a server until it is told to hang."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._going = asyncio.Event()
        self._going.set()
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> Relay:
        await self.open()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._going.set()
        await self.close()

    async def open(self) -> None:
        """Listen, on the port of before if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Listen no more and end all connections."""
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            self._writers.clear()

    def hang(self) -> None:
        self._going.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers += [writer, back]
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65_536):
                await self._going.wait()
                writer.write(piece)
            writer.close()


def through(market: Market, relay: Relay) -> dict[str, Any]:
    port = urlsplit(market.connection_string).port
    return market.config(sample=False) | {
        "connection_string": market.connection_string.replace(f":{port}/", f":{relay.port}/")
    }


async def test_a_hanging_database_harms_nobody_else(
    gateway: RunningGateway, world: World, market: Market, shop: Shop, agent: Agent, connection: Connection
) -> None:
    async with Relay(urlsplit(market.connection_string).port or 0) as relay:
        hanging = await sell(gateway.client, await world.agent(), through(market, relay))
        await gateway.hears(hanging.slug)
        assert (await ask(gateway, hanging, agent, "SELECT 1 AS n")).status_code == 200
        relay.hang()
        stuck = [asyncio.create_task(ask(gateway, hanging, agent, "SELECT 2 AS n")) for _ in range(8)]
        await asyncio.sleep(0.2)
        for number in range(8):
            answer = await ask(gateway, shop, agent, f"SELECT {number} AS n")
            assert answer.status_code == 200
        assert not any(task.done() for task in stuck[:2]), "the others were answered while this one hung"
        statuses = sorted({answer.status_code for answer in await asyncio.gather(*stuck)})
        assert set(statuses) <= {502, 503, 504}
    await settled(connection)


async def test_a_known_query_whose_database_hangs_is_not_paid(
    gateway: RunningGateway, world: World, market: Market, agent: Agent, connection: Connection
) -> None:
    """Its money is held while its sandbox opens; a sandbox that never stands releases it."""
    async with Relay(urlsplit(market.connection_string).port or 0) as relay:
        hanging = await sell(gateway.client, await world.agent(), through(market, relay))
        await gateway.hears(hanging.slug)
        assert (await ask(gateway, hanging, agent, "SELECT 1 AS n")).headers["x-cost"] == "0.001"
        relay.hang()
        answer = await ask(gateway, hanging, agent, "SELECT 1 AS n")
        assert (answer.status_code in (502, 504), answer.headers["x-cost"]) == (True, "0"), answer.text
    await settled(connection)
    assert await world.balance(agent) == 100 * DOLLAR - 1_000


async def test_a_changed_publisher_gets_new_connections(
    gateway: RunningGateway, world: World, market: Market, agent: Agent
) -> None:
    owner = await world.agent()
    async with Relay(urlsplit(market.connection_string).port or 0) as relay:
        shop = await sell(gateway.client, owner, through(market, relay))
        await gateway.hears(shop.slug)
        assert (await ask(gateway, shop, agent, "SELECT 1 AS n")).status_code == 200
        before = relay.connections
        path = f"/organizations/{owner.organization_id}/publishers/{shop.id}"
        changed = {"database_config": market.config(sample=False)}
        answer = await gateway.client.put(path, headers=owner.headers, json=changed)
        assert answer.status_code == 200, answer.text
        assert (await ask(gateway, shop, agent, "SELECT 2 AS n")).status_code == 200
        assert relay.connections == before


async def test_a_role_that_was_given_too_much_is_taken_out_of_service(
    gateway: RunningGateway, world: World, market: Market, agent: Agent
) -> None:
    async with narrow_role(market) as config:
        shop = await sell(gateway.client, await world.agent(), config)
        await gateway.hears(shop.slug)
        assert (await ask(gateway, shop, agent, "SELECT name FROM sectors LIMIT 1")).status_code == 200
        await market.owner.execute("GRANT INSERT ON demo.sectors TO narrow")
        assert await until(lambda: ask(gateway, shop, agent, "SELECT name FROM sectors LIMIT 1"), 501)
        await market.owner.execute("REVOKE INSERT ON demo.sectors FROM narrow; GRANT SELECT ON demo.filings TO narrow")
        assert await until(lambda: ask(gateway, shop, agent, "SELECT form FROM filings LIMIT 1"), 200)


async def until(call: Any, status: int) -> bool:
    """Return whether a call has a status within some seconds."""
    for _ in range(1200):
        if (await call()).status_code == status:
            return True
        await asyncio.sleep(0.05)
    return False
