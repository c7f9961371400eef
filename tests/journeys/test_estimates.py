"""Estimates through the public door: they learn from paid answers, and tell nobody what others paid to know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.journeys.test_queries import DOLLAR, ask
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.market import Market, sell
from tests.support.services import Services
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
# The planner takes a third of the rows for it; there are none, or all.
WRONG = "SELECT company_id FROM companies WHERE abs(company_id) % 400 = {}"


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway that may be asked for many estimates."""
    running = await start_gateway(services, database_url, LIMITS_ESTIMATES="100000")
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def shop(gateway: RunningGateway, world: World, market: Market) -> Shop:
    """A publisher of the market."""
    return await sell(gateway.client, await world.agent(), market.config(sample=False))


async def estimate(gateway: RunningGateway, shop: Shop, query: str, agent: Agent | None = None, **more: Any) -> int:
    body = {"publisher_id": str(shop.id), "query": query, **more}
    headers = agent.headers if agent is not None else {}
    answer = await gateway.client.post(f"/publishers/{shop.slug}/estimate", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["estimated_rows"])


async def test_who_paid_for_answers_gets_better_estimates_of_such_queries(
    gateway: RunningGateway, world: World, shop: Shop
) -> None:
    ann, bob = await world.agent(100 * DOLLAR), await world.agent(100 * DOLLAR)
    query = "SELECT ticker FROM companies WHERE abs(company_id) = company_id AND company_id > {}"
    before = await estimate(gateway, shop, query.format(3), ann)
    assert before == 10, "a planner's guess"
    assert (await ask(gateway, shop, ann, query.format(5))).json()["row_count"] == 1_195
    assert await estimate(gateway, shop, query.format(3), ann) >= 1_000
    assert await estimate(gateway, shop, query.format(3), bob) == before
    assert await estimate(gateway, shop, query.format(3)) == before
    assert await estimate(gateway, shop, query.format(3).replace(">", "<"), ann) == 10, "another shape"


async def test_what_three_payers_met_is_told_to_all_but_by_shape_alone(
    gateway: RunningGateway, world: World, shop: Shop
) -> None:
    for value in (1, 2, 3):
        agent = await world.agent(100 * DOLLAR)
        assert (await ask(gateway, shop, agent, WRONG.format(value))).json()["row_count"] == 3
    told = {await estimate(gateway, shop, WRONG.format(value)) for value in (0, 1, 399, 400, 10**6)}
    assert len(told) == 1, "whether a value occurs is not told"


async def test_a_limit_that_was_reached_teaches_nothing(gateway: RunningGateway, world: World, shop: Shop) -> None:
    agent = await world.agent(100 * DOLLAR)
    query = "SELECT name FROM companies WHERE country <> 'XX' LIMIT {}"
    assert (await ask(gateway, shop, agent, query.format(3))).json()["row_count"] == 3
    assert await estimate(gateway, shop, query.format(500), agent) == 500


async def test_a_wrong_key_is_nobody(gateway: RunningGateway, shop: Shop) -> None:
    body = {"publisher_id": str(shop.id), "query": "SELECT 1"}
    headers = {"Authorization": "Bearer seren_0000000000000000_" + "0" * 43}
    answers = [
        await gateway.client.post(f"/publishers/{shop.slug}/estimate", json=body, headers=headers) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
