"""Where an owner reads that something of it is suspended, since when and why; what is refused says it as well."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import pytest

from gateway.database.pool import Connection
from tests.operators.conftest import Desk, everywhere
from tests.support.world import Agent, World

pytestmark = pytest.mark.usefixtures("sound_books")
PRICE = 10_000
REASON = "it was found in a public repository"


async def read(desk: Desk, agent: Agent, path: str) -> Any:
    answer = await desk.gateway.client.get(path, headers=agent.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def tells(told: Any, kind: str) -> bool:
    return (told["kind"], told["reason"]) == (kind, REASON) and datetime.fromisoformat(told["since"]).tzinfo is not None


async def refused(desk: Desk, agent: Agent, path: str, kind: str) -> httpx.Response:
    """Wait until every worker refuses a call, and return the refusal, which names the reason."""
    answer = await everywhere(
        lambda: desk.gateway.client.get(path, headers={**agent.headers, "Connection": "close"}), 403
    )
    told = answer.json()
    assert (told["type"], told["suspended"], told["reason"]) == ("/problems/suspended", kind, REASON)
    assert REASON in told["detail"]
    return answer


async def test_a_key_says_in_the_list_of_keys_that_it_is_suspended(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=PRICE * 10)
    shop = await world.publisher(PRICE)
    keys = f"/organizations/{agent.organization_id}/api-keys"
    made = await desk.gateway.client.post(keys, json={"name": "stolen"}, headers=agent.headers)
    stolen = made.json()["data"]
    thief = Agent(agent.id, agent.organization_id, stolen["api_key"], agent.wallet_id)
    await desk.suspend("key", stolen["id"], REASON)
    for path in (f"/publishers/{shop.slug}/x", "/wallet/balance"):
        await refused(desk, thief, path, "key")
    for path in (keys, "/organizations/default/api-keys"):
        listed = {key["id"]: key["suspension"] for key in await read(desk, agent, path)}
        assert tells(listed.pop(stolen["id"]), "key")
        assert set(listed.values()) == {None}
    limited = await desk.gateway.client.patch(f"{keys}/{stolen['id']}", json={"scopes": ["buy"]}, headers=agent.headers)
    assert tells(limited.json()["data"]["suspension"], "key")
    await desk.restore("key", stolen["id"])
    assert [key["suspension"] for key in await read(desk, agent, keys)] == [None, None]


async def test_a_wallet_says_it_with_its_balance(desk: Desk, world: World) -> None:
    agent, shop = await world.agent(funds=PRICE * 10), await world.publisher(PRICE)
    assert (await read(desk, agent, "/wallet/balance"))["suspension"] is None
    await desk.suspend("wallet", f"agent:{agent.id}", REASON)
    await refused(desk, agent, f"/publishers/{shop.slug}/x", "wallet")
    assert tells((await read(desk, agent, "/wallet/balance"))["suspension"], "wallet")
    await desk.restore("wallet", f"agent:{agent.id}")
    assert (await read(desk, agent, "/wallet/balance"))["suspension"] is None


async def test_an_organization_says_it_to_its_members(desk: Desk, world: World, connection: Connection) -> None:
    owner, member = await world.agent(), await world.agent()
    await connection.execute(
        "INSERT INTO identity.membership (organization_id, account_id, role) VALUES ($1, $2, 'admin')",
        owner.organization_id, member.id,
    )  # fmt: skip
    await desk.suspend("organization", owner.organization_id, REASON)
    listed = {one["id"]: one["suspension"] for one in await read(desk, member, "/organizations")}
    assert tells(listed.pop(str(owner.organization_id)), "organization")
    assert set(listed.values()) == {None}
    await refused(desk, member, f"/organizations/{owner.organization_id}", "organization")
    await refused(desk, owner, "/organizations", "organization")
    await desk.restore("organization", owner.organization_id)


async def test_an_account_says_it_in_every_refusal(desk: Desk, world: World) -> None:
    agent, shop = await world.agent(funds=PRICE * 10), await world.publisher(PRICE)
    await desk.suspend("account", agent.id, REASON)
    for path in ("/auth/me", "/wallet/balance", f"/publishers/{shop.slug}/x"):
        await refused(desk, agent, path, "account")
    await desk.restore("account", agent.id)


async def test_a_publisher_says_it_to_its_owner(desk: Desk, world: World, connection: Connection) -> None:
    owner, shop = await world.agent(), await world.publisher(PRICE)
    await connection.execute(
        "UPDATE catalog.publisher SET organization_id = $2 WHERE id = $1", shop.id, owner.organization_id
    )
    await desk.suspend("publisher", shop.slug, REASON)
    mine = f"/organizations/{owner.organization_id}/publishers"
    (listed,) = await read(desk, owner, mine)
    assert tells(listed["suspension"], "publisher")
    assert tells((await read(desk, owner, f"{mine}/{shop.id}"))["suspension"], "publisher")
    await desk.restore("publisher", shop.slug)
    assert (await read(desk, owner, f"{mine}/{shop.id}"))["suspension"] is None
