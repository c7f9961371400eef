"""Paying what is due on an invoice by card: one open intent at a time, and what Stripe says became of it.

There is one way in which a payment changes here: what Stripe has of it is asked for (`learn`), and then booked in one
transaction, if nobody has learnt anything newer meanwhile. Events, the reconciler and whoever asks to pay again take
that way, so it does not matter which comes first, or how often. Money for an invoice that needs none any more goes back
to its card. What does not live here: the booking (booking.py), the rail (gateway/payments/stripe).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from gateway.audit.entries import record
from gateway.billing.invoices import booking, issuing
from gateway.billing.invoices.records import Invoice, find
from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, InvalidRequest, Unavailable
from gateway.ids import uuid7
from gateway.payments.stripe.client import StripeDoor, StripeRefused
from gateway.payments.stripe.facts import UNDONE, Intent, PaymentFacts, id_of
from gateway.payments.stripe.intake import (
    OF_MADE_PAYMENTS,
    Event,
    Intake,
    Outdated,
    Work,
    bring_up_to_date,
    look_after,
)
from gateway.request_body import LINES, UNSTORABLE

log = logging.getLogger(__name__)

FAILED = "payment_intent.payment_failed"
EVENTS = (
    *("payment_intent.succeeded", FAILED, "payment_intent.canceled", "charge.failed"),
    *OF_MADE_PAYMENTS,
)
MARK = "tollway_invoice"
"""In an intent's metadata: the invoice that it is for."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to pay, or what became of its money, as it stands."""

    id: UUID
    intent_id: str
    charge_id: str | None
    status: str
    cents: int
    failure_code: str | None
    failure_message: str | None
    attempted_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Learnt:
    """What Stripe has of a payment, asked for when its row had this version. `stray`: nobody needs it."""

    intent: Intent
    payment: PaymentFacts | None
    version: int
    stray: bool
    at: datetime


OPEN_INTENT = Statement("SELECT id FROM invoice.intent WHERE invoice_id = $1 AND state = 'open'", str, scalar=True)
COUNT_INTENTS = Statement("SELECT count(*) FROM invoice.intent WHERE invoice_id = $1", int, scalar=True)
INSERT_INTENT = Command(
    """
    WITH made AS (
        INSERT INTO invoice.intent (id, invoice_id, cents, state) VALUES ($1, $2, $3, $5)
        ON CONFLICT DO NOTHING RETURNING id, made_at
    )
    INSERT INTO invoice.attempt (id, intent_id, token, status, attempted_at)
    SELECT $4, made.id, '', 'pending', made.made_at FROM made
    """
)
END_INTENT = Command("UPDATE invoice.intent SET state = $2 WHERE id = $1 AND state <> 'succeeded'")
END_ATTEMPT = Command(
    """
    UPDATE invoice.attempt SET status = $2, transaction_id = $3, ended_at = $4, failure_message = $5
     WHERE intent_id = $1 AND token = '' AND status = 'pending'
    """
)
INSERT_FAILURE = Command(
    """
    INSERT INTO invoice.attempt (id, intent_id, token, transaction_id, status, failure_code, failure_message,
                                 attempted_at, ended_at)
    VALUES ($1, $2, $3, $4, 'failed', $5, $6, $7, $7) ON CONFLICT (intent_id, token) DO NOTHING
    """
)
# Whoever has learnt something new adds one; one that is not written down yet is at zero.
VERSION = Statement("SELECT version FROM invoice.intent WHERE id = $1", int, scalar=True)
NOTE = Command("UPDATE invoice.intent SET checked_at = now() WHERE id = $1 AND version = $2")
COUNT = Command("UPDATE invoice.intent SET version = version + 1 WHERE id = $1")
# Open ones ever more seldom, paid ones for as long as banks may ask for money back.
DUE = Statement(
    """
    UPDATE invoice.intent SET checked_at = now() WHERE id IN (
        SELECT id FROM invoice.intent
         WHERE (state = 'open' AND checked_at < now() - greatest($1::interval * 5, (now() - made_at) / 10))
            OR (cause_id IS NOT NULL AND checked_at < now() - interval '1 day'
                AND made_at > now() - interval '200 days')
         ORDER BY checked_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING id
    """,
    str,
    scalar=True,
)
IS_UNDECIDED = Statement(
    """
    SELECT EXISTS (SELECT FROM invoice.back b JOIN invoice.intent i ON i.id = b.intent_id
                    WHERE i.invoice_id = $1 AND b.undecided)
    """,
    bool,
    scalar=True,
)
ATTEMPTS = Statement(
    """
    SELECT a.id, a.intent_id, a.transaction_id AS charge_id, a.status, i.cents, a.failure_code, a.failure_message,
           a.attempted_at, a.ended_at
      FROM invoice.intent i JOIN invoice.attempt a ON a.intent_id = i.id
     WHERE i.invoice_id = $1
     UNION ALL
    SELECT b.cause_id, b.intent_id, b.id, CASE WHEN b.kind = 'refund' AND b.returned_cause IS NULL THEN 'refunded'
                                               WHEN b.kind = 'refund' THEN 'refund_failed'
                                               WHEN b.kind = 'failure' AND b.returned_cause IS NULL THEN 'failed_later'
                                               WHEN b.kind = 'failure' THEN 'paid_after_all'
                                               WHEN b.undecided THEN 'disputed'
                                               WHEN b.returned_cause IS NULL THEN 'dispute_lost' ELSE 'dispute_won' END,
           b.cents, NULL, NULL, b.made_at, NULL
      FROM invoice.intent i JOIN invoice.back b ON b.intent_id = i.id
     WHERE i.invoice_id = $1
     ORDER BY attempted_at DESC, id DESC
    """,
    Attempt,
)


class InvoicePayments:
    """Card payments of invoices."""

    def __init__(self, database: Database, door: StripeDoor, recheck_seconds: float) -> None:
        self._database, self._door, self._recheck = database, door, timedelta(seconds=recheck_seconds)

    def listen(self, intake: Intake) -> InvoicePayments:
        """Have what Stripe says of these payments, and return this."""
        intake.on(EVENTS, self._on_event)
        return self

    async def begin(self, invoice_id: UUID) -> Intent:
        """Return the open intent of an invoice, made if there is none; the client pays it with its secret.

        Raises NotFound, RailNotAvailable, Unavailable, or InvalidRequest where nothing is to be paid.
        """
        self._door.demand()
        async with self._database.transaction() as connection:
            invoice = await issuing.demand(connection, invoice_id)
            _demand_payable(invoice, is_undecided=await IS_UNDECIDED.one(connection, invoice_id))
            open_id = await OPEN_INTENT.first(connection, invoice_id)
            number = await COUNT_INTENTS.one(connection, invoice_id)
        cents = invoice.open // invoice.cent
        if open_id is not None:
            intent = await self._door.find_intent(open_id)
            if intent.status not in ("succeeded", "canceled"):
                if intent.cents == cents:
                    return intent
                # More or less has become due meanwhile.
                if not await self._close(open_id):
                    raise Unavailable("This invoice is just being paid; ask again.", retry_after=5)
            await self.check(open_id)
            return await self.begin(invoice_id)
        # The same key gives the same intent: to whoever asks at once, and after a crash before it is written down.
        intent = await self._door.create_intent(
            cents, f"invoice-{invoice_id}-{number}-{cents}", metadata={MARK: str(invoice_id)},
            description=f"Invoice {invoice.label}",
        )  # fmt: skip
        return await self._written(invoice_id, intent)

    async def _written(self, invoice_id: UUID, intent: Intent) -> Intent:
        """Write a new intent down, unless nothing is to be paid any more: then it is closed again."""
        async with self._database.transaction() as connection:
            invoice = await issuing.demand(connection, invoice_id)
            payable = invoice.status == "issued"
            if payable and await INSERT_INTENT.run(connection, intent.id, invoice_id, intent.cents, uuid7(), "open"):
                await record(
                    connection, "invoice.begin_payment", invoice.organization_id, invoice_id,
                    details={"number": invoice.label, "payment_intent": intent.id},
                )  # fmt: skip
        if not payable:
            await self._close(intent.id)
            _demand_payable(invoice, is_undecided=False)
        return intent

    async def close(self, invoice_id: UUID) -> None:
        """End the open intent of an invoice. Raises Conflict when it is being paid, or a bank decides on its money."""
        async with self._database.acquire() as connection:
            if await IS_UNDECIDED.one(connection, invoice_id):
                raise Conflict("A bank decides on money of this invoice; wait for that.")
            open_id = await OPEN_INTENT.first(connection, invoice_id)
        if open_id is None:
            return
        if not await self._close(open_id):
            raise Conflict("This invoice is just being paid; wait for what becomes of that.")
        async with self._database.transaction() as connection:
            await issuing.demand(connection, invoice_id)
            await END_INTENT.run(connection, open_id, "canceled")
            await END_ATTEMPT.run(connection, open_id, "canceled", None, datetime.now(UTC), None)

    async def void(self, invoice_id: UUID, reason: str) -> Invoice:
        """End an issued invoice's open intent, and take it back. Raises NotFound, or Conflict where it is too late."""
        await self.close(invoice_id)
        async with self._database.transaction() as connection:
            await issuing.demand(connection, invoice_id)
            if await OPEN_INTENT.first(connection, invoice_id) is not None:
                raise Conflict("Somebody has just begun to pay this invoice; try again.")
            return await issuing.void(connection, invoice_id, reason)

    async def _close(self, intent_id: str) -> bool:
        try:
            await self._door.cancel_intent(intent_id, f"cancel-{intent_id}")
        except StripeRefused:
            return (await self._door.find_intent(intent_id)).status == "canceled"
        return True

    async def check(self, intent_id: str) -> None:
        """Bring a payment up to date, whatever events have told of it. Raises Unavailable."""
        await bring_up_to_date(self._database, lambda: self.learn(intent_id, datetime.now(UTC)))

    async def reconcile(self) -> None:
        """Look after payments whose events may be lost. Any number of workers may."""
        if not self._door.is_open:
            return
        async with self._database.acquire() as connection:
            due = await DUE.all(connection, self._recheck, 50)
        await look_after("payment", due, self.check)

    async def _on_event(self, event: Event) -> Work | None:
        if event.type.startswith("payment_intent."):
            named, is_ours = event.object_id, MARK in event.metadata
        else:
            named = id_of(event.object.get("payment_intent"))
            is_ours = named is not None and MARK in await self._door.marks(named)
        if named is None or not is_ours:
            return None
        learnt = await self.learn(named, event.created_at)
        if event.type != FAILED:
            return learnt
        intent = await self._door.find_intent(named)

        async def work(connection: Connection) -> None:
            await _note_failure(connection, event, intent)
            if learnt is not None:
                await learnt(connection)

        return work

    async def learn(self, intent_id: str, at: datetime) -> Work | None:
        """Ask Stripe what became of a payment, and return the work that books it; None when it is for no invoice."""
        async with self._database.acquire() as connection:
            version = await VERSION.first(connection, intent_id)
        try:
            intent, payment = await self._door.payment(intent_id)
        except StripeRefused:
            if version is None:
                return None
            raise
        if MARK not in intent.metadata:
            return None
        async with self._database.acquire() as connection:
            invoice = await find(connection, invoice_of(intent))
            failed_later = intent.has_failed and await booking.IS_BOOKED.one(connection, intent.id)
            stray = payment is not None and invoice is not None and await _is_stray(connection, invoice, payment)
        if invoice is None:
            log.error("payment %s is for an invoice that does not exist", intent.id)
            return None
        if failed_later and intent.status not in ("succeeded", "canceled"):
            await self._close(intent.id)  # or it could be paid again, beside the payment that is begun next
        if payment is not None and stray:
            payment = await self._given_back(payment)
        learnt = Learnt(intent, payment, version or 0, stray, at)
        return lambda connection: _note(connection, learnt)

    async def _given_back(self, payment: PaymentFacts) -> PaymentFacts:
        """Give a payment that nobody needs back to its card, and return what has become of it."""
        left = payment.cents - sum(one.cents for one in payment.refunds if one.status not in UNDONE)
        if left > 0:
            try:
                await self._door.refund(payment.intent, left, f"unneeded-{payment.intent}-{left}")
            except StripeRefused as error:
                log.error("payment %s is not needed, and cannot be given back: %s", payment.intent, error)
        return (await self._door.payment(payment.intent))[1] or payment


def _demand_payable(invoice: Invoice, *, is_undecided: bool) -> None:
    """Raise InvalidRequest unless something is to be paid."""
    if is_undecided:
        raise InvalidRequest(f"A bank decides on money of invoice {invoice.label}; pay it once that has ended.")
    if invoice.status == "issued":
        return
    why = {
        "draft": "is a draft: it is paid once it is issued",
        "paid": "is paid",
        "void": "is void",
    }[invoice.status]
    raise InvalidRequest(f"Invoice {invoice.label} {why}; nothing is to be paid.")


def invoice_of(intent: Intent) -> UUID:
    """Return the invoice that an intent of ours is for."""
    try:
        return UUID(intent.metadata[MARK])
    except (KeyError, ValueError):
        return UUID(int=0)


async def _known(connection: Connection, intent: Intent) -> Invoice | None:
    """Return an intent's invoice, locked, with the intent written down: its first answer to us may have been lost."""
    if await find(connection, invoice_of(intent)) is None:
        return None
    invoice = await issuing.demand(connection, invoice_of(intent))
    await INSERT_INTENT.run(connection, intent.id, invoice.id, intent.cents, uuid7(), "canceled")
    return invoice


async def _is_stray(connection: Connection, invoice: Invoice, payment: PaymentFacts) -> bool:
    return not booking.is_wanted(invoice, payment) and not await booking.IS_BOOKED.one(connection, payment.intent)


async def _note(connection: Connection, learnt: Learnt) -> None:
    """Write down what was learnt of a payment, and book what is new of it. Raises Outdated."""
    intent, payment = learnt.intent, learnt.payment
    invoice = await _known(connection, intent)
    if invoice is None:
        return
    if not await NOTE.run(connection, intent.id, learnt.version):
        raise Outdated
    if payment is None:
        if intent.has_failed and await booking.IS_BOOKED.one(connection, intent.id):
            if await booking.fail(connection, invoice, intent):
                await COUNT.run(connection, intent.id)
        elif intent.status == "canceled":
            await _end(connection, intent, "canceled", learnt.at)
        return
    if await _is_stray(connection, invoice, payment) != learnt.stray:
        raise Outdated
    if learnt.stray:
        log.warning("payment %s was not needed: invoice %s is %s", intent.id, invoice.label, invoice.status)
        await _end(connection, intent, "canceled", learnt.at, f"Given back: the invoice was {invoice.status} already.")
    elif not await booking.IS_BOOKED.one(connection, intent.id):
        await _end(connection, intent, "succeeded", learnt.at)
    if await booking.book(connection, invoice, payment, learnt.at):
        await COUNT.run(connection, intent.id)


async def _end(connection: Connection, intent: Intent, state: str, at: datetime, reason: str | None = None) -> None:
    await END_INTENT.run(connection, intent.id, state)
    await END_ATTEMPT.run(connection, intent.id, state, intent.charge, at, reason)


async def _note_failure(connection: Connection, event: Event, intent: Intent) -> None:
    """Write a failed try down. It moves no money, so what the event says of it is believed."""
    if await _known(connection, intent) is None:
        return
    said = event.object.get("last_payment_error")
    error = cast("Mapping[str, object]", said if isinstance(said, Mapping) else {})
    charge = id_of(error.get("charge"))
    code, message = _short(error.get("decline_code") or error.get("code")), _short(error.get("message"))
    await INSERT_FAILURE.run(
        connection, uuid7(), intent.id, charge or event.id, charge, code, message, event.created_at
    )  # fmt: skip


def _short(text: object) -> str | None:
    """Return a text of Stripe's as it can be stored and shown: without control characters, on one line."""
    return LINES.sub(" ", UNSTORABLE.sub(" ", text))[:500] if isinstance(text, str) else None


async def attempts(connection: Connection, invoice_id: UUID) -> list[Attempt]:
    """Return every try to pay an invoice, the newest first."""
    return await ATTEMPTS.all(connection, invoice_id)
