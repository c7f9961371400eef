"""The bonus of a deposit goes back with its money, spent or not, and never becomes anybody's refund."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.ledger import proof
from tests.payments.stripe.stage import Stage

CENT = 10_000


@pytest.fixture(autouse=True)
async def sound(stage: Stage) -> Any:
    """After each test the books balance, and clearing is what Stripe has, but for what is being disputed."""
    yield
    report = await proof.verify(stage.connection)
    assert report.sound, report.violations
    assert await stage.clearing() == stage.at_stripe * CENT


async def test_a_deposit_that_goes_back_takes_its_bonus_along_whatever_was_spent(stage: Stage) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 50_000))
    await stage.spend(agent, 25_000_000)  # as much as the bonus; it is taken of the money
    expense = await stage.platform("promotional_expense")
    stage.stripe.refund(intent, 50_000)
    await stage.hears()
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["owed_atomic"]) == (0, 25_000_000)
    assert await stage.platform("promotional_expense") - expense == 25_000_000
    await stage.pays(await stage.deposit(agent, 3_000))
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["owed_atomic"]) == (5_000_000, 0)


async def test_what_was_spent_of_a_bonus_is_taken_of_other_money_and_is_owed_else(stage: Stage) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 10_000))
    await stage.spend(agent, 101_500_000)  # $0.50 of the bonus of $2.00 is left
    other = await stage.pays(await stage.deposit(agent, 10_000))
    refund = stage.stripe.refund(intent, 5_000)
    await stage.hears()
    balance = await stage.balance(agent)  # 100 - 50 - 0.50 of money, and the other bonus is nobody's refund
    assert (balance["balance_atomic"], balance["owed_atomic"]) == (49_500_000 + 2_000_000, 0)
    stage.stripe.fail_refund(refund["id"])
    await stage.hears()
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["owed_atomic"]) == (99_500_000 + 3_000_000, 0)
    stage.stripe.refund(intent, 10_000)
    stage.stripe.refund(other, 10_000)
    await stage.hears()
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["owed_atomic"]) == (0, 101_500_000)


@pytest.mark.parametrize("end", ["won", "lost"])
async def test_a_dispute_takes_the_bonus_along_as_a_refund_does(stage: Stage, end: str) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, 10_000))
    await stage.spend(agent, 101_000_000)
    dispute = stage.stripe.dispute(intent)
    await stage.hears()
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["frozen_balance_atomic"]) == (0, 1_000_000)
    stage.stripe.close(dispute["id"], end)
    await stage.hears()
    balance = await stage.balance(agent)
    expected = (1_000_000, 0) if end == "won" else (0, 101_000_000)
    assert (balance["balance_atomic"], balance["owed_atomic"]) == expected


async def test_an_operator_gives_back_what_is_unspent_unless_he_says_more(stage: Stage) -> None:
    agent = await stage.agent()
    deposit = await stage.deposit(agent, 50_000)
    await stage.pays(deposit)
    await stage.spend(agent, 25_000_000)
    name = deposit["deposit_id"]
    refusal = await stage.tollway("deposits", "refund", name, "--amount", "475.01", expect=1)
    assert "$475.00 of it can be given back and leave nothing owed" in refusal
    assert "gave $475.00" in await stage.tollway("deposits", "refund", name)
    balance = await stage.balance(agent)  # $25.00 are still paid for, and have earned their part of the bonus
    assert (balance["balance_atomic"], balance["owed_atomic"]) == (1_250_000, 0)
    assert "$0.00 of it can be given back" in await stage.tollway("deposits", "refund", name, expect=1)
    assert "gave $25.00" in await stage.tollway("deposits", "refund", name, "--spent-too")
    balance = await stage.balance(agent)
    assert (balance["balance_atomic"], balance["owed_atomic"]) == (0, 25_000_000)
