"""Invoices as they are stored, and how they are found. What does not live here: changing them (drafts, issuing)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from gateway.billing.invoices.line import Line
from gateway.billing.invoices.month import Month, month_of
from gateway.database.pool import Connection
from gateway.database.statement import Statement

Status = Literal["draft", "issued", "paid", "void"]
Reversal = Literal["payment_failed", "disputed", "dispute_lost"]
CURRENCY = "USD"


@dataclass(frozen=True, slots=True)
class Invoice:
    """One invoice without its lines. Amounts are atomic units of the default asset; `taxable` is what is due of them.

    `booking`, `receipt` and `reversal` are the causes of its transfers. `owed_again` has gone back of what was paid.
    `payment_reversal` is what last took money of a payment back that nobody here gave back, as long as it is away.
    """

    id: UUID
    organization_id: UUID
    period_start: date
    status: Status
    number: str | None
    asset_id: UUID
    decimals: int
    subtotal: int
    taxable: int
    tax: int
    tax_ppm: int
    tax_note: str
    seller: dict[str, Any]
    buyer: dict[str, Any]
    others: list[dict[str, Any]]
    created_at: datetime
    issued_at: datetime | None
    due_at: datetime | None
    paid_at: datetime | None
    voided_at: datetime | None
    void_reason: str | None
    booking: UUID | None
    receipt: UUID | None
    reversal: UUID | None
    owed_again: int
    payment_reversal: Reversal | None = None
    payment_reversed_at: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("subtotal", "taxable", "tax", "owed_again"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def month(self) -> Month:
        """Return the month that it is about."""
        return month_of(self.period_start)

    @property
    def label(self) -> str:
        """Return its number; a draft has none yet, and is called by its id."""
        return self.number or f"DRAFT-{self.id.hex[-12:]}"

    @property
    def total(self) -> int:
        """Return all that was bought, with the tax."""
        return self.subtotal + self.tax

    @property
    def due(self) -> int:
        """Return what is to be paid beyond what was prepaid, whether it has been by now or not."""
        return self.taxable + self.tax

    @property
    def open(self) -> int:
        """Return what is still to be paid."""
        if self.status not in ("draft", "issued"):
            return 0
        return self.due if self.receipt is None else self.owed_again

    @property
    def prepaid(self) -> int:
        """Return what was paid when it was bought."""
        return self.subtotal - self.taxable

    @property
    def cent(self) -> int:
        """Return a cent in atomic units."""
        return cent_of(self.decimals)

    def is_overdue(self, now: datetime) -> bool:
        """Return whether it should have been paid."""
        return self.status == "issued" and self.due_at is not None and self.due_at + timedelta(days=1) <= now


def cent_of(decimals: int) -> int:
    """Return a cent in atomic units of an asset. Raises ValueError for one that has none."""
    if decimals < 2:
        raise ValueError("the default asset has no cents, so nothing can be invoiced in it")
    return int(10 ** (decimals - 2))


_INVOICE = """
    SELECT i.id, i.organization_id, i.period_start, i.status, i.number, i.asset_id, i.decimals::integer AS decimals,
           i.subtotal, i.taxable, i.tax, i.tax_ppm, i.tax_note, i.seller, i.buyer, i.others, i.created_at, i.issued_at,
           i.due_at, i.paid_at, i.voided_at, i.void_reason, i.booking, i.receipt, i.reversal, i.owed_again,
           b.what AS payment_reversal, b.made_at AS payment_reversed_at
      FROM invoice.invoice i
      LEFT JOIN LATERAL (
          SELECT CASE WHEN b.kind = 'failure' THEN 'payment_failed' WHEN b.undecided THEN 'disputed'
                      ELSE 'dispute_lost' END AS what, b.made_at
            FROM invoice.intent n JOIN invoice.back b ON b.intent_id = n.id
           WHERE n.invoice_id = i.id AND b.kind <> 'refund' AND b.returned_cause IS NULL
           ORDER BY b.made_at DESC, b.id DESC LIMIT 1) b ON true
"""
FIND = Statement(_INVOICE + " WHERE i.id = $1", Invoice)
LOCK = Statement("SELECT true FROM invoice.invoice WHERE id = $1 FOR UPDATE", bool, scalar=True)
LIST = Statement(
    _INVOICE
    + """
     WHERE i.organization_id = $1 AND ($2::text IS NULL OR i.status = $2)
     ORDER BY i.period_start DESC, i.id DESC LIMIT $3 OFFSET $4
    """,
    Invoice,
)
OF_MONTH = Statement(
    _INVOICE
    + """
     WHERE i.period_start = $1 ORDER BY i.number NULLS LAST, i.id
    """,
    Invoice,
)
# Those whose payment failed or was disputed after it was booked, the last one first.
REVERSED = Statement(_INVOICE + " WHERE b.what IS NOT NULL ORDER BY b.made_at DESC, i.id LIMIT $1", Invoice)
COUNT = Statement(
    "SELECT count(*) FROM invoice.invoice WHERE organization_id = $1 AND ($2::text IS NULL OR status = $2)",
    int,
    scalar=True,
)
LINES = Statement(
    """
    SELECT line_type, description, quantity, amount, paid, reference FROM invoice.line
     WHERE invoice_id = $1 ORDER BY place
    """,
    Line,
)


async def find(connection: Connection, invoice_id: UUID) -> Invoice | None:
    """Return an invoice, or None."""
    return await FIND.first(connection, invoice_id)


async def locked(connection: Connection, invoice_id: UUID) -> Invoice | None:
    """Return an invoice that nobody else changes until the transaction ends, or None."""
    await LOCK.first(connection, invoice_id)
    return await FIND.first(connection, invoice_id)


async def lines(connection: Connection, invoice_id: UUID) -> list[Line]:
    """Return the lines of an invoice, in order."""
    return await LINES.all(connection, invoice_id)
