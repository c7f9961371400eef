"""The wallet: balance, bonuses, daily claims, history, deposits that wait for their rails."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gateway.billing import credits
from gateway.catalog.assets import asset_id
from gateway.ids import uuid7
from gateway.ledger import exchanges, proof, wallets
from gateway.ledger.entries import Charge, post
from gateway.settings import MoneySettings
from tests.admin_api.conftest import Api, Clerk, Member

USDC = asset_id("eip155:8453", "USDC")
SIGNUP, PAYMENT = "/wallet/bonus/signup", "/wallet/bonus/payment-method"


async def test_a_claimed_bonus_is_balance_and_a_transaction(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    claim = (await api.call("POST", SIGNUP, agent.key, expect=200)).json()["data"]
    assert claim == {"success": True, "bonus_type": "signup_bonus", "amount_atomic": 1_000_000, "amount_usd": "$1.00"}
    problem = (await api.call("POST", SIGNUP, agent.key, expect=409)).json()
    assert problem["type"] == "/problems/conflict"
    balance = (await api.call("GET", "/wallet/balance", agent.key)).json()["data"]
    assert (balance["balance_usd"], balance["promotional_balance_atomic"], balance["funded_balance_atomic"]) == (
        "$1.00",
        1_000_000,
        0,
    )
    assert balance["by_source"] == [
        {"source": "signup_bonus", "kind": "promotional", "balance_atomic": 1_000_000, "balance_usd": "$1.00"}
    ]
    assert balance["recovery_warning"]
    history = (await api.call("GET", "/wallet/transactions", agent.key)).json()["data"]
    assert (history["total"], history["limit"], history["offset"]) == (1, 50, 0)
    line = history["transactions"][0]
    assert (line["source"], line["amount_atomic"], line["remaining_usd"]) == ("signup_bonus", 1_000_000, "$1.00")
    expires = datetime.fromisoformat(line["expires_at"])
    assert timedelta(days=89) < expires - datetime.now(UTC) <= timedelta(days=90)


@pytest.mark.parametrize("path", [SIGNUP, "/wallet/daily/claim"])
async def test_twenty_claims_at_once_are_one_grant(api: Api, clerk: Clerk, path: str) -> None:
    agent = await clerk.agent()
    answers = await asyncio.gather(*(api.call("POST", path, agent.key) for _ in range(20)))
    refused = 409 if path == SIGNUP else 400
    assert sorted(answer.status_code for answer in answers) == [200] + [refused] * 19
    history = (await api.call("GET", "/wallet/transactions", agent.key)).json()["data"]
    assert history["total"] == 1


async def test_a_daily_claim_is_open_once_a_day(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    before = (await api.call("GET", "/wallet/daily/eligibility", agent.key)).json()["data"]
    assert before == {
        "can_claim": True,
        "claim_amount_usd": "$0.10",
        "claims_remaining_this_month": 10,
        "reason": None,
        "resets_in_seconds": None,
    }
    claimed = (await api.call("POST", "/wallet/daily/claim", agent.key, expect=200)).json()["data"]
    assert (claimed["amount_usd"], claimed["balance_usd"], claimed["claims_remaining_this_month"]) == (
        "$0.10",
        "$0.10",
        9,
    )
    problem = (await api.call("POST", "/wallet/daily/claim", agent.key, expect=400)).json()
    assert problem["type"] == "/problems/not-eligible"
    assert 0 < problem["resets_in_seconds"] <= 86_400
    after = (await api.call("GET", "/wallet/daily/eligibility", agent.key)).json()["data"]
    assert (after["can_claim"], after["claims_remaining_this_month"]) == (False, 9)
    assert 0 < after["resets_in_seconds"] <= 86_400


async def test_claims_end_with_the_months_allowance(api: Api, clerk: Clerk) -> None:
    agent, money = await clerk.agent(), MoneySettings()
    for day in range(1, 11):
        now = datetime(2026, 12, day, 12, tzinfo=UTC)
        state = await credits.claim_daily(api.services.database, agent.id, USDC, money, now)
        assert state.remaining == 10 - day
    with pytest.raises(Exception, match="claims of this month") as caught:
        await credits.claim_daily(
            api.services.database, agent.id, USDC, money, datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
        )
    assert getattr(caught.value, "fields")["resets_in_seconds"] == 1  # noqa: B009 - a Problem's member
    fresh = await credits.claim_daily(api.services.database, agent.id, USDC, money, datetime(2027, 1, 1, tzinfo=UTC))
    assert fresh.remaining == 9


async def test_the_payment_method_bonus_says_what_is_missing(api: Api, clerk: Clerk) -> None:
    problem = (await api.call("POST", PAYMENT, (await clerk.agent()).key, expect=409)).json()
    assert problem["missing"] == "payment_method"


async def test_history_has_calls_refunds_and_expiries_newest_first(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    shop = await clerk.publisher(agent)
    await api.call("POST", SIGNUP, agent.key, expect=200)
    async with api.services.database.acquire() as connection:
        wallet = await wallets.FIND_WALLET.one(connection, agent.id, USDC)
        account = await exchanges.EARNINGS_ACCOUNT.one(connection, shop["id"], USDC)
        spent, undone = uuid7(), uuid7()
        for exchange in (spent, undone):
            await post(connection, [Charge(exchange, wallet.id, shop["id"], account, 250_000, 0)], None, [])
        await exchanges.refund(connection, undone, reason="test", status=503, grace=timedelta(days=7), only_open=False)
    data = (await api.call("GET", "/wallet/transactions?limit=3", agent.key)).json()["data"]
    assert data["total"] == 4
    assert [(one["id"], one["amount_usd"]) for one in data["transactions"]] == [
        (str(undone), "$0.25"),
        (str(undone), "-$0.25"),
        (str(spent), "-$0.25"),
    ]
    assert data["transactions"][1]["description"] == shop["slug"]
    rest = (await api.call("GET", "/wallet/transactions?limit=3&offset=3", agent.key)).json()["data"]
    assert [(one["source"], one["remaining_usd"]) for one in rest["transactions"]] == [("signup_bonus", "$0.75")]
    path = f"/organizations/{agent.organization_id}/publishers/{shop['id']}/earnings"
    earned = (await api.call("GET", path, agent.key, expect=200)).json()["data"]
    assert [(row["total_revenue_atomic"], row["available"], row["request_count"]) for row in earned] == [
        (250_000, 0.0, 1)  # held back for a week
    ]
    stored = (await api.call("GET", f"/publishers/{shop['slug']}")).json()["data"]
    assert (stored["total_queries"], stored["unique_agents_served"]) == (1, 1)


async def test_an_expired_credit_is_no_balance(api: Api, clerk: Clerk) -> None:
    agent = await clerk.agent()
    async with api.services.database.acquire() as connection:
        wallet = await wallets.FIND_WALLET.one(connection, agent.id, USDC)
        past = datetime.now(UTC) - timedelta(days=1)
        await wallets.grant(
            connection, wallet.id, source="promo_code", reference="old", amount=900_000, expires_at=past
        )
    assert (await api.call("GET", "/wallet/balance", agent.key)).json()["data"]["balance_atomic"] == 0
    line = (await api.call("GET", "/wallet/transactions", agent.key)).json()["data"]["transactions"][0]
    assert (line["source"], line["amount_usd"], line["remaining_atomic"]) == ("promo_code", "$0.90", 0)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=-1", "offset=-1", "limit=x", f"offset={2**70}"])
async def test_a_page_out_of_range_names_its_bound(api: Api, clerk: Clerk, query: str) -> None:
    problem = (await api.call("GET", f"/wallet/transactions?{query}", (await clerk.agent()).key, expect=400)).json()
    assert problem["errors"][0]["field"] == query.partition("=")[0]


async def test_a_card_deposit_is_checked_and_then_not_available(api: Api, clerk: Clerk) -> None:
    agent, other = await clerk.agent(), await clerk.agent()
    code = (await api.call("GET", "/wallet/referral", other.key)).json()["data"]["referral_code"]
    own = (await api.call("GET", "/wallet/referral", agent.key)).json()["data"]["referral_code"]
    for body, field in (
        ({"amount_cents": 499}, "amount_cents"),
        ({"amount_cents": -500}, "amount_cents"),
        ({"amount_cents": "500"}, "amount_cents"),
        ({"amount_cents": True}, "amount_cents"),
        ({"amount_cents": 10**30}, "amount_cents"),
        ({}, "amount_cents"),
        ({"amount_cents": 500, "referral_code": "NOBODY22"}, "referral_code"),
        ({"amount_cents": 500, "referral_code": own}, "referral_code"),
    ):
        problem = (await api.call("POST", "/wallet/deposit", agent.key, json=body, expect=400)).json()
        assert problem["errors"][0]["field"] == field
    body = {"amount_cents": 500, "referral_code": code}
    problem = (await api.call("POST", "/wallet/deposit", agent.key, json=body, expect=501)).json()
    assert problem["type"] == "/problems/rail-not-available"
    assert "TOLLWAY_STRIPE_SECRET_KEY and TOLLWAY_STRIPE_WEBHOOK_SECRETS" in problem["detail"]


async def test_a_chain_deposit_is_checked_and_then_not_available(api: Api, clerk: Clerk) -> None:
    shop = await clerk.publisher(await clerk.agent())
    path = "/wallet/deposit/crypto"
    nobody = {"publisher_id": str(uuid7()), "amount": "1"}
    await api.call("POST", path, json=nobody, expect=404)
    foreign = {"publisher_id": shop["id"], "amount": "1", "asset_id": str(USDC)}
    for body, field in (
        (foreign, "asset_id"),
        ({"publisher_id": shop["id"], "amount": "0.0000001"}, "amount"),
        ({"publisher_id": shop["id"], "amount": "0"}, "amount"),
        ({"publisher_id": shop["id"], "amount": 1}, "amount"),
        ({"publisher_id": "x", "amount": "1"}, "publisher_id"),
    ):
        assert (await api.call("POST", path, json=body, expect=400)).json()["errors"][0]["field"] == field
    await api.call("POST", path, json={"publisher_id": shop["id"], "amount": "10.50"}, expect=501)


async def test_a_referral_rewards_the_referrer_when_the_bonus_is_claimed(api: Api, clerk: Clerk) -> None:
    referrer, friend = await clerk.agent(), await clerk.agent()
    info = (await api.call("GET", "/wallet/referral", referrer.key)).json()["data"]
    assert info["referral_code"] in info["referral_url"]
    path, code = "/wallet/referral/apply", info["referral_code"]
    await api.call("POST", path, referrer.key, json={"referral_code": code}, expect=400)
    await api.call("POST", path, friend.key, json={"referral_code": "NOBODY22"}, expect=400)
    sloppy = f" {code[:4].lower()}-{code[4:].lower()} "
    assert (await api.call("POST", path, friend.key, json={"referral_code": sloppy}, expect=200)).json() == {}
    await api.call("POST", path, friend.key, json={"referral_code": code}, expect=409)
    friends = (await api.call("GET", "/wallet/referral", friend.key)).json()["data"]["referral_code"]
    await api.call("POST", path, referrer.key, json={"referral_code": friends}, expect=400)
    pending = (await api.call("GET", "/wallet/referral", referrer.key)).json()["data"]
    assert (pending["total_referrals"], pending["pending_earnings_usd"], pending["total_earnings_usd"]) == (
        1,
        "$0.50",
        "$0.00",
    )
    await api.call("POST", SIGNUP, friend.key, expect=200)
    earned = (await api.call("GET", "/wallet/referral", referrer.key)).json()["data"]
    assert (earned["pending_earnings_usd"], earned["total_earnings_usd"]) == ("$0.00", "$0.50")
    balance = (await api.call("GET", "/wallet/balance", referrer.key)).json()["data"]
    assert balance["balance_atomic"] == 500_000


async def earned_by(api: Api, referrer: Member) -> str:
    return (await api.call("GET", "/wallet/referral", referrer.key)).json()["data"]["total_earnings_usd"]


async def test_a_referrer_who_is_named_after_the_bonus_is_rewarded_at_once(api: Api, clerk: Clerk) -> None:
    referrer, friend = await clerk.agent(), await clerk.agent()
    code = (await api.call("GET", "/wallet/referral", referrer.key)).json()["data"]["referral_code"]
    await api.call("POST", SIGNUP, friend.key, expect=200)
    await api.call("POST", "/wallet/referral/apply", friend.key, json={"referral_code": code}, expect=200)
    assert await earned_by(api, referrer) == "$0.50"
    await api.call("POST", SIGNUP, friend.key, expect=409)
    assert await earned_by(api, referrer) == "$0.50"


async def test_a_referrer_who_is_named_while_the_bonus_is_claimed_is_rewarded_once(api: Api, clerk: Clerk) -> None:
    referrer, friends = await clerk.agent(), [await clerk.agent() for _ in range(8)]
    code = (await api.call("GET", "/wallet/referral", referrer.key)).json()["data"]["referral_code"]
    apply, body = "/wallet/referral/apply", {"referral_code": code}
    calls = [api.call("POST", SIGNUP, friend.key, expect=200) for friend in friends]
    calls += [api.call("POST", apply, friend.key, json=body, expect=200) for friend in friends]
    await asyncio.gather(*calls)
    assert await earned_by(api, referrer) == "$4.00"


async def test_two_who_name_each_other_at_once_are_not_both_rewarded(api: Api, clerk: Clerk) -> None:
    for _ in range(4):
        pair = [await clerk.agent(), await clerk.agent()]
        codes = [(await api.call("GET", "/wallet/referral", one.key)).json()["data"]["referral_code"] for one in pair]
        answers = await asyncio.gather(
            *(
                api.call("POST", "/wallet/referral/apply", one.key, json={"referral_code": code})
                for one, code in zip(pair, reversed(codes), strict=True)
            )
        )
        assert sorted(answer.status_code for answer in answers) == [200, 400]


async def test_agents_that_referred_each_other_in_a_ring_claim_at_once_without_deadlock(api: Api, clerk: Clerk) -> None:
    ring = [await clerk.agent() for _ in range(4)]
    codes = [(await api.call("GET", "/wallet/referral", one.key)).json()["data"]["referral_code"] for one in ring]
    for position, one in enumerate(ring):
        body = {"referral_code": codes[position - 1]}
        await api.call("POST", "/wallet/referral/apply", one.key, json=body, expect=200)
    answers = await asyncio.gather(*(api.call("POST", SIGNUP, one.key) for one in ring))
    assert [answer.status_code for answer in answers] == [200] * 4


async def test_the_books_balance_after_all_this(api: Api) -> None:
    async with api.services.database.acquire() as connection:
        report = await proof.verify(connection)
    assert report.sound, report.violations
