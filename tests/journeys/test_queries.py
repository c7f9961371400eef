"""Queries through the public door: rows, what they cost, what is refused, and that the money always has its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.journeys.test_paid_call import settled
from tests.support.gateway import RunningGateway
from tests.support.market import Market, sell
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
DOLLAR = 1_000_000


@pytest_asyncio.fixture(scope="module")
async def shop(gateway: RunningGateway, world: World, market: Market) -> Shop:
    """A publisher that sells the market for a dollar per 1,000 rows, 0.001 dollars at least."""
    return await sell(gateway.client, await world.agent(), market.config(sample=False), pricing={"min_charge": "0.001"})


@pytest_asyncio.fixture
async def agent(world: World) -> AsyncIterator[Agent]:
    """An agent with a hundred dollars."""
    yield await world.agent(100 * DOLLAR)


async def ask(
    gateway: RunningGateway, shop: Shop, agent: Agent, query: str, params: list[Any] | None = None, **headers: str
) -> httpx.Response:
    body = {"query": query} if params is None else {"query": query, "params": params}
    return await gateway.client.post(f"/publishers/{shop.slug}", json=body, headers={**agent.headers, **headers})


async def test_a_query_is_answered_paid_and_booked(
    gateway: RunningGateway, world: World, shop: Shop, agent: Agent, connection: Connection
) -> None:
    answer = await ask(gateway, shop, agent, "SELECT company_id, ticker FROM companies ORDER BY company_id LIMIT 2")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document.pop("execution_time_ms") >= 0
    assert document == {
        "rows": [{"company_id": 1, "ticker": "BA01"}, {"company_id": 2, "ticker": "CA02"}],
        "row_count": 2,
        "cost": "0.002",
        "cost_atomic": 2_000,
        "asset_symbol": "USDC",
        "payment_source": "prepaid_balance",
        "metered_rows": 2,
        "truncated": None,
    }
    assert (answer.headers["x-cost"], answer.headers["x-cost-asset"], answer.headers["x-balance"]) == (
        "0.002", "USDC", "99.998",
    )  # fmt: skip
    await settled(connection)
    assert await world.balance(agent) == 100 * DOLLAR - 2_000
