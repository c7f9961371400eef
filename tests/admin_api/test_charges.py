"""Direct charges: who may take money without a call, how much, exactly once, and back again, whoever is at it meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from gateway.billing import charges
from gateway.catalog.records import FIND_ANY, Record
from gateway.ids import uuid7
from gateway.jobs.expire import expire_lots
from gateway.ledger.entries import Settlement
from gateway.ledger.holds import Capture, Hold, post_holds
from gateway.ledger.wallets import deposit
from tests.admin_api.conftest import Api, Clerk, close_api, open_api, settings_for
from tests.admin_api.first_party import Payer, Service, fund, payer, service

pytestmark = pytest.mark.usefixtures("sound_books")


async def balance(api: Api, who: Payer) -> int:
    answer = await api.call("GET", "/wallet/balance", who.member.key, expect=200)
    return answer.json()["data"]["balance_atomic"]


async def together(*calls: Awaitable[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in await asyncio.gather(*calls))


async def test_a_charge_is_taken_earned_and_seen_from_both_ends(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk, gateway_fee_percent="2.5"), await payer(api, clerk)
    made = await shop.charge(agent, 100_000)
    assert made == {"id": made["id"], "agent_wallet": agent.address, "amount_atomic": 100_000, "status": "completed"}
    assert await shop.status(made) == "completed"
    assert await balance(api, agent) == 900_000
    assert await shop.has("earnings") == 97_500
    earned = await api.call(
        "GET", f"/organizations/{shop.owner.organization_id}/publishers/{shop.id}/earnings", shop.owner.key, expect=200
    )
    assert (earned.json()["data"][0]["total_revenue_atomic"], earned.json()["data"][0]["request_count"]) == (97_500, 1)
    assert (await shop.refund(made)).json() == {**made, "status": "refunded"}
    history = (await api.call("GET", "/wallet/transactions", agent.member.key, expect=200)).json()["data"]
    lines = [(one["source"], one["amount_atomic"], one["description"]) for one in history["transactions"]]
    assert lines[:2] == [
        ("refund", 100_000, f"{shop.slug}: two hours"),
        ("service_fee", -100_000, f"{shop.slug}: two hours"),
    ]
    assert history["total"] == 3
    receipt = (await api.call("GET", f"/receipts/{made['id']}", agent.member.key, expect=200)).json()["data"]["claims"]
    assert (receipt["request"]["publisher"], receipt["delivered"]["reason"]) == (shop.slug, "direct_refund")
    assert (receipt["price"]["charged_atomic"], receipt["price"]["refunded"]) == ("0", "0.1")


async def test_only_those_of_the_publisher_may_and_no_stranger_learns_anything(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk), await payer(api, clerk)
    other, viewer = await service(api, clerk), await clerk.agent()
    await clerk.join(viewer, shop.owner.organization_id, "viewer")
    made = await shop.charge(agent)
    body = {"agent_wallet": agent.address, "amount_atomic": 1, "description": "x"}
    foreign = await api.call("POST", shop.path, other.owner.key, json=body, expect=403)
    unknown = await api.call("POST", "/billing/publishers/none-such/charges", other.owner.key, json=body, expect=403)
    assert foreign.json()["detail"] == unknown.json()["detail"]
    await api.call("POST", shop.path, agent.member.key, json=body, expect=403)
    await api.call("GET", f"{shop.path}/{made['id']}", other.owner.key, expect=403)
    await api.call("GET", f"{other.path}/{made['id']}", other.owner.key, expect=404)
    await api.call("GET", f"{shop.path}/{made['id']}", viewer.key, expect=200)
    for path, wish in (("", body), (f"/{made['id']}/refund", {"reason": "x"})):
        await api.call("POST", shop.path + path, viewer.key, json=wish, expect=403)
    for path, wish in (
        (f"/{made['id']}/refund", {"reason": "x"}),
        (f"/{made['id']}/slash", {"reason": "x", "slash_amount_atomic": 1}),
    ):
        await api.call("POST", other.path + path, other.owner.key, json=wish, expect=404)
    assert await balance(api, agent) == 900_000


async def test_whose_wallets_there_are_is_told_to_nobody_who_cannot_charge(api: Api, clerk: Clerk) -> None:
    agent, stranger = await payer(api, clerk), await clerk.agent()
    made = await clerk.publisher(stranger)
    told: list[dict[str, Any]] = []
    for address in (agent.address, f"agent:{uuid4()}", "agent:1"):
        body = {"agent_wallet": address, "amount_atomic": 1, "description": "x"}
        answer = await api.call("POST", f"/billing/publishers/{made['slug']}/charges", stranger.key, json=body)
        told.append({**answer.json(), "instance": ""})
    assert (told[0]["type"], told[1:]) == ("/problems/not-first-party", [told[0]] * 2)


async def test_a_publisher_that_the_operator_has_not_named_takes_nothing(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk), await payer(api, clerk)
    made = await shop.charge(agent)
    await shop.api.call(
        "PUT", f"/organizations/{shop.owner.organization_id}/publishers/{shop.id}", shop.owner.key,
        json={"is_active": False}, expect=200,
    )  # fmt: skip
    assert (await shop.charge(agent, expect=403))["type"] == "/problems/not-first-party"
    assert (await shop.slash(made, 1)).status_code == 403
    async with api.services.database.transaction() as connection:
        await charges.END_TERMS.run(connection, UUID(shop.id))
    self_made = await clerk.publisher(shop.owner)
    for slug in (shop.slug, self_made["slug"]):
        body = {"agent_wallet": agent.address, "amount_atomic": 1, "description": "x"}
        refused = await api.call("POST", f"/billing/publishers/{slug}/charges", shop.owner.key, json=body, expect=403)
        assert refused.json()["type"] == "/problems/not-first-party"
    assert (await shop.refund(made)).status_code == 200, "what was taken can still be given back"
    assert await balance(api, agent) == 1_000_000


async def test_the_operators_bounds_hold_and_say_what_is_left(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk, 300_000, 700_000), await payer(api, clerk, 5_000_000)
    above = await shop.charge(agent, 300_001, expect=403)
    assert (above["type"], above["limit"], above["limit_atomic"]) == ("/problems/charge-limit", "charge", 300_000)
    first = await shop.charge(agent, 300_000)
    assert (await shop.slash(first, 250_000)).status_code == 204
    beyond = await shop.charge(agent, 150_001, expect=403)
    assert (beyond["limit"], beyond["taken_atomic"], beyond["left_atomic"]) == ("day", 550_000, 150_000)
    assert beyond["renews_at"].endswith("T00:00:00.000000Z")
    second = await shop.charge(agent, 150_000)
    assert (await shop.slash(second, 1)).json()["left_atomic"] == 0
    await shop.charge(await payer(api, clerk), 300_000)
    await shop.refund(first)  # neither it nor its penalty was taken then
    await shop.charge(agent, 300_000)
    await shop.charge(agent, 250_000)
    assert (await shop.charge(agent, 1, expect=403))["left_atomic"] == 0
    assert await balance(api, agent) == 5_000_000 - 700_000


async def test_the_bound_of_a_day_ends_with_it(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk, 300_000, 300_000), await payer(api, clerk)
    made = await shop.charge(agent, 300_000)
    await shop.charge(agent, 1, expect=403)
    async with api.services.database.transaction() as connection:
        before = (
            "UPDATE ledger.direct_charge SET charged_at = date_trunc('day', now(), 'UTC') - interval '1 microsecond'"
        )
        await connection.execute(before + " WHERE id = $1", UUID(made["id"]))
    await shop.charge(agent, 300_000)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount_atomic", 0), ("amount_atomic", -5), ("amount_atomic", 2**63), ("amount_atomic", "5"),
        ("amount_atomic", 1.0), ("amount_atomic", True), ("amount_atomic", None), ("description", ""),
        ("description", "x" * 501), ("agent_wallet", ""), ("idempotency_key", "mine"), ("payer", "me"),
    ],
)  # fmt: skip
async def test_a_malformed_charge_is_refused_by_field(api: Api, clerk: Clerk, field: str, value: Any) -> None:
    shop = await service(api, clerk)
    body = {"agent_wallet": "agent:1", "amount_atomic": 1, "description": "x", field: value}
    assert (await shop.send("", body, 400)).json()["errors"][0]["field"] == field


async def test_no_such_wallet_and_no_such_charge_are_404(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk), await payer(api, clerk)
    nobody = Payer(agent.member, f"agent:{uuid4()}", 0)
    assert (await shop.charge(nobody, expect=404))["type"] == "/problems/not-found"
    for answer in (await shop.refund({"id": str(uuid4())}), await shop.slash({"id": str(uuid4())}, 1)):
        assert answer.status_code == 404
    async with api.services.database.transaction() as connection:
        await connection.execute("UPDATE identity.account SET status = 'disabled' WHERE id = $1", agent.member.id)
    await shop.charge(agent, expect=404)


async def test_what_is_missing_is_told_to_the_unit_and_nothing_moves(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk), await payer(api, clerk, 123_456)
    key = str(uuid4())
    short = await shop.charge(agent, 123_457, expect=402, idempotency_key=key)
    (offer,) = short["accepts"]
    assert (short["type"], short["availableBalanceAtomic"]) == ("/problems/payment-required", 123_456)
    assert (offer["scheme"], offer["amount"], offer["extra"]["deficit"]) == ("prepaid", "123457", "0.000001")
    assert await balance(api, agent) == 123_456
    await fund(api, agent, 1)
    made = await shop.charge(agent, 123_457, idempotency_key=key)
    slashed = await shop.slash(made, 100)
    assert (slashed.status_code, slashed.json()["accepts"][0]["extra"]["deficitAtomic"]) == (402, 100)
    assert await shop.status(made) == "completed"


async def test_a_key_charges_once_however_often_and_whatever_else_it_asks_for(api: Api, clerk: Clerk) -> None:
    """EX-48: the same key with another amount or agent is a conflict, and the first charge stands untouched."""
    shop, agent, other = await service(api, clerk), await payer(api, clerk), await payer(api, clerk)
    key = str(uuid4())

    def ask(who: Payer, amount: int, words: str = "two hours") -> Awaitable[httpx.Response]:
        body = {"agent_wallet": who.address, "amount_atomic": amount, "description": words, "idempotency_key": key}
        return shop.send("", body)

    answers = await asyncio.gather(*(ask(agent, 100_000) for _ in range(12)))
    assert {answer.text for answer in answers} == {answers[0].text}
    made = answers[0].json()
    for one in (ask(agent, 100_001), ask(other, 100_000), ask(agent, 100_000, "three hours")):
        refused = await one
        assert (refused.status_code, refused.json()["charge_id"]) == (409, made["id"])
    assert (await balance(api, agent), await balance(api, other)) == (900_000, 1_000_000)
    await shop.refund(made)
    assert (await ask(agent, 100_000)).json() == {**made, "status": "refunded"}, "a repetition never charges again"
    assert await balance(api, agent) == 1_000_000


async def test_a_key_in_the_head_is_the_key_of_the_body(api: Api, clerk: Clerk) -> None:
    shop, agent, key = await service(api, clerk), await payer(api, clerk), str(uuid4())
    body = {"agent_wallet": agent.address, "amount_atomic": 100_000, "description": "x"}
    first = await shop.send("", body, 200, headers={"Idempotency-Key": key})
    again = [
        await shop.send("", body, 200, headers={"Idempotency-Key": key}),
        await shop.send("", {**body, "idempotency_key": key}, 200),
    ]
    assert {one.text for one in again} == {first.text}
    await shop.send("", {**body, "amount_atomic": 1}, 409, headers={"Idempotency-Key": key})
    refused = await shop.send("", body, 400, headers={"Idempotency-Key": "mine"})
    assert "must be a UUID" in refused.json()["detail"]
    assert await balance(api, agent) == 900_000


async def test_a_key_for_two_agents_at_once_charges_one_of_them(api: Api, clerk: Clerk) -> None:
    shop, payers = await service(api, clerk), [await payer(api, clerk) for _ in range(4)]
    for _ in range(4):
        key = str(uuid4())
        bodies = [
            {"agent_wallet": who.address, "amount_atomic": 1_000, "description": "x", "idempotency_key": key}
            for who in payers
        ]
        assert await together(*(shop.send("", body) for body in bodies)) == {200: 1, 409: 3}
    assert sum([await balance(api, who) for who in payers]) == 4_000_000 - 4_000


async def test_charges_at_once_take_what_there_is_and_no_more(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk), await payer(api, clerk, 37_000)
    body = {"agent_wallet": agent.address, "amount_atomic": 10_000, "description": "x"}
    assert await together(*(shop.send("", body) for _ in range(10))) == {200: 3, 402: 7}
    assert await balance(api, agent) == 7_000
    rich = await payer(api, clerk, 9_000_000)
    body |= {"agent_wallet": rich.address, "amount_atomic": 300_000}
    assert await together(*(shop.send("", body) for _ in range(8))) == {200: 3, 403: 5}, "the day's bound"


async def test_a_refund_is_whole_once_and_to_the_lots_it_came_from(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk, gateway_fee_percent="10"), await payer(api, clerk, 300_000)
    lot = await fund(api, agent, 50_000, timedelta(days=3))
    made = await shop.charge(agent, 120_000)
    async with api.services.database.transaction() as connection:
        await connection.execute("UPDATE ledger.account SET expires_at = now() - interval '1 day' WHERE id = $1", lot)
    first = await shop.refund(made, "r-1")
    assert (first.status_code, first.json()["status"]) == (200, "refunded")
    async with api.services.database.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT balance, expires_at - now() AS lives FROM ledger.account WHERE id = $1", lot
        )
    assert row is not None
    assert row["balance"] == 50_000
    assert timedelta(days=5, hours=23) < row["lives"] <= timedelta(days=6), (
        "a lot lives for a week after it has expired"
    )
    assert (await balance(api, agent), await shop.has("earnings")) == (350_000, 0)
    assert (await shop.refund(made, "r-1")).text == first.text
    for key in (None, "r-2"):
        again = await shop.refund(made, key)
        assert (again.status_code, again.json()["charge_id"]) == (409, made["id"])
        assert again.json()["refunded_at"] in again.json()["detail"]
    assert (await shop.refund(made, "r-1", "another reason")).json()["type"] == "/problems/key-reused"
    assert (await shop.slash(made, 1)).status_code == 409
    assert await balance(api, agent) == 350_000


async def test_expired_credit_lives_again_for_one_week_and_never_longer(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk), await payer(api, clerk, 10_000)
    lot = await fund(api, agent, 50_000, timedelta(days=3))
    early, late = await shop.charge(agent, 30_000), await shop.charge(agent, 20_000)

    async def passes(time: timedelta) -> None:
        async with api.services.database.transaction() as connection:
            for table, column in (("account", "expires_at"), ("account", "lapsed_at"), ("transfer", "created_at")):
                which = "id" if table == "account" else "debit_account"
                await connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER")
                await connection.execute(
                    f"UPDATE ledger.{table} SET {column} = {column} - $2::interval WHERE {which} = $1", lot, time
                )
                await connection.execute(f"ALTER TABLE ledger.{table} ENABLE TRIGGER USER")

    await passes(timedelta(days=4))
    assert (await shop.refund(early)).status_code == 200
    assert await balance(api, agent) == 40_000, "it had expired when it was given back, and lives again"
    again = await shop.charge(agent, 30_000)
    await passes(timedelta(days=5))
    assert (await shop.refund(again)).status_code == 200
    assert await balance(api, agent) == 40_000, "the same week"
    again = await shop.charge(agent, 30_000)
    await passes(timedelta(days=2))
    for charge in (again, late):
        assert (await shop.refund(charge)).status_code == 200
        assert await balance(api, agent) == 10_000, "what comes later has expired as well"
    async with api.services.database.acquire() as connection:
        await expire_lots(api.services.database)
        assert await connection.fetchval("SELECT balance FROM ledger.account WHERE id = $1", lot) == 0


async def test_penalties_take_at_most_the_charge_and_a_refund_brings_them_back(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk, gateway_fee_percent="10"), await payer(api, clerk)
    made = await shop.charge(agent, 100_000)
    assert [(await shop.slash(made, 30_000, "s-1")).status_code for _ in range(3)] == [204] * 3
    assert await shop.status(made) == "partially_slashed"
    assert (await shop.slash(made, 30_001, "s-1")).json()["type"] == "/problems/key-reused"
    above = (await shop.slash(made, 70_001)).json()
    assert (above["status"], above["slashed_atomic"], above["left_atomic"]) == (409, 30_000, 70_000)
    assert (await shop.slash(made, 70_000, "s-2")).status_code == 204
    assert await shop.status(made) == "slashed"
    assert await balance(api, agent) == 800_000
    assert (await shop.has("earnings"), await shop.has("penalties")) == (90_000, 100_000), "no fee on penalties"
    history = (await api.call("GET", "/wallet/transactions", agent.member.key, expect=200)).json()["data"]
    newest = history["transactions"][0]
    assert (newest["source"], newest["amount_atomic"]) == ("penalty", -70_000)
    assert newest["description"] == f"{shop.slug}: not released"
    assert (await shop.refund(made)).json()["status"] == "refunded"
    assert (await balance(api, agent), await shop.has("earnings"), await shop.has("penalties")) == (1_000_000, 0, 0)
    assert (await shop.slash(made, 30_000, "s-1")).status_code == 204, "its answer of then"


async def test_nothing_is_taken_of_what_is_held_or_expired_or_meant_for_others(api: Api, clerk: Clerk) -> None:
    shop, other = await service(api, clerk), await service(api, clerk)
    agent = await payer(api, clerk, 300_000)
    stale = await fund(api, agent, 50_000, timedelta(days=3))
    async with api.services.database.transaction() as connection:
        await connection.execute("UPDATE ledger.account SET expires_at = now() - interval '1 day' WHERE id = $1", stale)
        for publisher, amount in ((shop.id, 10_000), (other.id, 70_000)):
            await deposit(
                connection, agent.wallet_id, publisher_id=UUID(publisher), reference=str(uuid7()), amount=amount,
                rail="eip155:8453",
            )  # fmt: skip
        account = await connection.fetchval(
            "SELECT ledger.earnings_account($1, asset_id) FROM ledger.wallet WHERE id = $2",
            UUID(other.id), agent.wallet_id,
        )  # fmt: skip
        held = Hold(uuid7(), agent.wallet_id, UUID(other.id), account, 170_000)
        assert [one.verdict for one in await post_holds(connection, [held], None, [], timedelta(days=7))] == ["held"]
    seen = await api.call("GET", f"/wallet/lookup/{agent.address}", shop.owner.key, expect=200)
    assert seen.json()["total_available_atomic"] == 200_000, "300,000 less what is held beyond the deposit of 70,000"
    assert (await shop.charge(agent, 210_001, expect=402))["availableBalanceAtomic"] == 210_000
    made = await shop.charge(agent, 150_000)
    short = (await shop.slash(made, 60_001)).json()
    assert (short["status"], short["availableBalanceAtomic"]) == (402, 60_000)
    assert (await shop.slash(made, 60_000)).status_code == 204
    async with api.services.database.transaction() as connection:
        end = Settlement(held.exchange_id, "voided", None, 0, 0)
        await post_holds(connection, [], None, [Capture(end, 0, 0)], timedelta(days=7))
    assert (await shop.refund(made)).status_code == 200
    assert await balance(api, agent) == 300_000


async def test_every_pair_at_once_ends_as_one_after_the_other(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk, per_day=100_000_000), await payer(api, clerk, 1_000_000)
    for _ in range(3):
        made = await shop.charge(agent, 100_000)
        assert await together(*(shop.refund(made) for _ in range(5))) == {200: 1, 409: 4}
        made = await shop.charge(agent, 100_000)
        assert await together(*(shop.slash(made, 30_000) for _ in range(5))) == {204: 3, 409: 2}
        await shop.refund(made)
        made = await shop.charge(agent, 100_000)
        assert await together(*(shop.slash(made, 100, "same") for _ in range(5))) == {204: 5}
        both = await asyncio.gather(*(shop.slash(made, 10_000) for _ in range(3)), shop.refund(made))
        assert both[-1].status_code == 200
        assert {one.status_code for one in both[:-1]} <= {204, 409}
        assert await shop.status(made) == "refunded"
        assert await balance(api, agent) == 1_000_000
    assert (await shop.has("earnings"), await shop.has("penalties")) == (0, 0)


async def record_of(api: Api, shop: Service) -> Record:
    async with api.services.database.acquire() as connection:
        return await FIND_ANY.one(connection, shop.slug)


async def test_what_was_paid_out_meanwhile_is_owed_by_the_publisher(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk), await payer(api, clerk)
    made, publisher = await shop.charge(agent, 100_000), await record_of(api, shop)
    async with api.services.database.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "SELECT ledger.move($1, 'payout', 0::smallint, a.id, ledger.platform_account(a.asset_id, 'suspense'), 90000, 0)"
            " FROM ledger.account a WHERE a.publisher_id = $2 AND a.purpose = 'earnings'", uuid7(), UUID(shop.id),
        )  # fmt: skip
        charged = await charges.find(connection, publisher, UUID(made["id"]))
        outcome = await charges.refund(connection, publisher, charged, "broken", None, timedelta(days=7))
        earned = await connection.fetchval(
            "SELECT sum(s.credits - s.debits) FROM ledger.account a JOIN ledger.shard s ON s.account_id = a.id"
            " WHERE a.publisher_id = $1 AND a.purpose = 'earnings'", UUID(shop.id),
        )  # fmt: skip
        await transaction.rollback()
    assert (outcome.verdict, outcome.amount, earned) == ("refunded", 100_000, -90_000)


async def test_a_charge_of_an_archived_month_stands(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk), await payer(api, clerk)
    made, publisher = await shop.charge(agent, 100_000), await record_of(api, shop)
    async with api.services.database.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO ledger.archive (upto, transfer_part, settlement_part) VALUES ($1, 'x', 'y')", uuid7()
        )
        charged = await charges.find(connection, publisher, UUID(made["id"]))
        refunded = await charges.refund(connection, publisher, charged, "broken", None, timedelta(days=7))
        slashed = await charges.slash(connection, publisher, charged, 1, "broken", None)
        await transaction.rollback()
    assert (refunded.verdict, slashed.verdict) == ("archived", "archived")


async def test_a_service_looks_before_it_charges_and_nobody_else_does(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk), await payer(api, clerk, 250_000)
    path = f"/wallet/lookup/{agent.address}"
    seen = await api.call("GET", path, shop.owner.key, expect=200)
    assert seen.json() == {"serenbucks_atomic": 250_000, "onchain_atomic": None, "total_available_atomic": 250_000}
    stranger, viewer = await clerk.agent(), await clerk.agent()
    await clerk.publisher(stranger)
    for key in (agent.member.key, stranger.key):
        refused = await api.call("GET", path, key, expect=404)
        assert refused.json()["detail"].startswith("Publisher not found")
    await clerk.join(viewer, shop.owner.organization_id, "viewer")
    await api.call("GET", path, viewer.key, expect=200)
    for address in (f"agent:{uuid4()}", "%00", "agent:1%00", "%F0%9F%92%B0"):
        await api.call("GET", f"/wallet/lookup/{address}", shop.owner.key, expect=404)


async def test_lookups_have_a_limit_of_their_own(api: Api, clerk: Clerk, database_url: str) -> None:
    shop, agent = await service(api, clerk), await payer(api, clerk)
    limits = api.services.settings.limits.model_copy(update={"lookups": 3})
    narrow, _ = await open_api(settings_for(database_url, limits=limits))
    try:
        path = f"/wallet/lookup/{agent.address}"
        asked = [await narrow.call("GET", path, shop.owner.key) for _ in range(4)]
    finally:
        await close_api(narrow)
    assert [one.status_code for one in asked] == [200, 200, 200, 429]
    assert int(asked[-1].headers["retry-after"]) > 0


async def test_both_sides_hear_of_it_and_the_publishers_log_has_it(api: Api, clerk: Clerk) -> None:
    shop, agent = await service(api, clerk), await payer(api, clerk)
    for who in (shop.owner, agent.member):
        hook = {
            "name": "Ours",
            "url": "http://127.0.0.1:9/hook",
            "events": ["charge.created", "charge.refunded", "charge.slashed"],
        }
        await api.call("POST", f"/organizations/{who.organization_id}/webhooks", who.key, json=hook, expect=201)
    made = await shop.charge(agent, 100_000)
    assert (await shop.slash(made, 1_000)).status_code == 204
    assert (await shop.refund(made)).status_code == 200
    rows = await api.services.database.read(
        lambda connection: connection.fetch(
            "SELECT action, metadata FROM audit.entry WHERE resource_id::text = $1 ORDER BY seq", made["id"]
        )
    )
    assert [row["action"] for row in rows] == ["charge.create", "charge.slash", "charge.refund"]
    assert rows[1]["metadata"]["changed"] == ["slashed"]
    assert rows[2]["metadata"]["refunded_atomic"] == "101000"
    for who in (shop.owner, agent.member):
        told = await api.services.database.read(
            lambda connection, who=who: connection.fetch(
                "SELECT type, data FROM webhook.event WHERE organization_id = $1 ORDER BY id", who.organization_id
            )
        )
        assert [one["type"] for one in told] == ["charge.created", "charge.slashed", "charge.refunded"]
        assert {one["data"]["charge_id"] for one in told} == {made["id"]}
        assert told[1]["data"]["penalty_atomic"] == "1000"
