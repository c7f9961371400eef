"""Paying what is due on an invoice by card: one open intent at a time, and what Stripe says became of it.

The payment of an intent pays its invoice once, whichever comes first: the event, its repetition, or whoever asks to pay
again. Money for an invoice that needs none any more goes back to its card. What does not live here: the booking
(issuing.py), the rail (gateway/payments/stripe).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from gateway.audit.entries import record
from gateway.billing.invoices import issuing
from gateway.billing.invoices.records import CURRENCY, Invoice, find
from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, InvalidRequest
from gateway.ids import uuid7
from gateway.payments.stripe.client import StripeDoor, StripeRefused
from gateway.payments.stripe.facts import Intent, id_of
from gateway.payments.stripe.intake import Event, Intake, Outdated, Work

log = logging.getLogger(__name__)

EVENTS = ("payment_intent.succeeded", "payment_intent.payment_failed", "payment_intent.canceled")
MARK = "tollway_invoice"
"""In an intent's metadata: the invoice that it is for."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to pay, as it stands."""

    id: UUID
    intent_id: str
    charge_id: str | None
    status: str
    cents: int
    failure_code: str | None
    failure_message: str | None
    attempted_at: datetime
    ended_at: datetime | None


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
ATTEMPTS = Statement(
    """
    SELECT a.id, a.intent_id, a.transaction_id AS charge_id, a.status, i.cents, a.failure_code, a.failure_message,
           a.attempted_at, a.ended_at
      FROM invoice.intent i JOIN invoice.attempt a ON a.intent_id = i.id
     WHERE i.invoice_id = $1 ORDER BY a.attempted_at DESC, a.id DESC
    """,
    Attempt,
)


class InvoicePayments:
    """Card payments of invoices."""

    def __init__(self, database: Database, door: StripeDoor) -> None:
        self._database, self._door = database, door

    def listen(self, intake: Intake) -> None:
        """Have what Stripe says of these payments."""
        intake.on(EVENTS, self._on_event)

    async def begin(self, invoice_id: UUID) -> tuple[Invoice, Intent]:
        """Return the open intent of an invoice, made if there is none; the client pays it with its secret.

        Raises NotFound, RailNotAvailable, Unavailable, or InvalidRequest where nothing is to be paid.
        """
        self._door.demand()
        async with self._database.transaction() as connection:
            invoice = await issuing.demand(connection, invoice_id)
            _demand_payable(invoice)
            open_id = await OPEN_INTENT.first(connection, invoice_id)
            number = await COUNT_INTENTS.one(connection, invoice_id)
        if open_id is not None:
            intent = await self._door.find_intent(open_id)
            if intent.status not in ("succeeded", "canceled"):
                return invoice, intent
            await self._settle(intent, datetime.now(UTC))
            return await self.begin(invoice_id)
        # The same key gives the same intent: to whoever asks at once, and after a crash before it is written down.
        intent = await self._door.create_intent(
            invoice.due // invoice.cent, f"invoice-{invoice_id}-{number}", metadata={MARK: str(invoice_id)},
            description=f"Invoice {invoice.label}",
        )  # fmt: skip
        return await self._written(invoice_id, intent)

    async def _written(self, invoice_id: UUID, intent: Intent) -> tuple[Invoice, Intent]:
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
            _demand_payable(invoice)
        return invoice, intent

    async def close(self, invoice_id: UUID) -> None:
        """End the open intent of an invoice that is to be void. Raises Conflict when it is being paid."""
        async with self._database.acquire() as connection:
            open_id = await OPEN_INTENT.first(connection, invoice_id)
        if open_id is None:
            return
        if not await self._close(open_id):
            raise Conflict("This invoice is just being paid; wait for what becomes of that.")
        async with self._database.transaction() as connection:
            await issuing.demand(connection, invoice_id)
            await END_INTENT.run(connection, open_id, "canceled")
            await END_ATTEMPT.run(connection, open_id, "canceled", None, datetime.now(UTC), None)

    async def _close(self, intent_id: str) -> bool:
        try:
            await self._door.cancel_intent(intent_id, f"cancel-{intent_id}")
        except StripeRefused:
            return (await self._door.find_intent(intent_id)).status == "canceled"
        return True

    async def _on_event(self, event: Event) -> Work | None:
        if MARK not in event.metadata:
            return None
        intent = await self._door.find_intent(event.object_id)
        if event.type == "payment_intent.payment_failed":
            return lambda connection: _note_failure(connection, event, intent)
        return await self._outcome(intent, event.created_at)

    async def _settle(self, intent: Intent, at: datetime) -> None:
        """Have done what an intent's end means, without an event."""
        work = await self._outcome(intent, at)
        if work is not None:
            async with self._database.transaction() as connection:
                await work(connection)

    async def _outcome(self, intent: Intent, at: datetime) -> Work | None:
        """Return what follows from an intent as it stands."""
        if intent.status == "canceled":
            return lambda connection: _note_canceled(connection, intent, at)
        if intent.status != "succeeded":
            return None
        async with self._database.acquire() as connection:
            invoice = await find(connection, invoice_of(intent))
        if invoice is None:
            log.error("payment %s is for an invoice that does not exist", intent.id)
            return None
        if invoice.status != "issued" and not await self._is_its_payment(intent):
            await self._door.refund(intent.id, intent.received_cents, f"unneeded-{intent.id}")
            return lambda connection: _note_returned(connection, intent, invoice, at)
        return lambda connection: _note_paid(connection, intent, at)

    async def _is_its_payment(self, intent: Intent) -> bool:
        """Return whether an invoice was paid by this very intent."""
        async with self._database.acquire() as connection:
            return await IS_SUCCEEDED.one(connection, intent.id)


IS_SUCCEEDED = Statement(
    "SELECT EXISTS (SELECT FROM invoice.intent WHERE id = $1 AND state = 'succeeded')", bool, scalar=True
)


def _demand_payable(invoice: Invoice) -> None:
    """Raise InvalidRequest unless something is to be paid."""
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


async def _note_paid(connection: Connection, intent: Intent, at: datetime) -> None:
    invoice = await _known(connection, intent)
    if invoice is None or await IS_SUCCEEDED.one(connection, intent.id):
        return
    if invoice.status != "issued":
        raise Outdated
    if (intent.received_cents * invoice.cent, intent.currency.upper()) != (invoice.due, CURRENCY):
        log.error("payment %s brought %s cents, not what %s asks", intent.id, intent.received_cents, invoice.label)
        return
    await END_INTENT.run(connection, intent.id, "succeeded")
    await END_ATTEMPT.run(connection, intent.id, "succeeded", intent.charge, at, None)
    await issuing.pay(connection, invoice, at)


async def _note_returned(connection: Connection, intent: Intent, seen: Invoice, at: datetime) -> None:
    invoice = await _known(connection, intent)
    if invoice is None:
        return
    reason = f"Given back: the invoice was {seen.status} already."
    await END_INTENT.run(connection, intent.id, "canceled")
    await END_ATTEMPT.run(connection, intent.id, "canceled", intent.charge, at, reason)
    log.warning("payment %s was given back: invoice %s is %s", intent.id, invoice.label, seen.status)


async def _note_canceled(connection: Connection, intent: Intent, at: datetime) -> None:
    if await _known(connection, intent) is not None:
        await END_INTENT.run(connection, intent.id, "canceled")
        await END_ATTEMPT.run(connection, intent.id, "canceled", None, at, None)


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
    return text.replace("\0", "")[:500] if isinstance(text, str) else None


async def attempts(connection: Connection, invoice_id: UUID) -> list[Attempt]:
    """Return every try to pay an invoice, the newest first."""
    return await ATTEMPTS.all(connection, invoice_id)
