"""A publisher's database that is down, full or silent: left alone and found again, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.journeys.test_breaker import gauges
from tests.journeys.test_paid_call import settled
from tests.journeys.test_queries import DOLLAR, ask, narrow_role
from tests.journeys.test_query_faults import Relay, through
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.market import Market, sell
from tests.support.services import Services
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
WAIT = 6.0


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway whose breakers open early and try again soon."""
    running = await start_gateway(
        services,
        database_url,
        BREAKER_FAILURES="3",
        BREAKER_WAIT=str(WAIT),
        BREAKER_WAIT_MAX="12",
        QUERIES_SECONDS="1",
        QUERIES_STATEMENT_SECONDS="0.5",
    )
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def shop(gateway: RunningGateway, world: World, market: Market) -> Shop:
    """A publisher of the market whose database works."""
    return await sell(gateway.client, await world.agent(), market.config(sample=False))


@pytest_asyncio.fixture
async def agent(world: World) -> Agent:
    """An agent with a hundred dollars."""
    return await world.agent(100 * DOLLAR)


async def status(gateway: RunningGateway, shop: Shop, agent: Agent, query: str = "SELECT 1 AS n") -> int:
    return (await ask(gateway, shop, agent, query)).status_code


async def test_a_database_that_is_down_is_left_alone_and_found_again(
    gateway: RunningGateway, world: World, market: Market, shop: Shop, agent: Agent, connection: Connection
) -> None:
    async with Relay(urlsplit(market.connection_string).port or 0) as relay:
        broken = await sell(gateway.client, await world.agent(), through(market, relay))
        await relay.close()
        assert [await status(gateway, broken, agent) for _ in range(3)] == [502, 502, 502]
        left = await ask(gateway, broken, agent, "SELECT 1 AS n")
        assert (left.status_code, left.json()["type"], left.headers["x-cost"]) == (
            503, "/problems/upstream-unavailable", "0",
        ), left.text  # fmt: skip
        assert int(left.headers["retry-after"]) >= 1
        assert await gauges(gateway, broken) == {"open": 1.0, "half_open": 0.0}
        assert await status(gateway, shop, agent) == 200, "another publisher's database is not touched"
        await relay.open()
        assert await status(gateway, broken, agent) == 503, "not before its time"
        await asyncio.sleep(WAIT)
        assert await status(gateway, broken, agent) == 200
        assert await gauges(gateway, broken) == {"open": 0.0, "half_open": 0.0}
    await settled(connection)


async def test_a_silent_database_is_left_alone_and_others_are_answered_meanwhile(
    gateway: RunningGateway, world: World, market: Market, shop: Shop, agent: Agent, connection: Connection
) -> None:
    async with Relay(urlsplit(market.connection_string).port or 0) as relay:
        silent = await sell(gateway.client, await world.agent(), through(market, relay))
        assert await status(gateway, silent, agent) == 200
        relay.hang()
        waiting = [asyncio.create_task(status(gateway, silent, agent, f"SELECT {number} AS n")) for number in range(4)]
        answered = [await status(gateway, shop, agent, f"SELECT {number} AS n") for number in range(20)]
        assert answered == [200] * 20
        assert not all(task.done() for task in waiting)
        assert set(await asyncio.gather(*waiting)) <= {502, 504}
        # On a busy machine the first of these is the one that tries again.
        left = [await status(gateway, silent, agent) for _ in range(2)]
        assert left[-1] == 503, "nobody waits for it any more"
        assert "tollway_upstream_errors_total" in (await gateway.client.get("/metrics")).text
    await settled(connection)


async def test_a_full_database_is_busy_and_not_broken(
    gateway: RunningGateway, world: World, market: Market, shop: Shop, agent: Agent
) -> None:
    async with narrow_role(market, "ALTER ROLE narrow CONNECTION LIMIT 1") as config:
        full = await sell(gateway.client, await world.agent(), config | {"sample": False})
        slow = "SELECT count(*) FROM generate_series(1, 900000) a, sectors"
        answers = await asyncio.gather(*(status(gateway, full, agent, slow) for _ in range(8)))
        assert {503} < set(answers) <= {200, 503, 504}, answers
        assert await gauges(gateway, full) == {}
        assert await status(gateway, shop, agent) == 200


async def test_a_slow_query_of_one_does_not_shut_out_others(
    gateway: RunningGateway, shop: Shop, agent: Agent, connection: Connection
) -> None:
    slow = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000) b"
    for _ in range(4):
        assert await status(gateway, shop, agent, slow) == 504
        assert await status(gateway, shop, agent) == 200
    assert await gauges(gateway, shop) == {}
    await settled(connection)


async def test_queries_are_counted(gateway: RunningGateway, world: World, market: Market, agent: Agent) -> None:
    shop = await sell(gateway.client, await world.agent(), market.config(sample=False))
    for query in (
        "SELECT ticker FROM companies WHERE company_id < 8",
        "SELECT ticker FROM companies WHERE abs(company_id) = 5 AND name <> 'x'",
        "SELECT 1 / (company_id - 5) FROM companies",
        "DELETE FROM companies",
        "SELECT pg_sleep(1)",
        "SELECT * FROM internal_costs",
    ):
        await ask(gateway, shop, agent, query)
    series = {}
    for line in (await gateway.client.get("/metrics")).text.splitlines():
        if line.startswith("tollway_quer") and ("code=" in line or "side=" in line or shop.slug in line):
            name, _, value = line.replace(shop.slug, "S").rpartition(" ")
            series[name] = float(value)
    assert series['tollway_queries_total{end="whole",publisher="S"}'] == 2
    assert series['tollway_queries_total{end="failed",publisher="S"}'] == 1
    assert series['tollway_query_rows_total{publisher="S"}'] >= 8
    assert series['tollway_query_bytes_total{publisher="S"}'] > 100
    for code in ("not_a_query", "unknown_function", "unknown_relation"):
        assert series[f'tollway_query_refusals_total{{code="{code}"}}'] >= 1
    assert series['tollway_query_estimate_error_bucket{le="1.25",side="high"}'] >= 1
    assert series['tollway_query_estimate_error_count{side="high"}'] >= 2
