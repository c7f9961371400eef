"""per_byte through HTTP: the bytes of the body as they were sent are what is paid, never more than was held."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

MIB = 1 << 20


async def shop_of(world: World, **fields: Any) -> Shop:
    document = {"price_per_mib": "0.001", "reserve_max_charge": "0.05", "pricing_model": "per_byte", **fields}
    return await world.publisher(None, **document)


async def settled(world: World, agent: Agent, shop: Shop, spent: int, earned: int) -> None:
    async with asyncio.timeout(10):
        while (await world.balance(agent), await world.earned(shop)) != (1_000_000 - spent, earned):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("size", "fields", "spent"),
    [
        (1, {}, 1),
        (MIB, {}, 1_000),
        (MIB + 1, {}, 1_001),
        (3 * MIB, {}, 3_000),
        (3 * MIB, {"max_charge": 2_000}, 2_000),
        (10, {"min_charge": 700}, 700),
        (MIB, {"gateway_fee_percent": "10"}, 1_000),
    ],
)
async def test_bytes_are_paid_as_they_were_sent(
    gateway: RunningGateway, world: World, size: int, fields: dict, spent: int
) -> None:
    agent, shop = await world.agent(1_000_000), await shop_of(world, **fields)
    answer = await gateway.client.get(f"/publishers/{shop.slug}/bytes?n={size}", headers=agent.headers)
    assert (answer.status_code, len(answer.content)) == (200, size)
    if size > 2 * MIB:
        assert round(float(answer.headers["x-cost-max"]) * 1_000_000) == fields.get("max_charge", 50_000)
    else:
        assert round(float(answer.headers["x-cost"]) * 1_000_000) == spent
    await settled(world, agent, shop, spent, spent - spent // 10 if "gateway_fee_percent" in fields else spent)


async def test_a_caller_who_leaves_pays_for_a_part_and_one_who_gets_an_error_for_nothing(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(1_000_000), await shop_of(world)
    path = f"/publishers/{shop.slug}"
    answer = await gateway.client.get(f"{path}/status/503", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (503, "0")
    await settled(world, agent, shop, 0, 0)
    async with gateway.client.stream("GET", f"{path}/bytes?n={64 * MIB}", headers=agent.headers) as streamed:
        async for _ in streamed.aiter_raw():
            break
    async with asyncio.timeout(10):
        while not await world.earned(shop):
            await asyncio.sleep(0.02)
    spent = await world.earned(shop)
    assert 1 <= spent < 50_000
    assert await world.balance(agent) == 1_000_000 - spent


async def test_without_a_price_of_bytes_nothing_is_sold(gateway: RunningGateway, world: World) -> None:
    agent, shop = await world.agent(1_000_000), await shop_of(world, price_per_mib=None)
    answer = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
    assert (answer.status_code, answer.json()["type"]) == (501, "/problems/kind-not-served")
    assert "price_per_mib" in answer.json()["detail"]
