"""Operators correct balances: once per reference, never below zero, of the sort of money they name, for all to read."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.ledger import wallets
from tests.operators.conftest import BOB, Desk
from tests.support.world import Agent, World

pytestmark = pytest.mark.usefixtures("sound_books")
CENT = 10_000


async def correct(desk: Desk, agent: Agent, expect: int, **body: Any) -> dict[str, Any]:
    body = {"direction": "debit", "reference": str(uuid4()), "reason": "credited twice", **body}
    answer = await desk.call("POST", f"/wallets/agent:{agent.id}/corrections", expect=expect, json=body)
    return answer.json().get("data") or answer.json()


async def read(desk: Desk, agent: Agent, path: str) -> httpx.Response:
    answer = await desk.gateway.client.get(path, headers=agent.headers)
    assert answer.status_code == 200, answer.text
    return answer


async def history(desk: Desk, agent: Agent) -> list[tuple[str, int, str | None]]:
    lines = (await read(desk, agent, "/wallet/transactions")).json()["data"]["transactions"]
    return [(line["source"], line["amount_atomic"], line["description"]) for line in lines]


async def by_source(connection: Connection, agent: Agent) -> dict[str, int]:
    return {row.source: row.balance for row in await wallets.BALANCES.all(connection, agent.wallet_id)}


async def give(connection: Connection, agent: Agent, source: str, amount: int) -> None:
    await wallets.grant(connection, agent.wallet_id, source=source, reference=str(uuid7()), amount=amount)


async def test_a_correction_happens_once_per_reference(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=100 * CENT)
    first = await correct(desk, agent, 201, amount_atomic=str(30 * CENT), reference="case 1")
    assert (first["repeated"], first["correction"]["corrected_by"]) == (False, "alice")
    again = await correct(desk, agent, 200, amount_atomic=str(30 * CENT), reference="case 1")
    assert (again["repeated"], again["correction"]["id"]) == (True, first["correction"]["id"])
    for other in ({"amount_atomic": "1"}, {"direction": "credit"}, {"money": "promotional"}):
        refused = await correct(desk, agent, 409, **{"amount_atomic": str(30 * CENT), "reference": "case 1", **other})
        assert "another correction" in refused["detail"]
    assert await world.balance(agent) == 70 * CENT
    await correct(desk, agent, 201, direction="credit", amount_atomic=str(5 * CENT), reference="case 2", reason="lost")
    assert await world.balance(agent) == 75 * CENT
    assert (await history(desk, agent))[:2] == [
        ("correction", 5 * CENT, "lost"), ("correction", -30 * CENT, "credited twice")
    ]  # fmt: skip
    listed = (await desk.call("GET", f"/wallets/{agent.id}/corrections?limit=1", BOB, expect=200)).json()
    assert ([row["reference"] for row in listed["data"]], listed["has_more"]) == (["case 2"], True)


async def test_a_debit_never_goes_below_zero_and_says_what_is_missing(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=10 * CENT)
    refused = await correct(desk, agent, 409, amount_atomic=str(10 * CENT + 7))
    assert (refused["available_atomic"], refused["missing_atomic"]) == (str(10 * CENT), "7")
    assert await world.balance(agent) == 10 * CENT
    await correct(desk, agent, 201, amount_atomic=str(10 * CENT))
    assert await world.balance(agent) == 0
    assert (await correct(desk, agent, 409, amount_atomic="1"))["missing_atomic"] == "1"


async def test_a_debit_takes_only_what_it_names_and_funded_money_first(
    desk: Desk, world: World, connection: Connection
) -> None:
    agent = await world.agent(funds=10 * CENT)
    for source, amount in (("fiat_purchase", 20 * CENT), ("tier_bonus", 3 * CENT), ("signup_bonus", 4 * CENT)):
        await give(connection, agent, source, amount)
    await correct(desk, agent, 201, amount_atomic=str(25 * CENT))
    assert await by_source(connection, agent) == {
        "admin_grant": 5 * CENT, "tier_bonus": 3 * CENT, "signup_bonus": 4 * CENT
    }  # fmt: skip
    await correct(desk, agent, 201, amount_atomic=str(5 * CENT), money="promotional")
    assert await by_source(connection, agent) == {"admin_grant": 5 * CENT, "tier_bonus": 2 * CENT}
    refused = await correct(desk, agent, 409, amount_atomic=str(6 * CENT))
    assert refused["available_atomic"] == str(5 * CENT), "promotional money is not paid money"


async def test_a_credit_is_what_the_operator_says(desk: Desk, world: World, connection: Connection) -> None:
    agent = await world.agent()
    paid = await correct(desk, agent, 201, direction="credit", amount_atomic="5")
    free = await correct(
        desk, agent, 201, direction="credit", amount_atomic="6", money="promotional", expires_in_days=3
    )  # fmt: skip
    assert (paid["correction"]["expires_at"], free["correction"]["expires_at"] is None) == (None, False)
    lots = await connection.fetch(
        "SELECT granted, ledger.is_promotional(purpose, source) AS free, expires_at IS NULL AS lasts FROM ledger.account"
        " WHERE wallet_id = $1 ORDER BY id", agent.wallet_id,
    )  # fmt: skip
    assert [tuple(lot) for lot in lots] == [(5, False, True), (6, True, False)]
    await correct(desk, agent, 400, direction="credit", amount_atomic="6", expires_in_days=3)


async def test_twenty_at_once_are_one(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=100 * CENT)
    body = {"direction": "debit", "amount_atomic": str(30 * CENT), "reference": "race", "reason": "x"}
    path = f"/wallets/agent:{agent.id}/corrections"
    answers = await asyncio.gather(*(desk.call("POST", path, json=body) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert await world.balance(agent) == 70 * CENT
    races = (correct(desk, agent, 201, amount_atomic=str(10 * CENT)) for _ in range(7))
    await asyncio.gather(*races)
    assert await world.balance(agent) == 0


async def test_the_owner_and_the_platform_read_it(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=10 * CENT)
    await correct(desk, agent, 201, amount_atomic="9", reference="r9", reason="a reason to read")
    theirs = await desk.call("GET", f"/audit-logs?organization_id={agent.organization_id}", expect=200)
    (entry,) = theirs.json()["data"]
    told = entry["metadata"]
    assert (entry["action"], told["reason"], told["amount_atomic"]) == ("wallet.correct", "a reason to read", "9")
    assert "alice" not in theirs.text
    ours = await desk.call("GET", f"/audit-logs?action=wallet.correct&resource_id={agent.id}", expect=200)
    assert [row["metadata"]["operator"] for row in ours.json()["data"]] == ["alice"]
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    statement = await read(desk, agent, f"/wallet/statement?from={yesterday}&format=csv")
    assert "correction" in statement.text
    assert "a reason to read" in statement.text
    await correct(desk, agent, 201, amount_atomic="8", direction="credit")
    await correct(desk, agent, 201, amount_atomic="7", direction="credit", money="promotional")
    lines = (await read(desk, agent, "/wallet/transactions?limit=2")).json()["data"]["transactions"]
    told = [(one["source"], one["amount_atomic"], one["bonus_amount_usd"]) for one in lines]
    assert told == [("correction", 7, "$0.000007"), ("correction", 8, None)], "paid money is no bonus"


async def test_the_command_does_the_same(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=100 * CENT)
    words = ("wallet", "correct", str(agent.id), "debit", "0.25", "--reference", "cli", "--reason", "by hand")
    status, said = await desk.command(*words)
    assert (status, said.startswith("corrected: debit of $0.25 (paid)")) == (0, True), said
    status, said = await desk.command(*words)
    assert (status, said.startswith("nothing moved; corrected before")) == (0, True), said
    status, said = await desk.command(*words[:4], "9", *words[5:])
    assert (status, "another correction" in said) == (1, True), said
    status, said = await desk.command(*words[:4], "9", "--reference", "more", "--reason", "by hand")
    assert (status, "8250000 are missing" in said) == (1, True), said
    assert await world.balance(agent) == 75 * CENT


async def test_only_operators_correct_and_what_is_wrong_is_refused(desk: Desk, world: World) -> None:
    agent = await world.agent(funds=CENT)
    body = {"direction": "credit", "amount_atomic": "1", "reference": "r", "reason": "mine"}
    path = f"/wallets/agent:{agent.id}/corrections"
    await desk.call("POST", path, agent.key, expect=401, json=body)
    for wrong in ({"amount_atomic": "0"}, {"amount_atomic": "-1"}, {"reason": " "}, {"reference": ""}, {"money": "x"}):
        await desk.call("POST", path, expect=400, json={**body, **wrong})
    await desk.call("POST", f"/wallets/agent:{uuid4()}/corrections", expect=404, json=body)
    assert await world.balance(agent) == CENT
