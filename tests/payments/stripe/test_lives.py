"""The whole life of card money in any order: no order of events makes money, loses it, or spends it twice.

A machine does what people, banks and a bad network can do. After each step the wallet is what a model in plain cents
says; at the end all events arrive once more, and the books equal Stripe's balance to the cent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.billing.card_deposits import MOST_OPEN
from gateway.ledger import proof
from tests.payments.stripe.stage import PRICE, Stage
from tests.support.world import USDC, Agent

CENT = 10_000
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("deposit"), st.integers(500, 20_000)),
        st.tuples(st.just("pay"), st.integers(0, 9)),
        st.tuples(st.just("spend"), st.integers(1, 6)),
        st.tuples(st.just("refund"), st.integers(0, 9), st.integers(1, 100)),
        st.tuples(st.just("fail_refund"), st.integers(0, 9)),
        st.tuples(st.just("dispute"), st.integers(0, 9)),
        st.tuples(st.just("close"), st.integers(0, 9), st.sampled_from(["won", "lost"])),
        st.tuples(st.just("hear"), st.integers(0, 2**32)),
    ),
    min_size=6,
    max_size=22,
)


@dataclass
class Life:
    """One agent's dealings. `heard` are events that were delivered, which may come again."""

    stage: Stage
    agent: Agent
    spent: int = 0
    deposits: list[Any] = field(default_factory=list)
    heard: list[Any] = field(default_factory=list)

    async def do(self, step: tuple[Any, ...]) -> None:
        name, *given = step
        await getattr(self, name)(*given)

    async def deposit(self, cents: int) -> None:
        if len(self.deposits) < MOST_OPEN:
            self.deposits.append(await self.stage.deposit(self.agent, cents))

    async def pay(self, which: int) -> None:
        await self._with(self._sessions("open"), which, lambda one: self.stage.stripe.pay(one["id"]))

    async def spend(self, times: int) -> None:
        for _ in range(times):
            before = (await self.stage.balance(self.agent))["balance_atomic"]
            answer = await self.stage.call(self.agent)
            assert answer.status_code == (200 if before >= PRICE else 402)
            self.spent += PRICE if answer.status_code == 200 else 0

    async def refund(self, which: int, percent: int) -> None:
        def back(charge: Any) -> None:
            left = charge["amount_captured"] - charge["amount_refunded"]
            if not charge["disputed"] and left * percent // 100:
                self.stage.stripe.refund(charge["payment_intent"], left * percent // 100)

        await self._with(self._mine("charge"), which, back)

    async def fail_refund(self, which: int) -> None:
        found = [one for one in self._mine("refund") if one["status"] == "succeeded" and not self._disputed(one)]
        await self._with(found, which, lambda one: self.stage.stripe.fail_refund(one["id"]))

    async def dispute(self, which: int) -> None:
        found = [
            one
            for one in self._mine("charge")
            if not one["disputed"] and one["amount_captured"] > one["amount_refunded"]
        ]
        await self._with(found, which, lambda one: self.stage.stripe.dispute(one["payment_intent"]))

    async def close(self, which: int, end: str) -> None:
        found = [one for one in self._mine("dispute") if one["status"] == "needs_response"]
        await self._with(found, which, lambda one: self.stage.stripe.close(one["id"], end))

    async def hear(self, seed: int) -> None:
        """Deliver some of what was not, and some of what was, in any order and several at once."""
        chance = random.Random(seed)
        waiting = self.stage.stripe.events
        chance.shuffle(waiting)
        number = chance.randint(0, len(waiting))
        now, self.stage.stripe.events[:] = waiting[:number], waiting[number:]
        now += chance.sample(self.heard, min(len(self.heard), 3)) + now[:2]
        self.heard += now
        answers = await asyncio.gather(*(self.stage.stripe.deliver(one, self.stage.gateway.url) for one in now))
        again = [one for one, answer in zip(now, answers, strict=True) if answer.status_code != 200]
        assert {answer.status_code for answer in answers} <= {200, 503}
        self.stage.stripe.events.extend(again)  # as Stripe does with what was not taken

    async def settle(self) -> None:
        """Let everything be heard, once more and in order."""
        await self.stage.hears()
        for one in self.heard[-5:]:
            assert (await self.stage.stripe.deliver(one, self.stage.gateway.url)).status_code == 200

    def kept(self) -> int:
        """Return what Stripe says was paid and has not gone back, in cents; what is disputed has not yet."""
        charges = self._mine("charge")
        lost = sum(one["amount"] for one in self._mine("dispute") if one["status"] == "lost")
        return sum(one["amount_captured"] - one["amount_refunded"] for one in charges) - lost

    def bonus(self) -> int:
        """Return what bonuses are for what is kept, in hundredths of cents; what is disputed is not kept while it is."""
        total = 0
        for charge in self._mine("charge"):
            percent = 5 if charge["amount_captured"] >= 50_000 else 2 if charge["amount_captured"] >= 10_000 else 0
            disputed = [one for one in self._mine("dispute") if one["payment_intent"] == charge["payment_intent"]]
            lost = sum(one["amount"] for one in disputed if one["status"] == "lost")
            total += (charge["amount_captured"] - charge["amount_refunded"] - lost) * percent
        return total

    async def _with(self, found: list[Any], which: int, act: Callable[[Any], Any]) -> None:
        if found:
            act(found[which % len(found)])

    def _sessions(self, status: str) -> list[Any]:
        ids = {one["deposit_id"] for one in self.deposits}
        return [
            one
            for one in self.stage.stripe.made("checkout.session")
            if one["client_reference_id"] in ids and one["status"] == status
        ]

    def _mine(self, kind: str) -> list[Any]:
        intents = {one["payment_intent"] for one in self._sessions("complete")}
        return [one for one in self.stage.stripe.made(kind) if one["payment_intent"] in intents]

    def _disputed(self, refund: Any) -> bool:
        return self.stage.stripe.store[refund["charge"]]["disputed"]


async def live(stage: Stage, steps: list[tuple[Any, ...]]) -> None:
    life = Life(stage, await stage.agent())
    for step in steps:
        await life.do(step)
    await life.settle()
    balance = await stage.balance(life.agent)
    has = balance["balance_atomic"] + balance["frozen_balance_atomic"] - balance["owed_atomic"]
    bonus = await bonus_of(stage, life.agent)
    assert has == life.kept() * CENT + bonus - life.spent
    assert bonus == life.bonus() * CENT // 100, "of each deposit what is kept has its part of the bonus, spent or not"
    await everything_adds_up(stage)


async def bonus_of(stage: Stage, agent: Agent) -> int:
    """Return what promotional money is in the agent's hands or was spent: granted, less what was taken back or is owed."""
    return int(
        await stage.connection.fetchval(
            "SELECT coalesce(sum(CASE WHEN t.debit_account = p.id THEN t.amount ELSE -t.amount END), 0)"
            "  FROM ledger.transfer t JOIN ledger.account p ON p.id IN (t.debit_account, t.credit_account)"
            "  JOIN ledger.account o ON o.id IN (t.debit_account, t.credit_account) AND o.id <> p.id"
            " WHERE p.purpose = 'promotional_expense'"
            "   AND (t.wallet_id = $1 OR (o.purpose = 'receivable' AND o.rail = 'account:' || $2::text))",
            agent.wallet_id,
            str(agent.id),
        )
    )


async def everything_adds_up(stage: Stage) -> None:
    report = await proof.verify(stage.connection)
    assert report.sound, report.violations
    assert await stage.clearing() == stage.at_stripe * CENT
    nothing = await stage.connection.fetchval(
        "SELECT coalesce((SELECT sum(balance) FROM ledger.account WHERE asset_id = $1 AND balance IS NOT NULL), 0)"
        " + coalesce((SELECT sum(s.credits - s.debits) FROM ledger.shard s JOIN ledger.account a ON a.id = s.account_id"
        " WHERE a.asset_id = $1), 0)",
        UUID(str(USDC)),
    )
    assert nothing == 0


def examples(number: int) -> Any:
    return settings(
        max_examples=number, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def run(stage: Stage, loop: asyncio.AbstractEventLoop, number: int) -> None:
    @examples(number)
    @given(steps=STEPS)
    def lives(steps: list[tuple[Any, ...]]) -> None:
        asyncio.run_coroutine_threadsafe(live(stage, [("deposit", 12_000), ("pay", 0), *steps]), loop).result(120)

    lives()


async def test_any_life_of_card_money_adds_up(stage: Stage) -> None:
    await asyncio.to_thread(run, stage, asyncio.get_running_loop(), 8)


@pytest.mark.slow
async def test_many_lives_of_card_money_add_up(stage: Stage) -> None:
    await asyncio.to_thread(run, stage, asyncio.get_running_loop(), 60)
