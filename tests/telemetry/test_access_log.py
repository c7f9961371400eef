"""One line per publisher call where the operator wants it: who bought what, what it cost, and nothing secret."""

import asyncio
import json
from typing import Any

from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import World


async def lines(running: RunningGateway, ids: list[str]) -> list[dict[str, Any]]:
    """Wait for the access lines of calls, and return them in this order."""
    async with asyncio.timeout(60):
        while True:
            written = [json.loads(text) for text in running.output().splitlines() if '"tollway.access"' in text]
            found = [line for line in written if line["request_id"] in ids]
            if len(found) >= len(ids):
                return [line for wanted in ids for line in found if line["request_id"] == wanted]
            await asyncio.sleep(0.1)


async def test_a_line_per_call_says_what_was_bought_and_holds_no_secret(
    services: Services, database_url: str, world: World
) -> None:
    running = await start_gateway(services, database_url, LOGGING_ACCESS="true")
    try:
        agent, shop = await world.agent(1_000_000), await world.publisher(10_000)
        path = f"/publishers/{shop.slug}/v1/items/7?token=do-not-log"
        answer = await running.client.post(path, headers=agent.headers, content=b"hello")
        unpaid = await running.client.get(f"/publishers/{shop.slug}/x")
        ids = [one.headers["x-request-id"] for one in (answer, unpaid)]
        bought, refused = await lines(running, ids)
    finally:
        await running.stop()
    assert (bought["method"], bought["path"], bought["status"]) == ("POST", "/v1/items/7", 200)
    assert (bought["outcome"], bought["cost"], bought["asset"]) == ("settled", 10_000, "USDC")
    assert (bought["bytes_in"], bought["bytes_out"]) == (5, len(answer.content))
    assert bought["key_id"] == agent.key.split("_")[1]
    assert (refused["status"], refused["outcome"], refused["cost"], refused["key_id"]) == (402, "refused", 0, None)
    assert "do-not-log" not in running.output()
    assert agent.key not in running.output()


async def test_without_the_setting_no_line_is_written(gateway: RunningGateway, world: World) -> None:
    shop = await world.publisher(None)
    assert (await gateway.client.get(f"/publishers/{shop.slug}/x")).status_code == 200
    await gateway.client.get("/health/live")
    assert not [text for text in gateway.output().splitlines() if '"tollway.access"' in text]
