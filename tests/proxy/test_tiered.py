"""tiered through HTTP, on a gateway with two workers: each call at the price of its place in its caller's month."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

FUNDS = 10_000_000
FREE_THEN = [{"up_to": 3, "price": "0"}, {"up_to": 5, "price": "0.01"}, {"price": "0.004"}]


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """Two workers: what one of them knows of a caller's month, the other does not."""
    running = await start_gateway(services, database_url, WORKERS="2")
    yield running
    await running.stop()


async def shop_of(world: World, tiers: list[dict[str, Any]], **fields: Any) -> Shop:
    return await world.publisher(None, price_tiers=tiers, pricing_model="tiered", **fields)


async def used(connection: Connection, agent: Agent, shop: Shop) -> int:
    statement = "SELECT coalesce(sum(value), 0)::int FROM ledger.counter WHERE scope = $1 AND subject = $2"
    return await connection.fetchval(statement, agent.id, shop.id)


async def call(gateway: RunningGateway, agent: Agent, shop: Shop, path: str = "x", **options: Any) -> httpx.Response:
    headers = {**agent.headers, **options.pop("headers", {})}
    return await gateway.client.request(
        options.pop("method", "GET"), f"/publishers/{shop.slug}/{path}", headers=headers, **options
    )


async def costs(gateway: RunningGateway, agent: Agent, shop: Shop, number: int) -> list[str]:
    answers = [await call(gateway, agent, shop) for _ in range(number)]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.headers["x-cost"] for answer in answers]


async def test_each_call_costs_what_its_tier_says(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent, other = await world.agent(FUNDS), await world.agent(FUNDS)
    shop = await shop_of(world, FREE_THEN, gateway_fee_percent="10")
    assert await costs(gateway, agent, shop, 7) == ["0", "0", "0", "0.01", "0.01", "0.004", "0.004"]
    assert await costs(gateway, other, shop, 1) == ["0"], "everybody has a month of their own"
    assert await world.balance(agent) == FUNDS - 28_000
    assert (await world.earned(shop), await used(connection, agent, shop)) == (25_200, 7)


async def test_by_volume_the_tier_that_is_reached_holds_for_all(gateway: RunningGateway, world: World) -> None:
    agent = await world.agent(FUNDS)
    falling = [{"up_to": 3, "price": "0.01"}, {"up_to": 6, "price": "0.007"}, {"price": "0.004"}]
    shop = await shop_of(world, falling, tier_style="volume")
    assert await costs(gateway, agent, shop, 6) == ["0.01", "0.01", "0.01", "0", "0.005", "0.007"]
    assert FUNDS - await world.balance(agent) == 6 * 7_000


async def test_100_calls_at_once_across_a_bound_are_paid_by_the_place_they_get(
    gateway: RunningGateway, world: World, connection: Connection, upstream: RecordingUpstream
) -> None:
    agent = await world.agent(FUNDS)
    shop = await shop_of(world, [{"up_to": 30, "price": "0"}, {"up_to": 70, "price": "0.01"}, {"price": "0.004"}])
    upstream.forget()
    answers = await asyncio.gather(*(call(gateway, agent, shop) for _ in range(100)))
    assert Counter((answer.status_code, answer.headers["x-cost"]) for answer in answers) == {
        (200, "0"): 30,
        (200, "0.01"): 40,
        (200, "0.004"): 30,
    }
    assert FUNDS - await world.balance(agent) == 40 * 10_000 + 30 * 4_000
    assert (await used(connection, agent, shop), upstream.calls) == (100, 100)


async def test_a_call_that_is_given_back_does_not_count(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(FUNDS), await shop_of(world, [{"up_to": 2, "price": "0.01"}, {"price": "0.004"}])
    for _ in range(3):
        failed = await call(gateway, agent, shop, "status/503")
        assert (failed.status_code, failed.headers["x-cost"]) == (503, "0")
    assert await used(connection, agent, shop) == 0
    answers = [call(gateway, agent, shop, "status/503" if number % 2 else "x") for number in range(20)]
    kept = [answer for answer in await asyncio.gather(*answers) if answer.status_code == 200]
    assert await used(connection, agent, shop) == len(kept) == 10
    assert await costs(gateway, agent, shop, 1) == ["0.004"]


@pytest.mark.parametrize("funds", [0, FUNDS])
async def test_a_free_tier_needs_a_key_and_no_balance(
    gateway: RunningGateway, world: World, connection: Connection, funds: int
) -> None:
    agent, shop = await world.agent(funds), await shop_of(world, FREE_THEN)
    unknown = await gateway.client.get(f"/publishers/{shop.slug}/x")
    assert (unknown.status_code, unknown.json()["accepts"][0]["amount"]) == (402, "10000"), "the dearest"
    failed = await call(gateway, agent, shop, "status/503")
    assert (failed.headers["x-cost"], await used(connection, agent, shop)) == ("0", 0)
    assert await costs(gateway, agent, shop, 3) == ["0", "0", "0"]
    fourth = await call(gateway, agent, shop)
    assert fourth.status_code == (200 if funds else 402)
    if not funds:
        assert fourth.json()["accepts"][0]["amount"] == "10000"
    assert await used(connection, agent, shop) == (4 if funds else 3)


async def test_a_call_with_a_key_that_is_repeated_counts_once(
    gateway: RunningGateway, world: World, connection: Connection, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(FUNDS), await shop_of(world, FREE_THEN)
    upstream.forget()
    for key in ("first", "second", "third", "fourth"):
        again = [await call(gateway, agent, shop, headers={"Idempotency-Key": key}) for _ in range(2)]
        assert [answer.status_code for answer in again] == [200, 200]
        assert [answer.headers["x-cost"] for answer in again] == ["0.01" if key == "fourth" else "0", "0"]
    assert (await used(connection, agent, shop), upstream.calls) == (4, 4)


async def test_a_fixed_price_of_an_endpoint_or_method_stays_and_is_not_counted(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)
    endpoints = [{"method": "GET", "path": "/own", "price": "0.5"}, {"method": "GET", "path": "/free", "price": "0"}]
    shop = await shop_of(world, FREE_THEN, endpoints=endpoints, price_per_post=20_000)
    assert (await call(gateway, agent, shop, "own")).headers["x-cost"] == "0.5"
    assert (await call(gateway, agent, shop, "free")).headers["x-cost"] == "0"
    assert (await call(gateway, agent, shop, method="POST", content=b"x")).headers["x-cost"] == "0.02"
    assert await used(connection, agent, shop) == 0
    assert await costs(gateway, agent, shop, 1) == ["0"]
    assert await used(connection, agent, shop) == 1


async def test_least_and_most_hold_for_each_call(gateway: RunningGateway, world: World) -> None:
    agent = await world.agent(FUNDS)
    tiers = [{"up_to": 1, "price": "0"}, {"up_to": 2, "price": "0.001"}, {"price": "0.5"}]
    shop = await shop_of(world, tiers, min_charge=3_000, max_charge=40_000)
    assert await costs(gateway, agent, shop, 3) == ["0", "0.003", "0.04"]


async def test_new_tiers_hold_for_what_was_counted_before(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(FUNDS), await shop_of(world, FREE_THEN)
    assert await costs(gateway, agent, shop, 4) == ["0", "0", "0", "0.01"]
    await connection.execute(
        "UPDATE catalog.publisher SET document = document || $2 WHERE id = $1",
        shop.id, {"price_tiers": [{"up_to": 5, "price": "0"}, {"price": "1"}]},
    )  # fmt: skip
    await world.told()
    assert await costs(gateway, agent, shop, 2) == ["0", "1"]


async def test_without_tiers_nothing_is_sold(gateway: RunningGateway, world: World) -> None:
    agent, shop = await world.agent(FUNDS), await world.publisher(10_000, pricing_model="tiered")
    answer = await call(gateway, agent, shop)
    assert (answer.status_code, answer.json()["type"]) == (501, "/problems/kind-not-served")
    assert "price_tiers" in answer.json()["detail"]
