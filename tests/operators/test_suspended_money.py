"""No way leads money out of a suspended wallet, account or organization, whoever asks; restored, it works again.

Payments on a chain are in tests/payments/onchain/test_suspended_wallets.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.billing.charges import SET_TERMS
from gateway.database.pool import Connection
from tests.operators.conftest import Desk, everywhere
from tests.support.world import USDC, Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
PRICE, FUNDS = 10_000, 1_000_000


@dataclass
class Scene:
    """An agent with money, whose own publisher has earned some, and services that may take money from it."""

    desk: Desk
    agent: Agent
    address: str
    shop: Shop
    house: Shop
    host: Agent
    charge_id: str
    own: Shop

    async def post(self, path: str, body: Any = None, who: Agent | None = None, **more: str) -> httpx.Response:
        headers = {**(who or self.agent).headers, "Connection": "close", **more}
        return await self.desk.gateway.client.post(path, json=body, headers=headers)

    async def get(self, path: str) -> httpx.Response:
        headers = {**self.agent.headers, "Connection": "close"}
        return await self.desk.gateway.client.get(path, headers=headers)


async def call(scene: Scene) -> int:
    return (await scene.get(f"/publishers/{scene.shop.slug}/x")).status_code


async def keyed_call(scene: Scene) -> int:
    answer = await scene.post(f"/publishers/{scene.shop.slug}/x", {}, **{"Idempotency-Key": str(uuid4())})
    return answer.status_code


async def tool_call(scene: Scene) -> int:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", "arguments": {}}}
    return (await scene.post(f"/publishers/{scene.shop.slug}/mcp", message)).status_code


async def socket(scene: Scene) -> int:
    url = f"ws://127.0.0.1:{scene.desk.gateway.port}/publishers/{scene.shop.slug}/x"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, additional_headers=scene.agent.headers, proxy=None):
            pass
    return refused.value.response.status_code


async def direct_charge(scene: Scene) -> int:
    body = {"agent_wallet": scene.address, "amount_atomic": PRICE, "description": "two hours"}
    return (await scene.post(f"/billing/publishers/{scene.house.slug}/charges", body, scene.host)).status_code


async def penalty(scene: Scene) -> int:
    path = f"/billing/publishers/{scene.house.slug}/charges/{scene.charge_id}/slash"
    return (await scene.post(path, {"reason": "not released", "slash_amount_atomic": 1}, scene.host)).status_code


async def payout(scene: Scene) -> int:
    path = f"/organizations/{scene.agent.organization_id}/publishers/{scene.own.id}/payouts"
    return (await scene.post(path, {"asset_id": str(USDC)})).status_code


async def another_key(scene: Scene) -> int:
    """Make a key that is not known to be stopped; where it is made, it buys nothing either."""
    made = await scene.post("/organizations/default/api-keys", {"name": "another"})
    if made.status_code != 201:
        return made.status_code
    headers = {"Authorization": f"Bearer {made.json()['data']['api_key']}", "Connection": "close"}
    return (await scene.desk.gateway.client.get(f"/publishers/{scene.shop.slug}/x", headers=headers)).status_code


# What each way answers: nobody but the owner hears of a suspension, so services are told of no wallet, or not now.
WAYS: dict[str, tuple[Callable[[Scene], Awaitable[int]], int]] = {
    "a call": (call, 403),
    "a call with an Idempotency-Key": (keyed_call, 403),
    "a tool": (tool_call, 403),
    "a WebSocket": (socket, 403),
    "a direct charge": (direct_charge, 404),
    "a penalty": (penalty, 409),
    "another key": (another_key, 403),
    "a payout": (payout, 403),
}


async def set_up(desk: Desk, world: World, connection: Connection) -> Scene:
    agent, host = await world.agent(funds=FUNDS), await world.agent()
    address = await connection.fetchval("SELECT address FROM ledger.wallet WHERE id = $1", agent.wallet_id)
    shop, house, own = [await world.publisher(PRICE, websocket_enabled=True) for _ in range(3)]
    for publisher, owner in ((house, host), (own, agent)):
        await connection.execute(
            "UPDATE catalog.publisher SET organization_id = $2 WHERE id = $1", publisher.id, owner.organization_id
        )
    await SET_TERMS.run(connection, house.id, USDC, "500000", "1000000")
    scene = Scene(desk, agent, address, shop, house, host, "", own)
    body = {"agent_wallet": address, "amount_atomic": PRICE, "description": "an hour"}
    made = await scene.post(f"/billing/publishers/{house.slug}/charges", body, host)
    assert made.status_code == 200, made.text
    scene.charge_id = made.json()["id"]
    return scene


@pytest.mark.parametrize("kind", ["wallet", "account", "organization"])
async def test_no_way_leads_money_out_of_what_is_suspended(
    desk: Desk, world: World, connection: Connection, kind: str
) -> None:
    scene = await set_up(desk, world, connection)
    agent = scene.agent
    subject = {"wallet": f"agent:{agent.id}", "account": agent.id, "organization": agent.organization_id}[kind]
    before = await world.balance(agent)
    assert before == FUNDS - PRICE
    await desk.suspend(kind, subject)
    path = f"/publishers/{scene.shop.slug}/x"
    await everywhere(lambda: scene.get(path), 403)
    left = await world.balance(agent)
    # Earnings are not the prepaid wallet's: with that alone suspended a payout is judged as ever (nothing to pay here).
    ways = {name: way for name, way in WAYS.items() if (kind, name) != ("wallet", "a payout")}
    answers = {name: await way(scene) for name, (way, _) in ways.items()}
    assert answers == {name: status for name, (_, status) in ways.items()}
    assert await world.balance(agent) == left
    await desk.restore(kind, subject)
    await everywhere(lambda: scene.get(path), 200)
    assert (await direct_charge(scene), await penalty(scene)) == (200, 204)
