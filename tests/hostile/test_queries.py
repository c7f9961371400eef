"""Hostile queries through the public door: refused before any database hears of them, free of charge, and quickly."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.journeys.test_paid_call import settled
from tests.journeys.test_queries import DOLLAR, ask
from tests.pricing.sql.queries import REFUSED
from tests.pricing.sql.test_policy import BOMBS
from tests.support.gateway import RunningGateway
from tests.support.market import BAIT, Market, sell
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")


@pytest.fixture(scope="module")
def market(publishers_database: Market) -> Market:
    """The publisher's database, instead of the shops that the other hostile tests call a market."""
    return publishers_database


@pytest_asyncio.fixture(scope="module")
async def shop(gateway: RunningGateway, world: World, market: Market) -> Shop:
    """A publisher of the market, 0.001 dollars at least."""
    return await sell(gateway.client, await world.agent(), market.config(sample=False), pricing={"min_charge": "0.001"})


@pytest_asyncio.fixture
async def agent(world: World) -> Agent:
    """An agent with a hundred dollars."""
    return await world.agent(100 * DOLLAR)


async def test_every_attack_is_refused_and_no_database_hears_of_it(
    gateway: RunningGateway, world: World, market: Market, shop: Shop, agent: Agent
) -> None:
    sessions = "SELECT count(*), max(query_start) FROM pg_stat_activity WHERE usename = 'reader'"
    before = await market.owner.fetchrow(sessions)
    for _, query in REFUSED:
        answer = await ask(gateway, shop, agent, query)
        assert answer.status_code == 400, (query, answer.text)
        assert answer.headers["x-cost"] == "0"
        assert BAIT not in answer.text
    assert await market.owner.fetchrow(sessions) == before
    assert await world.balance(agent) == 100 * DOLLAR


async def test_bombs_do_not_hold_up_other_calls(gateway: RunningGateway, shop: Shop, agent: Agent) -> None:
    queries = [query for _, query in BOMBS.values() if "\ud800" not in query]
    bombs = [asyncio.create_task(ask(gateway, shop, agent, query)) for query in queries for _ in range(3)]
    answers = [await ask(gateway, shop, agent, f"SELECT {number} AS n") for number in range(10)]
    assert [answer.status_code for answer in answers] == [200] * 10
    assert {answer.status_code for answer in await asyncio.gather(*bombs)} <= {400, 413}


HEAVY = [
    "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b",
    "SELECT count(*) FROM prices a, prices b, prices c WHERE a.volume + b.volume = c.volume",
    "SELECT string_agg(a.body, '') FROM filings a, filings b",
    "SELECT repeat(body, 10000) FROM filings",
    "SELECT array_agg(a.volume) FROM prices a, prices b",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r",
    "SELECT regexp_replace(repeat('a', 10000), '(a*)*(a*)*b', 'x') FROM companies",
    "SELECT * FROM filings a, filings b ORDER BY a.body || b.body",
]


@pytest.mark.parametrize("query", HEAVY)
async def test_a_heavy_query_ends_in_time_and_is_paid(
    gateway: RunningGateway, world: World, shop: Shop, query: str, connection: Connection
) -> None:
    agent = await world.agent(100 * DOLLAR)
    async with asyncio.timeout(15):
        answer = await ask(gateway, shop, agent, query)
    assert answer.status_code in (200, 402, 422, 504), answer.text[:500]
    await settled(connection)
    spent = 100 * DOLLAR - await world.balance(agent)
    assert spent == 0 if answer.status_code == 402 else spent >= 1_000
    assert (await ask(gateway, shop, agent, "SELECT 1 AS n")).status_code == 200


LEAKS = [
    "SELECT CAST(string_agg(name, ',') AS int) FROM companies",
    "SELECT name::date FROM companies",
    "SELECT (name || 'x')::numeric FROM companies",
    "SELECT name::jsonb FROM companies",
    "SELECT to_timestamp(name, 'YYYY-MM-DD') FROM companies",
    "SELECT name::uuid FROM companies",
    "SELECT name::inet FROM companies",
    "SELECT ARRAY[name]::int[] FROM companies",
    "SELECT name::interval FROM companies",
    "SELECT to_tsquery(name || ' & & ') FROM companies",
]


@pytest.mark.parametrize("query", LEAKS)
async def test_an_error_quotes_no_data(gateway: RunningGateway, shop: Shop, agent: Agent, query: str) -> None:
    answer = await ask(gateway, shop, agent, query)
    if answer.status_code == 400:
        assert answer.json()["type"] == "/problems/query-not-sold"
        return
    assert answer.status_code == 422, answer.text
    assert answer.json()["cost"] == "0.001"
    assert not any(word in answer.text for word in ("Works", "Group", "Partners", "Amber", "Basalt"))


async def test_looking_for_nothing_is_limited(gateway: RunningGateway, world: World, shop: Shop) -> None:
    poor = await world.agent(10)
    statuses = [
        (await ask(gateway, shop, poor, f"SELECT ticker FROM companies WHERE employees < {number * 100}")).status_code
        for number in range(40)
    ]
    assert statuses[0] == 402
    assert statuses[-1] == 429
