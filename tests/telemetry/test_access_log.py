"""One line per publisher call where the operator wants it: who bought what, what it cost, and nothing secret."""

import asyncio
import json
from typing import Any

from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import World


async def lines(running: RunningGateway, expected: int) -> list[dict[str, Any]]:
    """Wait for the access lines that a gateway has written."""
    for _ in range(600):
        found = [json.loads(text) for text in running.output().splitlines() if '"tollway.access"' in text]
        if len(found) >= expected:
            break
        await asyncio.sleep(0.1)
    return found


async def test_a_line_per_call_says_what_was_bought_and_holds_no_secret(
    services: Services, database_url: str, world: World
) -> None:
    running = await start_gateway(services, database_url, LOGGING_ACCESS="true")
    try:
        agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
        await asyncio.sleep(0.3)
        path = f"/publishers/{shop.slug}/v1/items/7?token=do-not-log"
        answer = await running.client.post(path, headers=agent.headers, content=b"hello")
        await running.client.get(f"/publishers/{shop.slug}/x")
        written = [line for line in await lines(running, 2) if line["publisher"] == shop.slug]
    finally:
        await running.stop()
    bought, refused = written
    assert bought["request_id"] == answer.headers["x-request-id"]
    assert (bought["method"], bought["path"], bought["status"]) == ("POST", "/v1/items/7", 200)
    assert (bought["outcome"], bought["cost"], bought["asset"]) == ("settled", 10_000, "USDC")
    assert (bought["bytes_in"], bought["bytes_out"]) == (5, len(answer.content))
    assert bought["key_id"] == agent.key.split("_")[1]
    assert (refused["status"], refused["outcome"], refused["cost"], refused["key_id"]) == (402, "refused", 0, None)
    assert "do-not-log" not in running.output()
    assert agent.key not in running.output()


async def test_without_the_setting_no_line_is_written(gateway: RunningGateway, world: World) -> None:
    shop = await world.publisher(None)
    await asyncio.sleep(0.3)
    assert (await gateway.client.get(f"/publishers/{shop.slug}/x")).status_code == 200
    await gateway.client.get("/health/live")
    assert not [text for text in gateway.output().splitlines() if '"tollway.access"' in text]
