"""What operators see of a running gateway without asking its parts: open exchanges, caches, pools, limits without Valkey."""

import asyncio
import re

from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import World


async def series(running: RunningGateway, name: str) -> dict[str, float]:
    text = (await running.client.get("/metrics")).text
    found = re.findall(rf"^{name}(?:\{{(.*?)\}})? (\S+)$", text, re.M)
    return {labels: float(value) for labels, value in found}


async def until_shown(running: RunningGateway, name: str, labels: str, least: float) -> dict[str, float]:
    for _ in range(600):
        shown = await series(running, name)
        if shown.get(labels, 0) >= least:
            return shown
        await asyncio.sleep(0.1)
    raise AssertionError(f"{name}: {shown}")


async def test_a_call_under_way_is_an_open_exchange_and_then_none(gateway: RunningGateway, world: World) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
    path = f"/publishers/{shop.slug}/chunks?n=1000&pause=100"
    async with gateway.client.stream("GET", path, headers=agent.headers) as answer:
        assert answer.status_code == 200
        assert (await until_shown(gateway, "tollway_open_exchanges", "", 1))[""] == 1
        await until_shown(gateway, "tollway_pool", 'pool="upstream",state="in_use"', 1)
    for _ in range(600):
        if not (await series(gateway, "tollway_open_exchanges"))[""]:
            break
        await asyncio.sleep(0.1)
    assert (await series(gateway, "tollway_open_exchanges"))[""] == 0
    await until_shown(gateway, "tollway_cache_events_total", 'cache="identity",event="miss"', 1)
    await until_shown(gateway, "tollway_cache_events_total", 'cache="catalog",event="reload"', 1)


async def test_limits_that_are_decided_without_valkey_are_counted(
    services: Services, database_url: str, world: World
) -> None:
    running = await start_gateway(services, database_url, REDIS_URL="redis://127.0.0.1:1/0")
    try:
        shop = await world.publisher(None)
        assert (await running.client.get(f"/publishers/{shop.slug}/x")).status_code == 200
        await until_shown(running, "tollway_limit_verdicts_total", 'policy="any",verdict="unavailable"', 1)
    finally:
        await running.stop()
