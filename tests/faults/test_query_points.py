"""A gateway killed at every step of a query: nothing is charged for what did not run, and nobody pays twice.

Another gateway runs all the time; it ends what the dead one left open, as docs/money.md says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.journeys.test_queries import ask
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.market import Market, sell
from tests.support.services import Services
from tests.support.world import Agent, Shop, World

pytestmark = [pytest.mark.usefixtures("sound_books"), pytest.mark.slow]

DOLLAR = 1_000_000
SHORT, COST = "SELECT ticker FROM companies WHERE company_id <= 3", 3_000
LONG = "SELECT company_id, day, close, volume, open FROM prices"
# What a caller without a key may have paid, by where its gateway died. Only a delivered answer may have cost anything, and
# it cost nothing where its end was in the dead process's memory alone.
STEPS: dict[str, tuple[str, set[int]]] = {
    "plan.after": (SHORT, {0}),
    "authorize.after": (SHORT, {0}),
    "ready.after": (SHORT, {0}),
    "query.after": (SHORT, {0}),
    "piece.after": (LONG, {0}),
    "capture.after": (SHORT, {0}),
    "deliver.after": (SHORT, {0, COST}),
    "settle.after": (SHORT, {0, COST}),
}
# Whether the first try of a call with a key was kept, and so is paid.
KEYED = {
    "claim.after": False,
    "authorize.after": False,
    "query.after": False,
    "store.before": False,
    "store.after": True,
    "capture.after": True,
    "deliver.after": True,
}


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """The gateway that stays."""
    running = await start_gateway(services, database_url, MONEY_DEAD_AFTER="1")
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def shop(gateway: RunningGateway, world: World, market: Market) -> Shop:
    return await sell(gateway.client, await world.agent(), market.config(sample=False), pricing={"min_charge": "0.001"})


@pytest_asyncio.fixture
async def agent(world: World) -> Agent:
    return await world.agent(100 * DOLLAR)


async def dies(
    services: Services, database_url: str, point: str, shop: Shop, agent: Agent, query: str, **key: str
) -> bool:
    """Ask a gateway that dies at a point; return whether its caller had the whole answer."""
    doomed = await start_gateway(services, database_url, FAULT=f"{point}:kill", MONEY_DEAD_AFTER="1")
    try:
        return (await ask(doomed, shop, agent, query, **key)).status_code == 200
    except httpx.TransportError:
        return False
    finally:
        await doomed.kill()


async def all_ended(connection: Connection) -> None:
    for _ in range(600):
        report = await proof.verify(connection)
        if not report.open_exchanges and not report.pending_holds:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{report.open_exchanges} exchanges stayed open")


@pytest.mark.parametrize("point", STEPS)
async def test_killed_at(
    point: str, services: Services, database_url: str, world: World, shop: Shop, agent: Agent, connection: Connection
) -> None:
    query, may_cost = STEPS[point]
    earned = await world.earned(shop)
    whole = await dies(services, database_url, point, shop, agent, query)
    assert whole is False or point in ("deliver.after", "settle.after")
    await all_ended(connection)
    paid = 100 * DOLLAR - await world.balance(agent)
    assert paid in may_cost
    assert await world.earned(shop) - earned == paid


@pytest.mark.parametrize("point", KEYED)
async def test_a_key_buys_one_answer_through_a_kill_at(
    point: str,
    services: Services,
    database_url: str,
    gateway: RunningGateway,
    world: World,
    shop: Shop,
    agent: Agent,
    connection: Connection,
) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    await dies(services, database_url, point, shop, agent, SHORT, **key)
    for _ in range(600):
        answer = await ask(gateway, shop, agent, SHORT, **key)
        if answer.status_code != 409:
            break
        await asyncio.sleep(0.1)
    assert (answer.status_code, answer.json()["row_count"]) == (200, 3)
    assert ("idempotency-replayed" in answer.headers) == KEYED[point]
    await all_ended(connection)
    assert await world.balance(agent) == 100 * DOLLAR - COST
