"""Card money of invoices: paid, given back, disputed and paid again, in any order, to the cent of Stripe's balance."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from gateway.billing.invoices.issuing import issue
from gateway.billing.invoices.month import month_of
from gateway.ids import uuid7
from gateway.ledger import proof
from gateway.plans import load_plans
from gateway.settings import InvoiceSettings
from tests.payments.stripe.stage import Stage
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.stripe_server import FAILURE_FEE, KEY, SIGNING, StripeServer
from tests.support.world import Agent

CENT = 10_000
SELLER = InvoiceSettings(seller_name="Tollway", seller_address="1 Road")
LAST = month_of(datetime.now(UTC).date().replace(day=1) - timedelta(days=1))
PRICE = 10_000  # cents a month


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str, stripe: StripeServer) -> AsyncIterator[RunningGateway]:
    """A gateway that takes cards and sells in its own name."""
    running = await start_gateway(
        services, database_url, STRIPE_SECRET_KEY=KEY, STRIPE_WEBHOOK_SECRETS=SIGNING, STRIPE_API_BASE=stripe.url,
        STRIPE_RECHECK="1", INVOICES_SELLER_NAME=SELLER.seller_name, INVOICES_SELLER_ADDRESS=SELLER.seller_address,
    )  # fmt: skip
    yield running
    await running.stop()


@dataclass
class Bill:
    """An issued invoice of $100, and what happens to its money. `heard` are events that may come again."""

    stage: Stage
    agent: Agent
    id: UUID
    heard: list[Any] = field(default_factory=list)

    async def shown(self) -> Any:
        return await self.stage.get(self.agent, f"/billing/invoices/{self.id}")

    async def stands(self) -> tuple[str, float]:
        shown = await self.shown()
        return shown["status"], shown["amount_due_usd"]

    async def begin(self) -> str | None:
        """Begin to pay, if something is to be paid."""
        answer = await self.stage.post(self.agent, f"/billing/invoices/{self.id}/pay", {})
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 400:
            return None
        begun = answer.json()["data"]
        assert begun["amount_usd"] == (await self.shown())["amount_due_usd"]
        return begun["payment_intent_id"]

    async def pay(self) -> str:
        intent = await self.begin()
        assert intent is not None
        self.stage.stripe.confirm(intent)
        return intent

    def mine(self, kind: str) -> list[Any]:
        store = self.stage.stripe.store
        return [
            one
            for one in self.stage.stripe.made(kind)
            if store[one["payment_intent"]]["metadata"].get("tollway_invoice") == str(self.id)
        ]

    async def hear(self, chance: random.Random) -> None:
        """Deliver some of what was not, some of it twice, and some of what was, at once and in any order."""
        waiting = self.stage.stripe.events
        chance.shuffle(waiting)
        number = chance.randint(0, len(waiting))
        now, waiting[:] = waiting[:number], waiting[number:]
        now += chance.sample(self.heard, min(len(self.heard), 2)) + now[:2]
        self.heard += now
        answers = await asyncio.gather(*(self.stage.stripe.deliver(one, self.stage.gateway.url) for one in now))
        assert {answer.status_code for answer in answers} <= {200, 503}
        waiting += [one for one, answer in zip(now, answers, strict=True) if answer.status_code != 200]

    async def step(self, chance: random.Random) -> None:
        stripe = self.stage.stripe
        good = [one for one in self.mine("charge") if one["status"] == "succeeded"]
        free = [one for one in good if not one["disputed"]]
        left = [one for one in free if one["amount_captured"] > one["amount_refunded"]]
        sent = [one for one in self.mine("refund") if one["status"] == "succeeded"]
        undecided = [one for one in self.mine("dispute") if one["status"] == "needs_response"]
        match chance.choice(("pay", "stray", "refund", "fail", "fail later", "dispute", "close", "hear", "hear")):
            case "pay":
                intent = await self.begin()
                if intent is not None:
                    stripe.confirm(intent)
            case "stray":  # by an intent whose answer was lost
                named = {"tollway_invoice": str(self.id)}
                stripe.confirm(stripe._intent(chance.choice((PRICE, 1_234)), "usd", named, None)["id"])
            case "refund" if left:
                charge = chance.choice(left)
                stripe.refund(
                    charge["payment_intent"], chance.randint(1, charge["amount_captured"] - charge["amount_refunded"])
                )
            case "fail" if sent:
                refund = chance.choice(sent)
                charge = stripe.store[refund["charge"]]
                if charge["status"] == "succeeded" and not charge["disputed"]:
                    stripe.fail_refund(refund["id"])
            case "fail later" if good and chance.random() < 0.5:
                await self.stage.hears()  # what was before: of a failed payment Stripe is not asked for more
                became = chance.choice(("requires_payment_method", "canceled", None))
                stripe.fail_later(chance.choice(good)["payment_intent"], intent_status=became)
            case "dispute" if left:
                stripe.dispute(chance.choice(left)["payment_intent"])
            case "close" if undecided:
                stripe.close(chance.choice(undecided)["id"], chance.choice(("won", "lost")))
            case _:
                await self.hear(chance)

    def brought(self) -> int:
        """Return what this invoice's payments have brought at Stripe, in cents, before fees."""
        names = {one["id"] for kind in ("charge", "refund", "dispute") for one in self.mine(kind)}
        return sum(one["amount"] for one in self.stage.stripe.movements if one["source"] in names)

    async def adds_up(self) -> None:
        """Hold the invoice against Stripe, once all was heard."""
        owed = -await self.stage.platform("receivable", f"organization:{self.agent.organization_id}")
        assert owed == (PRICE - self.brought()) * CENT
        assert await self.stands() == (("issued", owed / 1_000_000) if owed > 0 else ("paid", 0.0))


async def billed(stage: Stage, number: int) -> list[Bill]:
    """Make organizations that owe $100 for their plan of last month."""
    agents = [await stage.agent() for _ in range(number)]
    plan = load_plans().named("pro")
    assert plan is not None
    terms = {"display_name": "Pro", "price_monthly": "100", "included_calls": None, "overage_price": None}
    for agent in agents:
        await stage.connection.execute(
            "INSERT INTO identity.organization_plan (id, organization_id, plan_id, terms, started_at)"
            " VALUES ($1, $2, $3, $4, $5)",
            uuid7(), agent.organization_id, plan.id, terms, LAST.start,
        )  # fmt: skip
    await stage.tollway("invoices", "generate", "--month", str(LAST))
    bills: list[Bill] = []
    for agent in agents:
        invoice_id = await stage.connection.fetchval(
            "SELECT id FROM invoice.invoice WHERE organization_id = $1", agent.organization_id
        )
        async with stage.connection.transaction():
            await issue(stage.connection, SELLER, invoice_id)
        bills.append(Bill(stage, agent, invoice_id))
    return bills


async def everything_adds_up(stage: Stage) -> None:
    report = await proof.verify(stage.connection)
    assert report.sound, report.violations
    assert await stage.clearing() == stage.stripe.balance * CENT


async def test_what_goes_back_is_due_again_and_a_dispute_waits_for_its_bank(stage: Stage) -> None:
    (bill,) = await billed(stage, 1)
    intent = await bill.pay()
    await stage.hears(2)
    assert await bill.stands() == ("paid", 0.0)
    stage.stripe.refund(intent, 1_000)
    await stage.hears(2)
    assert await bill.stands() == ("issued", 10.0)
    await everything_adds_up(stage)
    again = await bill.pay()
    assert stage.stripe.store[again]["amount"] == 1_000
    await stage.hears()
    assert await bill.stands() == ("paid", 0.0)
    won, lost = stage.stripe.dispute(again), stage.stripe.dispute(intent)
    await stage.hears()
    assert await bill.stands() == ("issued", 100.0)
    assert await bill.begin() is None
    stage.stripe.close(won["id"], "won")
    stage.stripe.close(lost["id"], "lost")
    await stage.hears(2)
    assert await bill.stands() == ("issued", 90.0)
    stage.stripe.close(lost["id"], "appeal_under_review")  # and nobody has won it
    await stage.hears()
    assert await bill.stands() == ("issued", 90.0)
    await everything_adds_up(stage)
    history = await stage.get(bill.agent, f"/billing/invoices/{bill.id}/payments")
    assert sorted((one["status"], one["amount_usd"]) for one in history["payments"]) == [
        ("dispute_lost", 90.0), ("dispute_won", 10.0), ("refunded", 10.0), ("succeeded", 10.0), ("succeeded", 100.0),
    ]  # fmt: skip
    # More goes back while it is being paid: the next one who asks pays all of it.
    waiting = await bill.begin()
    stage.stripe.refund(again, 400)
    await stage.hears()
    last = await bill.pay()
    assert (stage.stripe.store[str(waiting)]["status"], stage.stripe.store[last]["amount"]) == ("canceled", 9_400)
    await stage.hears()
    await bill.adds_up()
    await everything_adds_up(stage)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_any_life_of_an_invoices_money_adds_up(stage: Stage, seed: int) -> None:
    chance = random.Random(seed)
    bills = await billed(stage, 3)
    for bill in bills:
        await bill.pay()
        for _ in range(14):
            await bill.step(chance)
    await stage.hears()
    for bill in bills:
        await bill.adds_up()
    await everything_adds_up(stage)


async def test_a_burst_of_events_of_one_payment_is_taken_at_once(stage: Stage) -> None:
    (bill,) = await billed(stage, 1)
    intent = await bill.pay()
    for _ in range(8):
        stage.stripe.refund(intent, 100)
    stage.stripe.close(stage.stripe.dispute(intent, 3_000)["id"], "won")
    sent = [stage.stripe.deliver(event, stage.gateway.url) for event in stage.take_events()]
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200}
    assert await bill.stands() == ("issued", 8.0)
    await everything_adds_up(stage)


async def test_what_no_event_told_is_found_by_the_job(stage: Stage) -> None:
    (bill,) = await billed(stage, 1)
    intent = await bill.pay()
    await _found(bill, "paid")
    stage.stripe.refund(intent, PRICE)
    await _found(bill, "issued")
    await everything_adds_up(stage)
    stage.take_events()


@pytest.mark.parametrize("intent_status", ["requires_payment_method", "canceled", None])
async def test_a_payment_that_fails_after_it_was_booked_is_due_again_and_shows(
    stage: Stage, intent_status: str | None
) -> None:
    (bill,) = await billed(stage, 1)
    hook = await _hook(bill)
    intent = await bill.pay()
    await stage.hears()
    stage.stripe.refund(intent, 1_000)
    await stage.hears()
    fees = await stage.platform("card_fees")
    stage.stripe.fail_later(intent, intent_status=intent_status)
    await stage.hears(2)
    assert await bill.stands() == ("issued", 100.0)
    assert fees - await stage.platform("card_fees") == FAILURE_FEE * CENT
    shown = await bill.shown()
    assert (shown["payment_reversal"], shown["payment_reversed_at"] is not None) == ("payment_failed", True)
    (row,) = [line for line in (await _reversed(stage)).splitlines() if str(bill.id) in line]
    assert "payment failed after it was paid" in row
    history = await stage.get(bill.agent, f"/billing/invoices/{bill.id}/payments")
    assert ("failed_later", 90.0) in {(one["status"], one["amount_usd"]) for one in history["payments"]}
    assert (await _logged(bill))[-1] == "invoice.fail"
    assert (await _events(bill, hook))[-1] == {"type": "invoice.due_again", "reason": "payment_failed"}
    # By its old link nobody can pay it beside the next payment.
    assert stage.stripe.store[intent]["status"] in ("canceled", "succeeded")
    await bill.pay()
    await stage.hears()
    assert await bill.stands() == ("paid", 0.0)
    await everything_adds_up(stage)


async def test_a_disputed_payment_shows_and_one_that_fails_then_is_lost(stage: Stage) -> None:
    (bill,) = await billed(stage, 1)
    hook = await _hook(bill)
    intent = await bill.pay()
    await stage.hears()
    stage.stripe.dispute(intent, 4_000)
    await stage.hears()
    assert (await bill.shown())["payment_reversal"] == "disputed"
    assert "disputed after it was paid" in await _reversed(stage)
    assert (await _events(bill, hook))[-1] == {"type": "invoice.due_again", "reason": "disputed"}
    assert await bill.begin() is None
    stage.stripe.fail_later(intent)
    await stage.hears()
    assert await bill.stands() == ("issued", 100.0)
    assert (await _logged(bill))[-2:] == ["invoice.dispute_lost", "invoice.fail"]
    await everything_adds_up(stage)
    won, again = (await billed(stage, 1))[0], "won"
    dispute = stage.stripe.dispute(await won.pay())
    await stage.hears()
    stage.stripe.close(dispute["id"], again)
    await stage.hears()
    assert (await won.shown())["payment_reversal"] is None


async def test_money_of_a_failed_payment_that_comes_after_all_is_not_due(stage: Stage) -> None:
    (bill,) = await billed(stage, 1)
    intent = await bill.pay()
    await stage.hears()
    charge = stage.stripe.store[stage.stripe.store[intent]["latest_charge"]]
    stage.stripe.fail_later(intent, intent_status=None)
    await stage.hears()
    assert await bill.stands() == ("issued", 100.0)
    charge.update(status="succeeded", paid=True)
    stage.stripe._moves("charge", PRICE, 0, charge["id"])
    stage.stripe._event("charge.updated", charge)
    await stage.hears(2)
    assert await bill.stands() == ("paid", 0.0)
    assert (await bill.shown())["payment_reversal"] is None
    await everything_adds_up(stage)


async def _hook(bill: Bill) -> str:
    """Register a webhook that nobody listens to: what it is told is read from the outbox."""
    made = await bill.stage.post(
        bill.agent, f"/organizations/{bill.agent.organization_id}/webhooks",
        {"name": "Bills", "url": "https://example.com/bills", "events": ["*"]},
    )  # fmt: skip
    return made.json()["data"]["webhook"]["id"]


async def _events(bill: Bill, hook: str) -> list[dict[str, str | None]]:
    rows = await bill.stage.connection.fetch(
        "SELECT e.type, e.data->>'reason' AS reason FROM webhook.event e JOIN webhook.delivery d ON d.event_id = e.id"
        " WHERE d.endpoint_id = $1 ORDER BY e.created_at",
        UUID(hook),
    )
    return [dict(row) for row in rows]


async def _logged(bill: Bill) -> list[str]:
    rows = await bill.stage.connection.fetch(
        "SELECT action FROM audit.entry WHERE chain = $1 AND action LIKE 'invoice.%' ORDER BY seq",
        bill.agent.organization_id,
    )
    return [row["action"] for row in rows]


async def _reversed(stage: Stage) -> str:
    return await stage.tollway("invoices", "list", "--reversed")


async def _found(bill: Bill, status: str) -> None:
    """Let the job come round at once, and wait until it has made this of an invoice."""
    async with asyncio.timeout(60):
        while (await bill.stands())[0] != status:
            await bill.stage.connection.execute(
                "UPDATE invoice.intent SET checked_at = now() - interval '2 days' WHERE invoice_id = $1"
                " AND checked_at > now() - interval '1 day'",
                bill.id,
            )
            await asyncio.sleep(0.1)


async def test_stripes_words_are_stored_without_control_characters(stage: Stage) -> None:
    (bill,) = await billed(stage, 1)
    intent = await bill.begin()
    assert intent is not None
    it = stage.stripe.store[intent]
    stage.stripe._event(
        "payment_intent.payment_failed",
        {**it, "last_payment_error": {"code": "card_declined\x1b[2J", "message": "No.\nPaid\x9b31m"}},
    )
    await stage.hears()
    history = await stage.get(bill.agent, f"/billing/invoices/{bill.id}/payments")
    (failed,) = [one for one in history["payments"] if one["status"] == "failed"]
    assert (failed["failure_code"], failed["failure_message"]) == ("card_declined [2J", "No. Paid 31m")
