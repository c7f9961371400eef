"""A gateway killed at every step of a call whose price its answer tells: what is held is released or captured, once."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.chat import ChatUpstream
from tests.support.gateway import start_gateway
from tests.support.services import Services
from tests.support.world import World

pytestmark = [pytest.mark.usefixtures("sound_books"), pytest.mark.slow]

FUNDS, COST = 1_000_000, 5_000
BODY = {
    "model": "echo-1",
    "messages": [{"role": "user", "content": "one two three"}],
    "stream": True,
    "stream_options": {"include_usage": True},
    "x_cost": "0.005",
    "x_mode": "slow",
}


@pytest.mark.parametrize(
    ("point", "keyed"),
    [
        ("authorize.after", False),
        ("forward.after", False),
        ("head.after", False),
        ("deliver.after", False),
        ("store.before", True),
        ("store.after", True),
    ],
)
async def test_killed_at(
    point: str,
    keyed: bool,
    services: Services,
    database_url: str,
    world: World,
    connection: Connection,
    chat: ChatUpstream,
) -> None:
    agent = await world.agent(FUNDS)
    shop = await world.publisher(
        None, api_url=chat.url, billing_model="pay_per_use", reserve_max_charge="0.10",
        unresolved_fallback_charge="0.02", upstream_cost_response_path="usage.cost",
    )  # fmt: skip
    headers = {**agent.headers, **({"Idempotency-Key": "once"} if keyed else {})}
    path = f"/publishers/{shop.slug}/v1/chat/completions"
    doomed = await start_gateway(services, database_url, FAULT=f"{point}:kill", MONEY_DEAD_AFTER="1")
    with contextlib.suppress(httpx.TransportError):
        await doomed.client.post(path, headers=headers, json=BODY)
    await doomed.kill()
    again = await start_gateway(services, database_url, MONEY_DEAD_AFTER="1")
    try:
        async with asyncio.timeout(60):
            while (await proof.verify(connection)).open_exchanges:
                await asyncio.sleep(0.1)
        kept = point == "store.after"
        assert await world.balance(agent) == FUNDS - (COST if kept else 0)
        if keyed:
            calls = len(chat.bodies)
            while (answer := await again.client.post(path, headers=headers, json=BODY)).status_code == 409:
                await asyncio.sleep(0.1)
            assert answer.text.endswith("data: [DONE]\n\n")
            assert len(chat.bodies) == calls + (not kept)
            async with asyncio.timeout(60):
                while await world.balance(agent) != FUNDS - COST:
                    await asyncio.sleep(0.02)
    finally:
        await again.stop()
