"""Operators find accounts, keys, publishers, any audit log, and one call by the request id that its caller was given."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from gateway.database.pool import Connection
from tests.operators.conftest import BOB, Desk
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("sound_books")
PRICE = 10_000


async def ids(desk: Desk, path: str) -> list[str]:
    return [row["id"] for row in (await desk.call("GET", path, expect=200)).json()["data"]]


async def test_one_call_is_found_by_its_request_id(desk: Desk, world: World, connection: Connection) -> None:
    shop, buyer = await world.publisher(PRICE), await world.agent(funds=PRICE * 10)
    headers = {**buyer.headers, "X-Request-Id": str(uuid4())}
    answer = await desk.gateway.client.get(f"/publishers/{shop.slug}/v1/x", headers=headers)
    assert answer.status_code == 200
    request_id = answer.headers["x-request-id"]
    assert request_id != headers["X-Request-Id"], "a caller does not choose how a call is found"

    found: dict[str, Any] = {}
    while not found.get("end"):  # it is written behind the answer
        found = (await desk.call("GET", f"/calls/{request_id}", expect=200)).json()["data"]
    assert (found["state"], found["charged_atomic"], found["refunded_atomic"]) == ("settled", str(PRICE), "0")
    (moved,) = found["movements"]
    assert (moved["kind"], moved["publisher_slug"], moved["account_id"]) == ("charge", shop.slug, str(buyer.id))
    assert (found["end"]["status"], found["end"]["method"]) == (200, "GET")
    status, said = await desk.command("find", "call", request_id)
    assert (status, json.loads(said)) == (0, found)

    await desk.call("GET", f"/calls/{headers['X-Request-Id']}", expect=404)
    await desk.call("GET", "/calls/not-an-id", expect=400)
    await desk.call("GET", f"/calls/{request_id}", buyer.key, expect=401)


async def test_of_a_refused_call_it_is_said_when_it_was_and_where_to_look(desk: Desk, world: World) -> None:
    shop, poor = await world.publisher(PRICE), await world.agent()
    for slug, expected in ((shop.slug, 402), ("no-such-shop-at-all", 404)):
        refused = await desk.gateway.client.get(f"/publishers/{slug}/x", headers=poor.headers)
        assert refused.status_code == expected
        request_id = refused.headers["x-request-id"]
        told = (await desk.call("GET", f"/calls/{request_id}", expect=404)).json()["detail"]
        day = datetime.fromtimestamp((UUID(request_id).int >> 80) / 1000, UTC)
        assert f"{day:%Y-%m-%d %H:%M:%S} UTC" in told
        assert "access log" in told
        status, said = await desk.command("find", "call", request_id)
        assert (status, "access log" in said) == (1, True)
    foreign = (await desk.call("GET", f"/calls/{uuid4()}", expect=404)).json()["detail"]
    assert "not of the request" in foreign


async def test_a_call_that_was_given_back_and_a_hold_say_so(desk: Desk, world: World) -> None:
    shop = await world.publisher(PRICE, api_url="http://127.0.0.1:1")
    buyer = await world.agent(funds=PRICE * 10)
    answer = await desk.gateway.client.get(f"/publishers/{shop.slug}/x", headers=buyer.headers)
    assert answer.status_code == 502
    found = (await desk.call("GET", f"/calls/{answer.headers['x-request-id']}", expect=200)).json()["data"]
    assert (found["state"], found["charged_atomic"], found["refunded_atomic"]) == ("refunded", str(PRICE), str(PRICE))
    assert {row["publisher_slug"] for row in found["movements"]} == {shop.slug}


async def test_a_settled_call_is_refunded_once_and_both_sides_read_why(
    desk: Desk, world: World, connection: Connection
) -> None:
    shop, buyer = await world.publisher(PRICE, gateway_fee_percent="10"), await world.agent(funds=PRICE * 10)
    seller = await connection.fetchval("SELECT organization_id FROM catalog.publisher WHERE id = $1", shop.id)
    answer = await desk.gateway.client.get(f"/publishers/{shop.slug}/x", headers=buyer.headers)
    path = f"/calls/{answer.headers['x-request-id']}"
    while (await desk.call("GET", path)).json().get("data", {}).get("state") != "settled":
        pass
    await desk.call("POST", f"{path}/refund", expect=400, json={"reason": ""})
    await desk.call("POST", f"{path}/refund", buyer.key, expect=401, json={"reason": "mine"})
    assert await world.balance(buyer) == PRICE * 9
    first = await desk.call("POST", f"{path}/refund", expect=200, json={"reason": "the answer was empty"})
    assert first.json()["data"]["repeated"] is False
    again = (await desk.call("POST", f"{path}/refund", BOB, expect=200, json={"reason": "again"})).json()["data"]
    assert (again["repeated"], again["amount_atomic"]) == (True, str(PRICE))
    status, said = await desk.command("exchanges", "refund", answer.headers["x-request-id"], "--reason", "by hand")
    assert (status, said.startswith("refunded before")) == (0, True)
    assert (await world.balance(buyer), await world.earned(shop)) == (PRICE * 10, 0)
    found = (await desk.call("GET", path, expect=200)).json()["data"]
    assert (found["state"], found["refunded_atomic"]) == ("refunded", str(PRICE))
    assert [(one["by"], one["note"]) for one in found["decisions"]] == [("alice", "the answer was empty")]
    for organization in (buyer.organization_id, seller):
        log = await desk.call("GET", f"/audit-logs?organization_id={organization}&action=exchange.refund", expect=200)
        assert [row["metadata"]["reason"] for row in log.json()["data"]] == ["the answer was empty"]
        assert "alice" not in log.text


async def test_what_cannot_be_refunded_says_what_to_do(desk: Desk, world: World) -> None:
    free, buyer = await world.publisher(PRICE, api_url="http://127.0.0.1:1"), await world.agent(funds=PRICE)
    answer = await desk.gateway.client.get(f"/publishers/{free.slug}/x", headers=buyer.headers)
    path = f"/calls/{answer.headers['x-request-id']}/refund"
    given = (await desk.call("POST", path, expect=200, json={"reason": "x"})).json()["data"]
    assert given["repeated"] is True, "the gateway gave it back itself"
    assert await world.balance(buyer) == PRICE
    await desk.call("POST", f"/calls/{uuid4()}/refund", expect=404, json={"reason": "x"})


async def test_accounts_keys_and_publishers_are_found_by_what_people_know(
    desk: Desk, world: World, connection: Connection
) -> None:
    owner = await world.agent()
    shop = await world.publisher(PRICE)
    await connection.execute(
        "UPDATE catalog.publisher SET organization_id = $2 WHERE id = $1", shop.id, owner.organization_id
    )
    name = await connection.fetchval("SELECT name FROM identity.account WHERE id = $1", owner.id)
    for known in (owner.id, name, f"agent:{owner.id}", owner.organization_id):
        assert await ids(desk, f"/accounts?q={known}") == [str(owner.id)], known
    key = await connection.fetchval("SELECT id::text FROM identity.api_key WHERE account_id = $1", owner.id)
    for known in (owner.key, owner.key[:23], key, owner.id, owner.organization_id):
        found = await desk.call("GET", "/keys", params={"q": str(known)}, expect=200)
        assert [row["id"] for row in found.json()["data"]] == [key]
        assert owner.key not in found.text
    for known in (shop.slug, shop.id, owner.organization_id):
        assert await ids(desk, f"/publishers?q={known}") == [str(shop.id)]
    await desk.suspend("publisher", shop.slug)
    assert await ids(desk, f"/publishers?q={shop.slug}&status=suspended") == [str(shop.id)]
    assert await ids(desk, f"/publishers?q={shop.slug}&status=active") == []
    await desk.restore("publisher", shop.slug)
    await connection.execute("UPDATE catalog.publisher SET deleted_at = now() WHERE id = $1", shop.id)
    assert await ids(desk, f"/publishers?q={shop.slug}&status=deleted") == [str(shop.id)]
    status, said = await desk.command("find", "accounts", name)
    assert (status, json.loads(said)["id"]) == (0, str(owner.id))


async def test_pages_follow_one_another(desk: Desk, world: World) -> None:
    made = [await world.agent() for _ in range(3)]
    first = (await desk.call("GET", "/accounts?q=agent-&limit=2", expect=200)).json()
    second = (await desk.call("GET", "/accounts?q=agent-&limit=2&offset=2", expect=200)).json()
    assert first["has_more"] is True
    shown = [row["id"] for row in (*first["data"], *second["data"])]
    assert shown[:3] == [str(agent.id) for agent in reversed(made)]
    everybody = [row["id"] for row in (await desk.call("GET", "/accounts?limit=3", expect=200)).json()["data"]]
    assert everybody == shown[:3]
    for offset in range(2):
        status, said = await desk.command("find", "accounts", "--limit", "1", "--offset", str(offset))
        line, more = said.splitlines()
        assert (status, json.loads(line)["id"]) == (0, everybody[offset])
        assert more == f"There are more; go on with --offset {offset + 1}."
    for what in ("keys", "publishers"):
        assert (await desk.command("find", what, "--limit", "1"))[0] == 0
    assert await desk.command("find", "publishers", "no-such-shop") == (0, "Nothing is found.\n")


async def test_any_audit_log_and_its_proof_can_be_read(desk: Desk, world: World) -> None:
    agent = await world.agent()
    await desk.suspend("account", agent.id, "to be read")
    theirs = (await desk.call("GET", f"/audit-logs?organization_id={agent.organization_id}", BOB, expect=200)).json()
    assert [(row["action"], row["metadata"]["reason"]) for row in theirs["data"]] == [("account.suspend", "to be read")]
    ours = (await desk.call("GET", f"/audit-logs?action=account.suspend&resource_id={agent.id}", expect=200)).json()
    assert [row["metadata"]["operator"] for row in ours["data"]] == ["alice"]
    await desk.restore("account", agent.id)
    proof = (await desk.call("GET", "/audit/proof", expect=200)).json()["data"]
    assert (proof["sound"], proof["findings"], proof["entries"] > 0) == (True, [], True)
    status, printed = await desk.command("audit", "head")
    head = (await desk.call("GET", "/audit/head", expect=200)).json()["data"]["head"]
    assert (status, head) == (0, printed.strip())
    await desk.call("GET", "/audit-logs", agent.key, expect=401)
