"""Operators' refunds of deposits: stored before Stripe hears of them, sent once whatever dies, bounded by four eyes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from gateway.ledger import proof
from tests.payments.stripe.stage import Stage
from tests.support import forking

BOUND = "20000000"  # $20.00


class Operator:
    """Somebody with a name of his own at the machine, so that what others did in other tests counts for them alone."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage, self.name = stage, f"{name}-{uuid4().hex[:8]}"

    async def tollway(self, *arguments: str, expect: int = 0, **variables: str) -> str:
        env = {
            **self.stage.gateway.environment,
            "TOLLWAY_MONEY_FOUR_EYES_ABOVE": BOUND,
            "LOGNAME": self.name,
            **variables,
        }
        done = await asyncio.to_thread(forking.run, *arguments, env=env, merged=True)
        assert done.returncode == expect, done.stdout
        return done.stdout


@pytest_asyncio.fixture
async def alice(stage: Stage) -> Operator:
    return Operator(stage, "alice")


@pytest_asyncio.fixture
async def bob(stage: Stage) -> Operator:
    return Operator(stage, "bob")


@pytest_asyncio.fixture(autouse=True)
async def sound(stage: Stage) -> AsyncIterator[None]:
    yield
    report = await proof.verify(stage.connection)
    assert report.sound, report.violations


def refunds(stage: Stage, intent: str) -> list[int]:
    return [one["amount"] for one in stage.stripe.made("refund") if one["payment_intent"] == intent]


async def paid(stage: Stage, cents: int) -> tuple[Any, str, str]:
    """Let an agent make a deposit; return it, the deposit's id and its payment."""
    agent = await stage.agent()
    deposit = await stage.deposit(agent, cents)
    return agent, deposit["deposit_id"], await stage.pays(deposit)


async def shown(stage: Stage, deposit: str, what: str) -> None:
    """Wait until `tollway deposits show` says something."""
    async with asyncio.timeout(60):
        while what not in await stage.tollway("deposits", "show", deposit):
            await asyncio.sleep(0.1)


async def now(stage: Stage, deposit: str) -> None:
    """Let the patience with whoever sends the orders of a deposit be over."""
    await stage.connection.execute("UPDATE card.refund_order SET send_at = now() WHERE deposit_id = $1", deposit)


async def test_above_the_bound_another_operator_approves_and_a_gateway_sends_it(
    stage: Stage, alice: Operator, bob: Operator
) -> None:
    agent, deposit, intent = await paid(stage, 3_000)
    said = await alice.tollway("deposits", "refund", deposit)
    assert said.startswith("nothing moved yet: refund to its card of $30.00 waits"), said
    assert await alice.tollway("deposits", "refund", deposit) == said  # the same request waits once
    approval = said.split()[-1]
    assert "another operator" in await alice.tollway("approvals", "approve", approval, expect=1)
    assert refunds(stage, intent) == []
    assert "approved by bob" in await bob.tollway("approvals", "approve", approval)
    await shown(stage, deposit, "$30.00  given back")
    assert refunds(stage, intent) == [3_000]
    assert (await stage.balance(agent))["balance_atomic"] == 0
    assert "This request is approved" in await bob.tollway("approvals", "approve", approval, expect=1)
    assert "$0.00 of it can be given back" in await alice.tollway("deposits", "refund", deposit, expect=1)
    kept = await bob.tollway("audit", "list", "--limit", "20")
    assert re.search(rf"deposit\.give_back.*{alice.name}", kept.replace("\n", " ")), kept


async def test_an_approval_at_the_same_time_many_times_sends_one_refund(
    stage: Stage, alice: Operator, bob: Operator
) -> None:
    _, deposit, intent = await paid(stage, 5_000)
    approval = (await alice.tollway("deposits", "refund", deposit, "--amount", "25")).split()[-1]
    env = {**stage.gateway.environment, "LOGNAME": bob.name}
    tries = [asyncio.to_thread(forking.run, "approvals", "approve", approval, env=env, merged=True) for _ in range(4)]
    assert sorted(done.returncode for done in await asyncio.gather(*tries)) == [0, 1, 1, 1]
    await shown(stage, deposit, "$25.00  given back")
    assert refunds(stage, intent) == [2_500]


async def test_refunds_count_together_and_with_what_else_is_moved(stage: Stage, alice: Operator) -> None:
    agent, deposit, intent = await paid(stage, 3_000)
    assert "gave $15.00" in await alice.tollway("deposits", "refund", deposit, "--amount", "15")
    assert "nothing moved yet" in await alice.tollway("deposits", "refund", deposit, "--amount", "5.01")
    granted = await alice.tollway("wallet", "grant", str(agent.id), "5.01", "--reference", str(uuid4()))
    assert granted.startswith("nothing moved yet"), granted
    assert "another request" in (await alice.tollway("deposits", "refund", deposit, "--amount", "6", expect=1)).lower()
    assert refunds(stage, intent) == [1_500]


async def test_what_was_spent_meanwhile_is_judged_anew(stage: Stage, alice: Operator, bob: Operator) -> None:
    agent, deposit, intent = await paid(stage, 3_000)
    approval = (await alice.tollway("deposits", "refund", deposit)).split()[-1]
    await stage.spend(agent, 1_000_000)
    assert "$29.00 of it can be given back" in await bob.tollway("approvals", "approve", approval, expect=1)
    await bob.tollway("approvals", "decline", approval)
    more = (await alice.tollway("deposits", "refund", deposit, "--spent-too")).split()[-1]
    await bob.tollway("approvals", "approve", more)
    await shown(stage, deposit, "$30.00  given back")
    assert refunds(stage, intent) == [3_000]
    assert (await stage.balance(agent))["owed_atomic"] == 1_000_000


@pytest.mark.parametrize(("point", "before"), [("deposit_refund.ordered", []), ("deposit_refund.sent", [1_200])])
async def test_a_command_that_dies_has_sent_one_refund_in_the_end(
    stage: Stage, alice: Operator, point: str, before: list[int]
) -> None:
    agent, deposit, intent = await paid(stage, 3_000)
    refund = ("deposits", "refund", deposit, "--amount", "12")
    await alice.tollway(*refund, expect=-9, TOLLWAY_FAULT=f"{point}:kill")
    assert refunds(stage, intent) == before
    stage.stripe._kept.clear()  # as Stripe forgets keys after a day
    stage.take_events()
    await now(stage, deposit)
    await shown(stage, deposit, "$12.00  given back")
    assert refunds(stage, intent) == [1_200]
    assert (await stage.balance(agent))["balance_atomic"] == 18_000_000


async def test_the_same_command_carries_on_with_an_order_that_was_not_sent(stage: Stage, alice: Operator) -> None:
    _, deposit, intent = await paid(stage, 3_000)
    refund = ("deposits", "refund", deposit, "--amount")
    await alice.tollway(*refund, "12", expect=-9, TOLLWAY_FAULT="deposit_refund.ordered:kill")
    assert "ordered, not yet sent" in await alice.tollway("deposits", "show", deposit)
    assert "$12.00 of this deposit is on its way" in await alice.tollway(*refund, "7", expect=1)
    assert "gave $12.00" in await alice.tollway(*refund, "12")
    assert "gave $7.00" in await alice.tollway(*refund, "7")
    assert refunds(stage, intent) == [1_200, 700]


async def test_what_stripe_refuses_is_ended_and_shown(stage: Stage, alice: Operator) -> None:
    _, deposit, intent = await paid(stage, 1_000)
    inquiry = stage.stripe.dispute(intent, inquiry=True)
    inquiry.update(currency="jpy", status="needs_response")  # a dispute that is not booked here
    assert "Stripe refuses" in await alice.tollway("deposits", "refund", deposit, expect=1)
    assert "refused by Stripe" in await alice.tollway("deposits", "show", deposit)
    inquiry["status"] = "warning_closed"
    await stage.hears()
    assert "gave $10.00" in await alice.tollway("deposits", "refund", deposit)
    assert refunds(stage, intent) == [1_000]
