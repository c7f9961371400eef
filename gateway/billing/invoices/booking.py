"""What Stripe has of an invoice's payments, booked: paid, given back, disputed, paid again, and what that has cost.

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
from gateway.payments.stripe.facts import UNDONE, DisputeFacts, PaymentFacts, RefundFacts
from gateway.webhooks.outbox import emit

log = logging.getLogger(__name__)


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
    told: list[tuple[str, dict[str, object]]] = []
    is_new = not await IS_BOOKED.one(connection, payment.intent)
    if is_new:
        told += await _paid(connection, invoice, payment, at)
    for refund in payment.refunds:
        told += await _refunded(connection, invoice, payment, refund)
    for dispute in payment.disputes:
        told += await _disputed(connection, invoice, payment, dispute)
    for fee in payment.all_fees:
        await BOOK_FEE.one(connection, fee.id, invoice.asset_id, fee.cents, invoice.id)
    await STAND.run(connection, invoice.id)
    after = await issuing.demand(connection, invoice.id)
    if after.status != invoice.status:
        event = "invoice.paid" if after.status == "paid" else "invoice.due_again"
        await emit(connection, after.organization_id, event, issuing.told(after))
    if after.owed_again < 0:
        log.error("invoice %s was paid by %s too much; give it back at Stripe", after.label, -after.owed_again)
    for action, details in told:
        details = {"number": after.label, "payment_intent": payment.intent, **details}
        await record(
            connection, action, after.organization_id, after.id, before=invoice, after=after, details=details
        )  # fmt: skip
    return is_new or bool(told)


async def _paid(
    connection: Connection, invoice: Invoice, payment: PaymentFacts, at: datetime
) -> list[tuple[str, dict[str, object]]]:
    cause, amount, wanted = uuid7(), payment.cents * invoice.cent, is_wanted(invoice, payment)
    if wanted and invoice.receipt is None:
        await issuing.receive(connection, invoice, cause, at)
    else:
        await RECOVER.run(connection, cause, invoice.asset_id, issuing.debtor(invoice), issuing.RAIL, str(amount))
    await PAID.run(connection, payment.intent, str(amount), cause)
    return [("invoice.pay", {"cents": payment.cents})] if wanted else []


async def _refunded(
    connection: Connection, invoice: Invoice, payment: PaymentFacts, refund: RefundFacts
) -> list[tuple[str, dict[str, object]]]:
    amount: dict[str, object] = {"refund": refund.id, "cents": refund.cents}
    back = await FIND_BACK.first(connection, refund.id)
    if refund.status not in UNDONE:
        if back is not None:
            return []
        await _go_back(connection, invoice, payment, "refund", refund, undecided=False)
        return [("invoice.refund", amount)]
    if back is None or not back.is_back:
        return []
    await _come_again(connection, invoice, refund.id)
    return [("invoice.refund_back", amount)]


async def _disputed(
    connection: Connection, invoice: Invoice, payment: PaymentFacts, dispute: DisputeFacts
) -> list[tuple[str, dict[str, object]]]:
    told: list[tuple[str, dict[str, object]]] = []
    amount: dict[str, object] = {"dispute": dispute.id, "cents": dispute.cents}
    back = await FIND_BACK.first(connection, dispute.id)
    if back is None and (dispute.is_lost or dispute.is_open):
        back = Back(is_back=True, undecided=True)
        await _go_back(connection, invoice, payment, "dispute", dispute, undecided=True)
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
    connection: Connection, invoice: Invoice, payment: PaymentFacts, kind: str, it: RefundFacts | DisputeFacts,
    *, undecided: bool,
) -> None:  # fmt: skip
    await GO_BACK.run(
        connection, it.id, payment.intent, kind, it.cents, str(it.cents * invoice.cent), uuid7(), undecided,
        invoice.asset_id, issuing.debtor(invoice), issuing.RAIL,
    )  # fmt: skip


async def _come_again(connection: Connection, invoice: Invoice, back_id: str) -> None:
    cause: UUID = uuid7()
    await COME_AGAIN.run(connection, back_id, cause, invoice.asset_id, issuing.debtor(invoice), issuing.RAIL)
