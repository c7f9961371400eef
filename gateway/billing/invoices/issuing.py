"""What becomes of a draft: issued with the next number of its series, paid, or void; each with its booking.

The ledger: `invoice` moves what is due from the organization's receivable to subscriptions and taxes; `invoice_paid`
from the rail's clearing to the receivable; `invoice_void` takes the first back. Each has a cause of its own, made at
that moment, so that archived months stay closed. An invoice with nothing due is paid when it is issued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.audit.entries import record
from gateway.billing.invoices.drafts import refresh
from gateway.billing.invoices.records import CURRENCY, Invoice, locked
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, NotConfigured, NotFound
from gateway.ids import uuid7
from gateway.settings import InvoiceSettings
from gateway.webhooks.outbox import emit
from pricing.money import format_amount

SETTLED = timedelta(minutes=10)
"""How long after its end a month may still be written to: by then no transaction that began in it is under way."""
RAIL = "stripe"


@dataclass(frozen=True, slots=True)
class Clock:
    """What the database's clock says."""

    now: datetime


# One at a time from here to the commit: so numbers and dates go up together, over a change of the year as well.
TURN = Command("SELECT pg_advisory_xact_lock(hashtext('invoice.issue'))")
CLOCK = Statement("SELECT clock_timestamp() AS now", Clock)
NEXT = Statement(
    """
    INSERT INTO invoice.series AS s (name, last) VALUES ($1, 1)
    ON CONFLICT (name) DO UPDATE SET last = s.last + 1 RETURNING s.last
    """,
    int,
    scalar=True,
)
ISSUE = Command(
    """
    UPDATE invoice.invoice
       SET status = CASE WHEN taxable + tax > 0 THEN 'issued' ELSE 'paid' END, series = $2, sequence = $3, number = $4,
           issued_at = $5::timestamptz, due_at = $6, booking = CASE WHEN taxable + tax > 0 THEN $7::uuid END,
           paid_at = CASE WHEN taxable + tax > 0 THEN NULL ELSE $5::timestamptz END
     WHERE id = $1 AND status = 'draft'
    """
)
PAID = Command("UPDATE invoice.invoice SET status = 'paid', paid_at = $2, receipt = $3 WHERE id = $1")
VOID = Command(
    "UPDATE invoice.invoice SET status = 'void', voided_at = now(), void_reason = $2, reversal = $3 WHERE id = $1"
)
# Leg 0 is the income, leg 1 the tax. Which way it goes is the kind's.
BOOK = Command(
    """
    SELECT ledger.move($1, $2::text::ledger.kind, l.leg::smallint,
                       CASE WHEN $2 = 'invoice' THEN l.debtor ELSE l.income END,
                       CASE WHEN $2 = 'invoice' THEN l.income ELSE l.debtor END, l.amount, 0)
      FROM (SELECT 0 AS leg, ledger.platform_account($3, 'subscriptions') AS income,
                   ledger.platform_account($3, 'receivable', $4) AS debtor, $5::numeric AS amount
             UNION ALL
            SELECT 1, ledger.platform_account($3, 'taxes'), ledger.platform_account($3, 'receivable', $4), $6) l
     WHERE l.amount > 0
    """
)
RECEIVE = Command(
    """
    SELECT ledger.move($1, 'invoice_paid', 0::smallint, ledger.platform_account($2, 'clearing', $3),
                       ledger.platform_account($2, 'receivable', $4), $5::numeric, 0)
    """
)


async def issue(connection: Connection, settings: InvoiceSettings, invoice_id: UUID) -> Invoice:
    """Give a draft its number and book it. Raises NotFound, NotConfigured, or Conflict for what is no draft."""
    draft = await demand(connection, invoice_id)
    _check_may_issue(settings, draft)
    await refresh(connection, settings, draft)
    fresh = await demand(connection, invoice_id)
    if fresh.taxable < 0:
        raise Conflict(f"What is due on this draft comes to {usd(fresh, fresh.taxable)}, below zero; mend its lines.")
    booking = uuid7()
    await _number(connection, settings, invoice_id, booking)
    await _book(connection, "invoice", booking, fresh)
    issued = await demand(connection, invoice_id)
    await emit(connection, issued.organization_id, "invoice.issued", told(issued))
    if issued.status == "paid":
        await emit(connection, issued.organization_id, "invoice.paid", told(issued))
    await record(
        connection, "invoice.issue", issued.organization_id, invoice_id, before=draft, after=issued,
        details={"number": issued.label},
    )  # fmt: skip
    return issued


async def _number(connection: Connection, settings: InvoiceSettings, invoice_id: UUID, booking: UUID) -> None:
    """Give a draft the next number. Whoever issues waits here for whoever issued before."""
    await TURN.run(connection)
    now = (await CLOCK.one(connection)).now
    series = f"{settings.prefix}-{now.astimezone(UTC).year}"
    sequence = await NEXT.one(connection, series)
    due_at = now + timedelta(days=settings.due_days)
    await ISSUE.run(connection, invoice_id, series, sequence, f"{series}-{sequence:06}", now, due_at, booking)


def _check_may_issue(settings: InvoiceSettings, draft: Invoice) -> None:
    if draft.status != "draft":
        raise Conflict(f"Invoice {draft.label} is {draft.status} already; only a draft can be issued.")
    if not settings.seller_name or not settings.seller_address:
        raise NotConfigured(
            "An invoice names who sells; the operator sets TOLLWAY_INVOICES_SELLER_NAME and _SELLER_ADDRESS."
        )
    ready = draft.month.end + SETTLED
    if datetime.now(UTC) < ready:
        raise Conflict(f"{draft.month} has just ended and is still being booked; issue it from {ready:%H:%M} UTC on.")


async def receive(connection: Connection, invoice: Invoice, receipt: UUID, at: datetime) -> None:
    """Book that all that is due on an issued invoice, which the caller has locked, has come in."""
    await PAID.run(connection, invoice.id, at, receipt)
    await RECEIVE.run(connection, receipt, invoice.asset_id, RAIL, debtor(invoice), invoice.due)


async def void(connection: Connection, invoice_id: UUID, reason: str) -> Invoice:
    """Take an issued invoice back; it keeps its number. Raises NotFound, or Conflict where that is too late."""
    invoice = await demand(connection, invoice_id)
    gone = invoice.receipt is not None and invoice.open == invoice.due
    if invoice.status not in ("issued", "paid") or (invoice.receipt is not None and not gone):
        why = {
            "draft": "A draft is not issued yet; it changes with the ledger until it is.",
            "issued": f"A part of invoice {invoice.label} is paid; give that back first.",
            "paid": f"Invoice {invoice.label} is paid; give the money back instead.",
            "void": f"Invoice {invoice.label} is void already.",
        }
        raise Conflict(why[invoice.status])
    reversal = uuid7() if invoice.due else None
    await VOID.run(connection, invoice_id, reason, reversal)
    if reversal is not None:
        await _book(connection, "invoice_void", reversal, invoice)
    done = await demand(connection, invoice_id)
    await record(
        connection, "invoice.void", done.organization_id, invoice_id, before=invoice, after=done,
        details={"number": done.label},
    )  # fmt: skip
    return done


async def demand(connection: Connection, invoice_id: UUID) -> Invoice:
    """Return an invoice, locked. Raises NotFound."""
    found = await locked(connection, invoice_id)
    if found is None:
        raise NotFound("There is no invoice with this id.")
    return found


async def _book(connection: Connection, kind: str, cause: UUID, invoice: Invoice) -> None:
    await BOOK.run(connection, cause, kind, invoice.asset_id, debtor(invoice), invoice.taxable, invoice.tax)


def debtor(invoice: Invoice) -> str:
    """Return the rail of the account that says what the organization owes."""
    return f"organization:{invoice.organization_id}"


def usd(invoice: Invoice, amount: int) -> str:
    """Return an amount of an invoice in words."""
    return f"{format_amount(amount, invoice.decimals, places=2)} {CURRENCY}"


def told(invoice: Invoice) -> Mapping[str, object]:
    """Return what events say of an invoice."""
    return {
        "invoice_id": invoice.id,
        "invoice_number": invoice.label,
        "period": str(invoice.month),
        "status": invoice.status,
        "total_usd": format_amount(invoice.total, invoice.decimals, places=2),
        "amount_due_usd": format_amount(invoice.open, invoice.decimals, places=2),
    }
