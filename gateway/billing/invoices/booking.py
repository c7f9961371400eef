"""What Stripe has of an invoice's payments, booked: paid, given back, disputed, failed later, paid again, and the fees.

Whoever calls has asked Stripe, and holds the invoice's lock; only what is not booked yet is. Money moves between the
clearing of cards and the organization's receivable, so a refund or a lost dispute is due again. The rows are in the
migration of invoice money. What does not live here: asking Stripe, and giving back what nobody needs (paying.py).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.audit.entries import record
from gateway.billing.card_rows import BOOK_FEE
from gateway.billing.invoices import issuing
from gateway.billing.invoices.records import CURRENCY, Invoice
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.ids import uuid7
from gateway.payments.stripe.facts import UNDONE, DisputeFacts, Fee, Intent, PaymentFacts, RefundFacts
from gateway.webhooks.outbox import emit

log = logging.getLogger(__name__)

Told = list[tuple[str, dict[str, object]]]
"""What the audit log will say: actions with their details."""
REASONS = {"invoice.fail": "payment_failed", "invoice.dispute": "disputed", "invoice.refund": "refunded"}
"""Why an invoice is due again, by what was booked."""


@dataclass(frozen=True, slots=True)
class Back:
    """Money that went back, and may have come again."""

    is_back: bool
    undecided: bool


IS_BOOKED = Statement(
    "SELECT EXISTS (SELECT FROM invoice.intent WHERE id = $1 AND cause_id IS NOT NULL)", bool, scalar=True
)
PAID = Command("UPDATE invoice.intent SET paid = $2::text::numeric, cause_id = $3 WHERE id = $1")
FIND_BACK = Statement("SELECT returned_cause IS NULL AS is_back, undecided FROM invoice.back WHERE id = $1", Back)
GO_BACK = Command(
    """
    WITH gone AS (
        INSERT INTO invoice.back (id, intent_id, kind, cents, amount, cause_id, undecided)
        VALUES ($1, $2, $3, $4, $5::text::numeric, $6, $7) RETURNING cause_id, amount
    )
    SELECT ledger.move(gone.cause_id, 'shortfall', 0::smallint, ledger.platform_account($8, 'receivable', $9),
                       ledger.platform_account($8, 'clearing', $10), gone.amount, 0) FROM gone
    """
)
# What of a payment has neither gone back nor is withdrawn by a dispute, in cents; $2 is one in atomic units.
LEFT = Statement(
    """
    SELECT div(i.paid - coalesce(sum(b.amount) FILTER (WHERE b.returned_cause IS NULL), 0), $2)::bigint
      FROM invoice.intent i LEFT JOIN invoice.back b ON b.intent_id = i.id
     WHERE i.id = $1 GROUP BY i.id
    """,
    int,
    scalar=True,
)
COUNT_BACK = Statement("SELECT count(*) FROM invoice.back WHERE intent_id = $1", int, scalar=True)
FAILURES = Statement(
    "SELECT id FROM invoice.back WHERE intent_id = $1 AND kind = 'failure' AND returned_cause IS NULL", str, scalar=True
)
# No bank decides any more on money of a payment that has failed.
DECIDE_ALL = Statement(
    "UPDATE invoice.back SET undecided = false WHERE intent_id = $1 AND undecided RETURNING id", str, scalar=True
)
DECIDE = Command("UPDATE invoice.back SET undecided = false WHERE id = $1")
COME_AGAIN = Command(
    """
    WITH come AS (
        UPDATE invoice.back SET returned_cause = $2, undecided = false
         WHERE id = $1 AND returned_cause IS NULL RETURNING returned_cause, amount
    )
    SELECT ledger.move(come.returned_cause, 'recovery', 0::smallint, ledger.platform_account($3, 'clearing', $5),
                       ledger.platform_account($3, 'receivable', $4), come.amount, 0) FROM come
    """
)
RECOVER = Command(
    """
    SELECT ledger.move($1, 'recovery', 0::smallint, ledger.platform_account($2, 'clearing', $4),
                       ledger.platform_account($2, 'receivable', $3), $5::text::numeric, 0)
    """
)
# An invoice that was paid is due again for what has gone back.
STAND = Command(
    """
    UPDATE invoice.invoice i
       SET owed_again = invoice.owed_again(i.id),
           status = CASE WHEN i.receipt IS NULL OR i.status = 'void' THEN i.status
                         WHEN invoice.owed_again(i.id) > 0 THEN 'issued' ELSE 'paid' END
     WHERE i.id = $1 AND i.owed_again <> invoice.owed_again(i.id)
    """
)


def is_wanted(invoice: Invoice, payment: PaymentFacts) -> bool:
    """Return whether an invoice needs a payment that is not booked yet: all of it at first, or some that went back."""
    if invoice.status != "issued" or payment.currency.upper() != CURRENCY:
        return False
    amount = payment.cents * invoice.cent
    return amount == invoice.due if invoice.receipt is None else amount <= invoice.open


async def book(connection: Connection, invoice: Invoice, payment: PaymentFacts, at: datetime) -> bool:
    """Book what is new of a payment, tell of it, let the invoice stand as it then does; return whether anything was."""
    if payment.currency.upper() != CURRENCY:
        log.error("payment %s of %s is in %s and not booked", payment.intent, invoice.label, payment.currency)
        return False
    told: Told = []
    is_new = not await IS_BOOKED.one(connection, payment.intent)
    if is_new:
        told += await _paid(connection, invoice, payment, at)
    else:
        told += await _arrived(connection, invoice, payment.intent)
    for refund in payment.refunds:
        told += await _refunded(connection, invoice, payment, refund)
    for dispute in payment.disputes:
        told += await _disputed(connection, invoice, payment, dispute)
    await _stand(connection, invoice, payment.intent, payment.all_fees, told)
    return is_new or bool(told)


async def fail(connection: Connection, invoice: Invoice, intent: Intent) -> bool:
    """Let what is left of a booked payment that has failed since be due again; return whether that is new."""
    told: Told = [
        ("invoice.dispute_lost", {"dispute": dispute, "won": False})
        for dispute in await DECIDE_ALL.all(connection, intent.id)
    ]
    cents = await LEFT.one(connection, intent.id, invoice.cent)
    if cents > 0:
        name = f"failed:{intent.id}:{await COUNT_BACK.one(connection, intent.id)}"
        await _go_back(connection, invoice, intent.id, "failure", name, cents, undecided=False)
        told.append(("invoice.fail", {"cents": cents}))
        log.error("a payment of invoice %s failed after it was booked: what it paid is due again", invoice.label)
    await _stand(connection, invoice, intent.id, intent.failure_fees, told)
    return bool(told)


async def _stand(connection: Connection, invoice: Invoice, intent_id: str, fees: tuple[Fee, ...], told: Told) -> None:
    """Book fees, let an invoice stand as its money does, and tell of it."""
    for fee in fees:
        await BOOK_FEE.one(connection, fee.id, invoice.asset_id, fee.cents, invoice.id)
    await STAND.run(connection, invoice.id)
    after = await issuing.demand(connection, invoice.id)
    if after.status == "paid" and invoice.status != "paid":
        await emit(connection, after.organization_id, "invoice.paid", issuing.told(after))
    elif after.status == "issued" and after.open > invoice.open:
        reason = next((REASONS[action] for action, _ in told if action in REASONS), None)
        await emit(connection, after.organization_id, "invoice.due_again", {**issuing.told(after), "reason": reason})
    if after.owed_again < 0:
        log.error("invoice %s was paid by %s too much; give it back at Stripe", after.label, -after.owed_again)
    for action, details in told:
        details = {"number": after.label, "payment_intent": intent_id, **details}
        await record(
            connection, action, after.organization_id, after.id, before=invoice, after=after, details=details
        )  # fmt: skip


async def _arrived(connection: Connection, invoice: Invoice, intent_id: str) -> Told:
    """Take money of a payment that had failed and is there after all."""
    failures = await FAILURES.all(connection, intent_id)
    for failure in failures:
        await _come_again(connection, invoice, failure)
    return [("invoice.arrive", {})] if failures else []


async def _paid(connection: Connection, invoice: Invoice, payment: PaymentFacts, at: datetime) -> Told:
    cause, amount, wanted = uuid7(), payment.cents * invoice.cent, is_wanted(invoice, payment)
    if wanted and invoice.receipt is None:
        await issuing.receive(connection, invoice, cause, at)
    else:
        await RECOVER.run(connection, cause, invoice.asset_id, issuing.debtor(invoice), issuing.RAIL, str(amount))
    await PAID.run(connection, payment.intent, str(amount), cause)
    return [("invoice.pay", {"cents": payment.cents})] if wanted else []


async def _refunded(connection: Connection, invoice: Invoice, payment: PaymentFacts, refund: RefundFacts) -> Told:
    amount: dict[str, object] = {"refund": refund.id, "cents": refund.cents}
    back = await FIND_BACK.first(connection, refund.id)
    if refund.status not in UNDONE:
        if back is not None:
            return []
        await _go_back(connection, invoice, payment.intent, "refund", refund.id, refund.cents, undecided=False)
        return [("invoice.refund", amount)]
    if back is None or not back.is_back:
        return []
    await _come_again(connection, invoice, refund.id)
    return [("invoice.refund_back", amount)]


async def _disputed(connection: Connection, invoice: Invoice, payment: PaymentFacts, dispute: DisputeFacts) -> Told:
    told: Told = []
    amount: dict[str, object] = {"dispute": dispute.id, "cents": dispute.cents}
    back = await FIND_BACK.first(connection, dispute.id)
    if back is None and (dispute.is_lost or dispute.is_open):
        back = Back(is_back=True, undecided=True)
        await _go_back(connection, invoice, payment.intent, "dispute", dispute.id, dispute.cents, undecided=True)
        told.append(("invoice.dispute", amount))
    if back is None or not back.is_back:
        return told
    if dispute.is_lost and back.undecided:
        await DECIDE.run(connection, dispute.id)
        told.append(("invoice.dispute_lost", {**amount, "won": False}))
    elif dispute.is_won:
        await _come_again(connection, invoice, dispute.id)
        told.append(("invoice.dispute_won", {**amount, "won": True}))
    return told


async def _go_back(
    connection: Connection, invoice: Invoice, intent_id: str, kind: str, name: str, cents: int, *, undecided: bool
) -> None:
    await GO_BACK.run(
        connection, name, intent_id, kind, cents, str(cents * invoice.cent), uuid7(), undecided,
        invoice.asset_id, issuing.debtor(invoice), issuing.RAIL,
    )  # fmt: skip


async def _come_again(connection: Connection, invoice: Invoice, back_id: str) -> None:
    cause: UUID = uuid7()
    await COME_AGAIN.run(connection, back_id, cause, invoice.asset_id, issuing.debtor(invoice), issuing.RAIL)
