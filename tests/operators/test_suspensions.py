"""What an operator suspends stays stopped, whatever its owner does, and is as it was when it is restored."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.database.pool import Connection
from tests.operators.conftest import Desk, everywhere
from tests.support.gateway import RunningGateway
from tests.support.sockets import SocketUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
PRICE = 10_000


async def owned(world: World, connection: Connection, **document: Any) -> tuple[Agent, Shop]:
    """Make a publisher and hand it to an agent."""
    owner, shop = await world.agent(), await world.publisher(PRICE, wallet_address=ORDER["wallet_address"], **document)
    await connection.execute(
        "UPDATE catalog.publisher SET organization_id = $2 WHERE id = $1", shop.id, owner.organization_id
    )
    return owner, shop


async def key_of(connection: Connection, agent: Agent) -> str:
    return await connection.fetchval("SELECT key_id FROM identity.api_key WHERE account_id = $1", agent.id)


@pytest.fixture
def call(gateway: RunningGateway) -> Any:
    """Call by a connection of its own each time, so that it may reach any worker."""

    async def calling(method: str, path: str, who: Agent | None = None, **options: Any) -> httpx.Response:
        headers = {"Connection": "close", **(who.headers if who else {})}
        return await gateway.client.request(method, path, headers=headers, **options)

    return calling


async def test_a_suspended_publisher_sells_nothing_until_an_operator_restores_it(
    desk: Desk, world: World, connection: Connection, call: Any
) -> None:
    owner, shop = await owned(world, connection)
    buyer = await world.agent(funds=PRICE * 100)
    path, mine = f"/publishers/{shop.slug}/x", f"/organizations/{owner.organization_id}/publishers"
    await everywhere(lambda: call("GET", path, buyer), 200)
    made = await desk.suspend("publisher", shop.slug, "sells what is not its own", note="case 12")
    assert (made["label"], made["suspended_by"]) == (shop.slug, "alice")
    refused = await everywhere(lambda: call("GET", path, buyer), 404)
    assert refused.json()["type"] == "/problems/unknown-publisher"
    assert "not its own" not in refused.text, "a buyer is told what is told of any publisher that is not there"
    assert (await call("GET", f"/publishers/{shop.slug}")).status_code == 404
    spent = await world.balance(buyer)

    shown = (await call("GET", f"{mine}/{shop.id}", owner)).json()["data"]
    assert shown["suspension"]["reason"] == "sells what is not its own"
    assert "case 12" not in str(shown)
    for method, target, body in (
        ("PUT", f"{mine}/{shop.id}", {"is_active": True}),
        ("DELETE", f"{mine}/{shop.id}", None),
        ("POST", mine, ORDER),
    ):
        tried = await call(method, target, owner, **({"json": body} if body else {}))
        assert (tried.status_code, tried.json()["type"]) == (403, "/problems/suspended"), tried.text
        assert tried.json()["reason"] == "sells what is not its own"
    changed = await call("PUT", f"{mine}/{shop.id}", owner, json={"name": "Better"})
    assert changed.status_code == 200, "what is wrong can be mended"
    assert (await call("GET", path, buyer)).status_code == 404
    assert await world.balance(buyer) == spent

    await desk.restore("publisher", shop.id)
    await everywhere(lambda: call("GET", path, buyer), 200)
    log = (await call("GET", f"/organizations/{owner.organization_id}/audit-logs", owner)).json()["data"]["data"]
    told = {entry["action"]: entry for entry in log}
    assert told["publisher.suspend"]["metadata"]["reason"] == "sells what is not its own"
    assert "case 12" not in str(log)
    assert "alice" not in str(log)
    kept = await connection.fetchval(
        "SELECT metadata FROM audit.entry WHERE chain = $1 AND action = 'publisher.suspend' AND resource_id = $2",
        UUID(int=0), shop.id,
    )  # fmt: skip
    assert (kept["operator"], kept["note"]) == ("alice", "case 12")


ORDER = {
    "name": "Another", "slug": "another-in-its-place", "publisher_category": "integration",
    "integration_type": "api", "api_url": "https://api.example.com", "price_per_call": "0.01",
    "wallet_address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "wallet_network_id": "eip155:84532",
}  # fmt: skip


async def test_a_suspended_key_does_nothing_and_a_stranger_with_its_id_learns_nothing(
    desk: Desk, world: World, connection: Connection, call: Any
) -> None:
    agent = await world.agent()
    await everywhere(lambda: call("GET", "/wallet/balance", agent), 200)
    key = await key_of(connection, agent)
    await desk.suspend("key", f"seren_{key}_", "it was found in a public repository")
    refused = (await everywhere(lambda: call("GET", "/wallet/balance", agent), 403)).json()
    assert (refused["suspended"], refused["reason"]) == ("key", "it was found in a public repository")
    forged = {"Authorization": f"Bearer seren_{key}_{'x' * 43}", "Connection": "close"}
    stranger = await desk.gateway.client.get("/wallet/balance", headers=forged)
    assert (stranger.status_code, "repository" in stranger.text) == (401, False)
    made = await call("POST", "/organizations/default/api-keys", agent, json={"name": "another"})
    assert made.status_code == 403
    await desk.restore("key", agent.key)  # pasted whole: cut to its public part
    await everywhere(lambda: call("GET", "/wallet/balance", agent), 200)


async def test_a_suspended_account_is_not_recovered(desk: Desk, connection: Connection, call: Any) -> None:
    made = (await call("POST", "/auth/agent", json={})).json()["data"]["agent"]
    agent = Agent(UUID(made["id"]), UUID(made["organization_id"]), made["api_key"], 0)
    code = (await call("POST", "/wallet/recovery", agent, json={})).json()["data"]["recovery_code"]
    await desk.suspend("account", agent.id, "chargebacks")
    await everywhere(lambda: call("GET", "/wallet/balance", agent), 403)
    tried = await call("POST", "/wallet/recover", json={"recovery_code": code})
    assert (tried.status_code, tried.json()["reason"]) == (403, "chargebacks"), tried.text
    listed = (await desk.call("GET", f"/suspensions?kind=account&subject={agent.id}")).json()
    assert [row["reason"] for row in listed["data"]] == ["chargebacks"]
    await desk.restore("account", agent.id)
    await everywhere(lambda: call("GET", "/wallet/balance", agent), 200)
    again = await call("POST", "/wallet/recover", json={"recovery_code": code})
    assert again.status_code == 200, "the code is as good as before"


async def test_an_organization_takes_its_keys_members_and_publishers_along(
    desk: Desk, world: World, connection: Connection, call: Any
) -> None:
    owner, shop = await owned(world, connection)
    buyer, member = await world.agent(funds=PRICE * 100), await world.agent()
    await connection.execute(
        "INSERT INTO identity.membership (organization_id, account_id, role) VALUES ($1, $2, 'admin')",
        owner.organization_id, member.id,
    )  # fmt: skip
    organization = f"/organizations/{owner.organization_id}"
    await everywhere(lambda: call("GET", f"{organization}/publishers", member), 200)
    await everywhere(lambda: call("GET", f"/publishers/{shop.slug}/x", buyer), 200)
    await desk.suspend("organization", owner.organization_id, "not who they say they are")
    await everywhere(lambda: call("GET", "/wallet/balance", owner), 403)
    await everywhere(lambda: call("GET", f"/publishers/{shop.slug}/x", buyer), 404)
    refused = await call("POST", f"{organization}/publishers", member, json=ORDER)
    assert (refused.status_code, refused.json()["reason"]) == (403, "not who they say they are")
    assert (await call("GET", "/wallet/balance", member)).status_code == 200, "a member has other organizations"
    await desk.restore("organization", owner.organization_id)
    await everywhere(lambda: call("GET", f"/publishers/{shop.slug}/x", buyer), 200)
    await everywhere(lambda: call("GET", f"{organization}/publishers", member), 200)


async def test_a_suspended_account_takes_its_own_organization_along(
    desk: Desk, world: World, connection: Connection, call: Any
) -> None:
    owner, shop = await owned(world, connection)
    buyer = await world.agent(funds=PRICE * 100)
    await desk.suspend("account", owner.id)
    await everywhere(lambda: call("GET", f"/publishers/{shop.slug}/x", buyer), 404)
    await desk.suspend("publisher", shop.slug, "and this by itself")
    await desk.restore("account", owner.id)
    await everywhere(lambda: call("GET", "/wallet/balance", owner), 200)
    await everywhere(lambda: call("GET", f"/publishers/{shop.slug}/x", buyer), 404)
    await desk.restore("publisher", shop.slug)
    await everywhere(lambda: call("GET", f"/publishers/{shop.slug}/x", buyer), 200)


async def test_a_suspended_wallet_buys_nothing_and_can_be_read(desk: Desk, world: World, call: Any) -> None:
    shop, buyer = await world.publisher(PRICE), await world.agent(funds=PRICE * 100)
    await everywhere(lambda: call("GET", f"/publishers/{shop.slug}/x", buyer), 200)
    await desk.suspend("wallet", f"agent:{buyer.id}", "paid for by a stolen card")
    refused = await everywhere(lambda: call("GET", f"/publishers/{shop.slug}/x", buyer), 403)
    assert (refused.json()["suspended"], refused.json()["reason"]) == ("wallet", "paid for by a stolen card")
    before = await world.balance(buyer)
    assert (await call("GET", "/wallet/balance", buyer)).status_code == 200
    assert await world.balance(buyer) == before
    await desk.restore("wallet", f"agent:{buyer.id}")
    await everywhere(lambda: call("GET", f"/publishers/{shop.slug}/x", buyer), 200)


@pytest.mark.parametrize("kind", ["key", "publisher", "account", "wallet"])
async def test_an_open_connection_of_the_suspended_is_ended_and_paid(
    desk: Desk, world: World, connection: Connection, sockets: SocketUpstream, kind: str
) -> None:
    owner, shop = await owned(world, connection, api_url=sockets.url, websocket_enabled=True)
    buyer = await world.agent(funds=PRICE * 100)
    subject = {
        "key": await key_of(connection, buyer), "publisher": shop.slug, "account": buyer.id,
        "wallet": f"agent:{buyer.id}",
    }[kind]  # fmt: skip
    url = f"ws://127.0.0.1:{desk.gateway.port}/publishers/{shop.slug}/echo"
    async with connect(url, additional_headers=buyer.headers, proxy=None) as socket:
        await socket.send("still here")
        assert await socket.recv() == "still here"
        await desk.suspend(kind, subject)
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(30):
                await socket.recv()
        assert (closed.value.rcvd and closed.value.rcvd.reason) == "suspended"
    assert await world.balance(buyer) == PRICE * 99, "what was delivered is paid"
    assert owner.key
    await desk.restore(kind, subject)


async def test_commands_do_the_same(desk: Desk, world: World, call: Any) -> None:
    agent = await world.agent()
    status, said = await desk.command("suspend", "account", str(agent.id), "--reason", "by hand", "--note", "phone")
    assert status == 0, said
    refused = await everywhere(lambda: call("GET", "/wallet/balance", agent), 403)
    assert refused.json()["reason"] == "by hand"
    assert "by hand  [phone]" in (await desk.command("suspensions", "--kind", "account"))[1]
    status, said = await desk.command("suspend", "account", str(agent.id), "--reason", "again")
    assert (status, "already" in said) == (1, True)
    assert (await desk.command("restore", "account", str(agent.id)))[0] == 0
    await everywhere(lambda: call("GET", "/wallet/balance", agent), 200)
    status, said = await desk.command("restore", "account", str(agent.id))
    assert (status, "not suspended" in said) == (1, True)


async def test_only_operators_suspend_and_each_is_known_by_name(desk: Desk, world: World) -> None:
    agent = await world.agent()
    body = {"kind": "account", "subject": str(agent.id), "reason": "x"}
    for token in (agent.key, "no-operator-of-this-gateway"):
        await desk.call("POST", "/suspensions", token, expect=401, json=body)
    await desk.call("POST", "/suspensions", expect=404, json={**body, "subject": "nobody-at-all"})
    await desk.call("POST", "/suspensions", expect=400, json={**body, "kind": "wallet", "subject": "no wallet"})
    await desk.call("POST", "/suspensions", expect=400, json={**body, "reason": ""})
    await desk.suspend("account", agent.id)
    await desk.call("POST", "/suspensions", expect=409, json=body)
    await desk.restore("account", agent.id)
    every = await desk.call("GET", f"/suspensions?kind=account&subject={agent.id}&lifted=true")
    assert [(row["suspended_by"], row["lifted_by"]) for row in every.json()["data"]] == [("alice", "alice")]
