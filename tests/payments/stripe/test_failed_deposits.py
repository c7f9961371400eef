"""A payment that fails after it was credited is taken back and shows; a deposit in dispute is not given back."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from gateway.billing.card_rows import COUNT, FREEZE, LOCK_VERSION
from gateway.database.pool import connect
from gateway.ledger import proof
from gateway.settings import DatabaseSettings
from tests.payments.stripe.stage import Stage
from tests.support.stripe_server import FAILURE_FEE

CENT = 10_000


@pytest.fixture(autouse=True)
async def sound(stage: Stage) -> Any:
    """After each test the books balance, and clearing is what Stripe has, but for what is being disputed."""
    yield
    report = await proof.verify(stage.connection)
    assert report.sound, report.violations
    assert await stage.clearing() == stage.at_stripe * CENT


def refunds(stage: Stage, intent: str) -> int:
    return sum(one["payment_intent"] == intent for one in stage.stripe.made("refund"))


@pytest.mark.parametrize("intent_status", ["requires_payment_method", "canceled", None])
async def test_a_payment_that_fails_after_it_was_credited_is_taken_back(
    stage: Stage, intent_status: str | None
) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 10_000)
    session = stage.session_of(deposit)
    intent = stage.stripe.pay(session, waits=True)["id"]
    stage.stripe.arrive(session)
    await stage.hears()
    await stage.spend(agent, 4_000_000)
    fees = await stage.platform("card_fees")
    stage.stripe.fail_later(intent, intent_status=intent_status)
    await stage.hears(times=2)
    balance = await stage.balance(agent)  # the bonus of $2.00 went with it
    assert (balance["balance_atomic"], balance["owed_atomic"]) == (0, 4_000_000)
    assert fees - await stage.platform("card_fees") == FAILURE_FEE * CENT
    name = deposit["deposit_id"]
    shown = await stage.tollway("deposits", "show", name)
    assert "failed after it was credited" in shown
    assert "$100.00  taken back: the payment failed, $4.00 of it spent before" in shown
    assert name in await stage.tollway("deposits", "list", "--failed-later")
    for more in ([], ["--spent-too"], ["--amount", "1"]):
        refusal = await stage.tollway("deposits", "refund", name, *more, expect=1)
        assert "failed after it was credited: there is nothing to give back" in refusal
    assert refunds(stage, intent) == 0
    await stage.pays(await stage.deposit(agent, 1_000))
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["owed_atomic"]) == (6_000_000, 0)


async def test_without_any_event_a_later_failure_is_found(stage: Stage) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 1_000)
    stage.stripe.fail_later(await stage.pays(deposit))
    stage.take_events()
    async with asyncio.timeout(60):
        while (await stage.balance(agent))["balance_atomic"]:
            await stage.connection.execute(
                "UPDATE card.deposit SET checked_at = now() - interval '2 days' WHERE id = $1",
                UUID(deposit["deposit_id"]),
            )
            await asyncio.sleep(0.1)
    assert await stage.state(deposit) == "paid"
    actions = await stage.connection.fetch(
        "SELECT action FROM audit.entry WHERE chain = $1 AND action LIKE 'deposit.%' ORDER BY seq",
        agent.organization_id,
    )
    assert [row["action"] for row in actions][-1] == "deposit.fail"


async def test_a_failure_takes_what_refunds_and_disputes_have_left(stage: Stage) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 10_000))
    stage.stripe.refund(intent, 2_500)
    stage.stripe.dispute(intent, 1_500)
    await stage.hears()
    stage.stripe.fail_later(intent)
    await stage.hears()
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["frozen_balance_atomic"], balance["owed_atomic"]) == (0, 0, 0)


async def test_money_of_a_failed_payment_that_comes_after_all_is_credited_again(stage: Stage) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 10_000)
    intent = await stage.pays(deposit)
    stage.stripe.fail_later(intent)
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 0
    stage.stripe._charge(stage.stripe.store[intent])
    await stage.hears()
    charge = stage.stripe.store[stage.stripe.store[intent]["latest_charge"]]
    stage.stripe._event("charge.updated", charge)
    await stage.hears(times=2)
    assert (await stage.balance(agent))["balance_atomic"] == 102_000_000
    assert "paid after all" in await stage.tollway("deposits", "show", deposit["deposit_id"])


async def test_money_that_is_nobodys_fails_too(stage: Stage) -> None:
    deposit = await stage.deposit(await stage.agent(), 5_000)
    before = await stage.platform("suspense")
    intent = stage.stripe.pay(stage.session_of(deposit), cents=4_000)["id"]
    await stage.hears()
    stage.stripe.fail_later(intent)
    await stage.hears()
    assert await stage.platform("suspense") == before


async def test_a_deposit_in_dispute_is_not_given_back_until_the_dispute_is_won(stage: Stage) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 3_000)
    name, intent = deposit["deposit_id"], await stage.pays(deposit)
    await stage.pays(await stage.deposit(agent, 9_000))  # money that a refund could take
    dispute = stage.stripe.dispute(intent, 1_000)
    stage.take_events()  # no event arrives: Stripe is asked before money goes back
    for more in ([], ["--spent-too"], ["--amount", "1", "--spent-too"]):
        refusal = await stage.tollway("deposits", "refund", name, *more, expect=1)
        assert "A dispute of it is open" in refusal
        assert "once it is won" in refusal
    assert "in dispute" in await stage.tollway("deposits", "show", name)
    assert refunds(stage, intent) == 0
    stage.stripe.close(dispute["id"], "won")
    assert "gave $30.00" in await stage.tollway("deposits", "refund", name)


async def test_a_deposit_whose_dispute_was_lost_is_never_given_back(stage: Stage) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 3_000)
    name, intent = deposit["deposit_id"], await stage.pays(deposit)
    await stage.pays(await stage.deposit(agent, 9_000))
    stage.stripe.close(stage.stripe.dispute(intent)["id"], "lost")
    await stage.hears()
    for more in ([], ["--spent-too"]):
        assert "dispute of it was lost" in await stage.tollway("deposits", "refund", name, *more, expect=1)
    assert refunds(stage, intent) == 0
    assert (await stage.balance(agent))["balance_atomic"] == 90_000_000


async def test_an_inquiry_lets_money_go_back_and_what_stripe_refuses_is_said(stage: Stage) -> None:
    deposit = await stage.deposit(await stage.agent(), 3_000)
    name, intent = deposit["deposit_id"], await stage.pays(deposit)
    inquiry = stage.stripe.dispute(intent, inquiry=True)
    assert "gave $10.00" in await stage.tollway("deposits", "refund", name, "--amount", "10")
    inquiry.update(currency="jpy", status="needs_response")  # a dispute that is not booked here
    refusal = await stage.tollway("deposits", "refund", name, expect=1)
    assert "Stripe refuses" in refusal
    assert "nothing was given back" in refusal
    inquiry["status"] = "warning_closed"
    await stage.hears()


async def test_a_dispute_that_is_booked_meanwhile_stops_a_refund(stage: Stage, database_url: str) -> None:
    """The command waits for the deposit's lock, and reads again what has become of it."""
    deposit = await stage.deposit(await stage.agent(), 3_000)
    name, intent = deposit["deposit_id"], await stage.pays(deposit)
    rival = await connect(DatabaseSettings(url=database_url))
    async with rival.transaction():
        await LOCK_VERSION.one(rival, UUID(name))
        refund = asyncio.create_task(stage.tollway("deposits", "refund", name, "--spent-too", expect=1))
        async with asyncio.timeout(60):
            while not await rival.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not refund.done()
                await asyncio.sleep(0.02)
        dispute = stage.stripe.dispute(intent)
        await FREEZE.one(rival, UUID(name), dispute["id"], 3_000)
        await COUNT.run(rival, UUID(name))
    await rival.close()
    assert "A dispute of it is open" in await refund
    assert refunds(stage, intent) == 0
    await stage.hears()
