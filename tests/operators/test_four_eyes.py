"""Money above a bound waits for another operator: done once, judged anew, and never approved by who has asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.operators.conftest import ALICE, BOB, OPERATORS, Desk
from tests.support import forking
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
BOUND, SHARED = 50_000, "the-shared-token-without-a-name"


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    settings = {**OPERATORS, "SECRETS_OPERATOR_TOKEN": SHARED, "MONEY_FOUR_EYES_ABOVE": str(BOUND)}
    running = await start_gateway(services, database_url, WORKERS="2", **settings)
    yield running
    await running.stop()


@pytest_asyncio.fixture(autouse=True)
async def a_new_day(connection: Connection) -> None:
    """What operators moved alone in other tests counts in this one no more."""
    await connection.execute("ALTER TABLE ledger.moved_alone DISABLE TRIGGER moved_alone_immutable")
    await connection.execute("UPDATE ledger.moved_alone SET moved_at = moved_at - interval '2 days'")
    await connection.execute("ALTER TABLE ledger.moved_alone ENABLE TRIGGER moved_alone_immutable")


async def ask(desk: Desk, agent: Agent, amount: int, token: str = ALICE, expect: int = 202, **body: Any) -> Any:
    body = {"direction": "debit", "reference": str(uuid4()), "reason": "too much", "amount_atomic": str(amount), **body}
    answer = await desk.call("POST", f"/wallets/agent:{agent.id}/corrections", token, expect=expect, json=body)
    return answer.json()["data"]


async def decide(desk: Desk, approval: Any, word: str, token: str, expect: int) -> Any:
    body = {"json": {"note": "no"}} if word == "decline" else {}
    answer = await desk.call("POST", f"/approvals/{approval['id']}/{word}", token, expect=expect, **body)
    return answer.json().get("data") or answer.json()


async def command(desk: Desk, user: str, *arguments: str) -> tuple[int, str]:
    """Run a command as this user of the machine."""
    env = {**desk.gateway.environment, "LOGNAME": user}
    done = await asyncio.to_thread(forking.run, *arguments, env=env, merged=True)
    return done.returncode, done.stdout


async def test_an_approval_with_a_key_answers_alike_when_repeated(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=200_000)
    approval = (await ask(desk, agent, BOUND + 1))["approval"]
    options: dict[str, Any] = {"more_headers": {"Idempotency-Key": str(uuid4())}, "expect": 200}
    first, second = [await desk.call("POST", f"/approvals/{approval['id']}/approve", BOB, **options) for _ in range(2)]
    assert (first.json(), second.headers["idempotency-replayed"]) == (second.json(), "true")
    assert await world.balance(agent) == 200_000 - BOUND - 1


async def test_what_is_above_the_bound_waits_for_another_operator(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=200_000)
    waits = await ask(desk, agent, BOUND + 1, reference="big")
    assert (waits["correction"], waits["approval"]["state"]) == (None, "pending")
    again = await ask(desk, agent, BOUND + 1, reference="big")
    assert again["approval"]["id"] == waits["approval"]["id"]
    assert await world.balance(agent) == 200_000
    listed = (await desk.call("GET", "/approvals?state=pending", BOB, expect=200)).json()["data"]
    assert waits["approval"]["id"] in [row["id"] for row in listed]
    refused = await decide(desk, waits["approval"], "approve", ALICE, 403)
    assert "another operator" in refused["detail"]
    done = await decide(desk, waits["approval"], "approve", BOB, 200)
    assert (done["state"], done["asked_by"], done["decided_by"]) == ("approved", "alice", "bob")
    assert await world.balance(agent) == 200_000 - BOUND - 1
    assert (await decide(desk, waits["approval"], "approve", BOB, 409))["state"] == "approved"
    repeated = await ask(desk, agent, BOUND + 1, expect=200, reference="big")
    assert (repeated["repeated"], repeated["correction"]["approved_by"]) == (True, "bob")
    assert await world.balance(agent) == 200_000 - BOUND - 1


async def test_who_approves_reads_what_would_be_done(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=200_000)
    debit = (await ask(desk, agent, BOUND + 1))["approval"]
    assert {name: debit["details"][name] for name in ("direction", "money")} == {"direction": "debit", "money": "paid"}
    credit = await ask(desk, agent, BOUND, direction="credit", money="promotional", expires_in_days=3, expect=201)
    assert credit["approval"] is None
    more = await ask(desk, agent, BOUND, direction="credit", money="promotional", expires_in_days=3)
    _, said = await command(desk, "bob", "approvals", "list", "--state", "pending")
    lines = {line.split()[0]: line for line in said.splitlines()}
    assert f"correction, debit of $0.050001 (paid)  agent:{agent.id}" in lines[debit["id"]]
    assert "asked by alice: too much" in lines[debit["id"]]
    assert "correction, credit of $0.05 (promotional, for 3 days)" in lines[more["approval"]["id"]]
    assert re.search(r"pending until \d{4}-", lines[debit["id"]])


async def test_a_bound_is_not_passed_in_parts(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=200_000)
    await ask(desk, agent, BOUND, expect=201)
    await ask(desk, agent, 1, expect=202)
    await ask(desk, agent, 1, BOB, expect=201)
    assert await world.balance(agent) == 200_000 - BOUND - 1


async def test_grants_refunds_and_corrections_count_together_for_all_targets(desk: Desk, world: World) -> None:
    shop, buyer, other = await world.publisher(20_000), await world.agent(funds=100_000), await world.agent()
    calls = [await called(desk, shop, buyer) for _ in range(2)]
    status, said = await command(desk, "alice", "wallet", "grant", str(other.id), "0.02", "--reference", "a")
    assert (status, said.startswith("granted")) == (0, True), said
    await desk.call("POST", f"{calls[0]}/refund", expect=200, json={"reason": "empty"})
    # $0.04 of $0.05 by now: each of these would pass the bound, whatever it is and for whomever.
    await desk.call("POST", f"{calls[1]}/refund", expect=202, json={"reason": "empty"})
    await ask(desk, other, 10_001, expect=202)
    status, said = await command(desk, "Alice", "wallet", "grant", str(buyer.id), "0.010001", "--reference", "b")
    assert (status, said.startswith("nothing moved yet")) == (0, True), said
    # What was done already is said again, and counts once.
    status, said = await command(desk, "alice", "wallet", "grant", str(other.id), "0.02", "--reference", "a")
    assert (status, said.startswith("nothing granted")) == (0, True), said
    again = await desk.call("POST", f"{calls[0]}/refund", expect=200, json={"reason": "empty"})
    assert again.json()["data"]["repeated"] is True
    await ask(desk, other, 10_000, expect=201)
    await ask(desk, other, 1, expect=202)
    await ask(desk, other, 10_000, BOB, expect=201)
    assert (await world.balance(buyer), await world.balance(other)) == (80_000, 0)


async def test_many_at_once_do_not_pass_the_bound(desk: Desk, world: World) -> None:
    agents = [await world.agent(funds=BOUND) for _ in range(12)]
    body = {"direction": "debit", "reason": "too much", "amount_atomic": str(BOUND // 5)}
    made = await asyncio.gather(
        *(
            desk.call("POST", f"/wallets/agent:{one.id}/corrections", json={**body, "reference": "at once"})
            for one in agents
        )
    )
    assert sorted(answer.status_code for answer in made) == [201] * 5 + [202] * 7
    assert sum([await world.balance(one) for one in agents]) == BOUND * 12 - BOUND


async def test_a_refused_debit_counts_for_nothing(desk: Desk, world: World) -> None:
    poor, agent = await world.agent(funds=1), await world.agent(funds=BOUND)
    body = {"direction": "debit", "reference": "r", "reason": "too much", "amount_atomic": str(BOUND)}
    for _ in range(3):
        await desk.call("POST", f"/wallets/agent:{poor.id}/corrections", expect=409, json=body)
    await ask(desk, agent, BOUND, expect=201)


async def called(desk: Desk, shop: Shop, buyer: Agent) -> str:
    """Buy a call, and return where operators find it once it has ended."""
    answer = await desk.gateway.client.get(f"/publishers/{shop.slug}/x", headers=buyer.headers)
    path = f"/calls/{answer.headers['x-request-id']}"
    while (await desk.call("GET", path)).json().get("data", {}).get("state") != "settled":
        await asyncio.sleep(0.02)
    return path


async def test_approvals_at_once_are_one_effect(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=500_000)
    approval = (await ask(desk, agent, 100_000))["approval"]
    path = f"/approvals/{approval['id']}/approve"
    answers = await asyncio.gather(*(desk.call("POST", path, BOB) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert await world.balance(agent) == 400_000


async def test_it_is_judged_anew(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=100_000)
    approval = (await ask(desk, agent, 60_000))["approval"]
    await ask(desk, agent, 45_000, BOB, expect=201)
    refused = await decide(desk, approval, "approve", BOB, 409)
    assert (refused["available_atomic"], refused["missing_atomic"]) == ("55000", "5000")
    assert await world.balance(agent) == 55_000
    await ask(desk, agent, 5_000, ALICE, expect=201, direction="credit")
    await decide(desk, approval, "approve", BOB, 200)
    assert await world.balance(agent) == 0


async def test_declined_and_expired_requests_do_nothing(desk: Desk, world: World, connection: Connection) -> None:
    agent = await world.agent(funds=200_000)
    declined = (await ask(desk, agent, 60_000, reference="d"))["approval"]
    assert (await decide(desk, declined, "decline", ALICE, 200))["note"] == "no"
    assert (await decide(desk, declined, "approve", BOB, 409))["state"] == "declined"
    old = (await ask(desk, agent, 60_000, reference="d"))["approval"]
    assert old["id"] != declined["id"]
    await connection.execute("UPDATE ledger.approval SET expires_at = now() WHERE id = $1::text::uuid", old["id"])
    assert (await decide(desk, old, "approve", BOB, 409))["state"] == "expired"
    new = (await ask(desk, agent, 60_000, reference="d"))["approval"]
    assert new["id"] not in (old["id"], declined["id"])
    assert await world.balance(agent) == 200_000


async def test_one_name_is_one_operator_by_whatever_door(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=500_000)
    approval = (await ask(desk, agent, 60_000))["approval"]
    status, said = await command(desk, "Alice", "approvals", "approve", approval["id"])
    assert (status, "another operator" in said) == (1, True), said
    shared = (await ask(desk, agent, 60_001, SHARED))["approval"]
    await decide(desk, shared, "approve", SHARED, 403)
    status, said = await command(desk, "operator", "approvals", "approve", shared["id"])
    assert (status, "another operator" in said) == (1, True), said
    assert await world.balance(agent) == 500_000
    status, said = await command(desk, "bob", "approvals", "approve", approval["id"])
    assert (status, "approved by bob" in said) == (0, True), said
    status, said = await command(desk, "bob", "approvals", "decline", shared["id"], "--note", "no case")
    assert (status, "declined by bob" in said) == (0, True), said
    assert await world.balance(agent) == 440_000


async def test_a_grant_by_command_waits_too(desk: Desk, world: World) -> None:
    agent = await world.agent()
    status, said = await command(desk, "alice", "wallet", "grant", str(agent.id), "0.06", "--reference", "pilot")
    assert (status, said.startswith("nothing moved yet")) == (0, True), said
    assert await world.balance(agent) == 0
    approval = {"id": said.split()[-1]}
    await decide(desk, approval, "approve", ALICE, 403)
    await decide(desk, approval, "approve", BOB, 200)
    status, said = await command(desk, "alice", "wallet", "grant", str(agent.id), "0.06", "--reference", "pilot")
    assert (status, said.startswith("nothing granted")) == (0, True), said
    assert await world.balance(agent) == 60_000


async def test_a_refund_waits_too(desk: Desk, world: World) -> None:
    shop, buyer = await world.publisher(60_000), await world.agent(funds=100_000)
    path = await called(desk, shop, buyer)
    waits = (await desk.call("POST", f"{path}/refund", expect=202, json={"reason": "empty"})).json()["data"]
    assert (waits["amount_atomic"], waits["approval"]["kind"]) == ("0", "refund")
    assert await world.balance(buyer) == 40_000
    await decide(desk, waits["approval"], "approve", BOB, 200)
    assert (await world.balance(buyer), await world.earned(shop)) == (100_000, 0)
    done = (await desk.call("POST", f"{path}/refund", expect=200, json={"reason": "empty"})).json()["data"]
    assert done["repeated"] is True


async def hanging(desk: Desk, world: World, price: int) -> tuple[Agent, Shop, str, asyncio.Task[Any]]:
    """Begin a call that does not end, and return its exchange once it is charged."""
    shop, buyer = await world.publisher(price), await world.agent(funds=100_000)
    url = f"{desk.gateway.url}/publishers/{shop.slug}/hang"
    call = asyncio.create_task(httpx.AsyncClient(timeout=120).get(url, headers=buyer.headers))
    while await world.balance(buyer) == 100_000:
        await asyncio.sleep(0.02)
    exchange = await world.connection.fetchval(
        "SELECT cause_id FROM ledger.transfer WHERE wallet_id = $1 AND kind = 'charge'", buyer.wallet_id
    )
    return buyer, shop, str(exchange), call


@pytest.mark.parametrize(("decision", "left"), [("refund", 100_000), ("keep", 40_000)])
async def test_a_decision_about_an_open_exchange_waits_too(desk: Desk, world: World, decision: str, left: int) -> None:
    buyer, shop, exchange, call = await hanging(desk, world, 60_000)
    path, other = f"/exchanges/{exchange}/resolve", "keep" if decision == "refund" else "refund"
    waits = (await desk.call("POST", path, expect=202, json={"decision": decision})).json()["data"]
    assert (waits["verdict"], waits["approval"]["kind"], waits["approval"]["amount_atomic"]) == (
        "waits", "resolution", "60000"
    )  # fmt: skip
    await desk.call("POST", path, expect=409, json={"decision": other})
    status, said = await command(desk, "alice", "exchanges", "resolve", exchange, decision)
    assert (status, said.startswith("nothing moved yet")) == (0, True), said
    assert [row["exchange_id"] for row in (await desk.call("GET", "/exchanges")).json()["data"]] == [exchange]
    await decide(desk, waits["approval"], "approve", ALICE, 403)
    await decide(desk, waits["approval"], "approve", BOB, 200)
    assert (await world.balance(buyer), await world.earned(shop)) == (left, 100_000 - left)
    assert (await desk.call("GET", "/exchanges")).json()["data"] == []
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_decisions_count_with_what_else_is_moved(desk: Desk, world: World) -> None:
    buyer, _, exchange, call = await hanging(desk, world, 20_000)
    status, said = await command(desk, "alice", "exchanges", "resolve", exchange, "refund", "--note", "never arrived")
    assert (status, said) == (0, "refunded\n"), said
    await ask(desk, buyer, BOUND - 20_000 + 1, expect=202)
    await ask(desk, buyer, BOUND - 20_000, expect=201)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_all_of_it_is_audited(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=500_000)
    first = (await ask(desk, agent, 60_000))["approval"]
    second = (await ask(desk, agent, 70_000))["approval"]
    await decide(desk, first, "approve", BOB, 200)
    await decide(desk, second, "decline", BOB, 200)
    for approval, words in ((first, ["approve", "request"]), (second, ["decline", "request"])):
        log = (await desk.call("GET", f"/audit-logs?resource_id={approval['id']}", expect=200)).json()["data"]
        assert [(row["action"], row["metadata"]["operator"]) for row in log] == [
            (f"approval.{words[0]}", "bob"), (f"approval.{words[1]}", "alice")
        ]  # fmt: skip
    theirs = await desk.call("GET", f"/audit-logs?organization_id={agent.organization_id}", expect=200)
    assert [row["action"] for row in theirs.json()["data"]] == ["wallet.correct"]
    assert "alice" not in theirs.text
    assert "bob" not in theirs.text
    ours = await desk.call("GET", f"/audit-logs?action=wallet.correct&resource_id={agent.id}", expect=200)
    assert [(row["metadata"]["operator"], row["metadata"]["approved_by"]) for row in ours.json()["data"]] == [
        ("alice", "bob")
    ]  # fmt: skip
