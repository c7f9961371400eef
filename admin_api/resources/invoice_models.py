"""The bodies and answers of invoices, and how they are made of what is stored. The routes are in invoices.py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StrictInt, StrictStr

from admin_api.kit.envelope import Answer, Moment, PaginationMeta, rfc3339
from gateway.billing.invoices.document import unit_price
from gateway.billing.invoices.line import Line
from gateway.billing.invoices.paying import Attempt
from gateway.billing.invoices.records import CURRENCY, Invoice
from gateway.request_body import RequestBody
from pricing.money import format_amount


class GenerateInvoicesRequest(RequestBody):
    """The month to invoice. It must be over."""

    month: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
    year: Annotated[StrictInt, Field(ge=-(2**31), le=2**31 - 1)]


class InvoicesGenerated(Answer):
    """The invoices of that month that exist now, made by this run or an earlier one; without void ones."""

    count: int
    invoice_ids: list[UUID]


class InvoicesGeneratedResponse(Answer):
    """Envelope."""

    data: InvoicesGenerated
    pagination: PaginationMeta | None = None


class InvoiceLineItem(Answer):
    """One line. `unit_price` is what one cost on average; what is `prepaid` was paid when it was bought."""

    line_type: str
    description: str
    quantity: float
    unit_price: float
    amount_usd: float
    amount_atomic: str
    prepaid: bool


class OtherAssetSpent(Answer):
    """What was spent in an asset that is not counted in dollars; it is in no sum."""

    asset: str
    decimals: int
    calls: int
    amount: str


class InvoiceSummary(Answer):
    """An invoice without its lines. `*_atomic` are the exact amounts, in units of the default asset.

    `payment_reversal` says what took the money of a payment back after it was booked, as long as it is away.
    """

    id: UUID
    invoice_number: str
    number: str | None
    organization_id: UUID
    status: Literal["draft", "issued", "paid", "void"]
    period_start: str
    period_end: str
    subtotal_usd: float
    tax_usd: float
    total_usd: float
    amount_due_usd: float
    total_atomic: str
    amount_due_atomic: str
    currency: str
    created_at: Moment
    issued_at: Moment | None
    due_at: Moment | None
    paid_at: Moment | None
    voided_at: Moment | None
    overdue: bool
    payment_reversal: Literal["payment_failed", "disputed", "dispute_lost"] | None
    payment_reversed_at: Moment | None


class InvoiceAnswer(InvoiceSummary):
    """An invoice. `subtotal_usd` is the sum of all lines; `amount_due_usd` what of the total is still to be paid."""

    line_items: list[InvoiceLineItem]
    other_assets: list[OtherAssetSpent]
    prepaid_usd: float
    tax_percent: str
    tax_note: str
    void_reason: str | None


class InvoiceResponse(Answer):
    """Envelope."""

    data: InvoiceAnswer
    pagination: PaginationMeta | None = None


class InvoicesResponse(Answer):
    """Envelope."""

    data: list[InvoiceSummary]
    pagination: PaginationMeta


class VoidInvoiceRequest(RequestBody):
    """Why the invoice is taken back; it stands on the document."""

    reason: Annotated[StrictStr, Field(min_length=1, max_length=500)]


class PaymentIntentCreated(Answer):
    """What a client needs to pay with Stripe's own library."""

    amount_usd: float
    client_secret: str
    currency: str
    payment_intent_id: str


class PaymentIntentCreatedResponse(Answer):
    """Envelope."""

    data: PaymentIntentCreated
    pagination: PaginationMeta | None = None


class PaymentRecord(Answer):
    """One try to pay: `pending`, `succeeded`, `failed` or `canceled`; or what became of its money.

    That is `refunded`, `refund_failed`, `disputed`, `dispute_lost`, `dispute_won`, `failed_later` or `paid_after_all`.
    """

    id: str
    amount_usd: float
    currency: str
    status: str
    stripe_payment_intent_id: str
    stripe_charge_id: str | None
    attempted_at: str
    succeeded_at: str | None
    failed_at: str | None
    failure_code: str | None
    failure_message: str | None


class PaymentHistory(Answer):
    """Every try, the newest first."""

    payments: list[PaymentRecord]


class PaymentHistoryResponse(Answer):
    """Envelope."""

    data: PaymentHistory
    pagination: PaginationMeta | None = None


def whole(invoice: Invoice, lines: Sequence[Line]) -> InvoiceAnswer:
    """Return an invoice with its lines, as it is answered."""
    return InvoiceAnswer(
        **summary(invoice),
        line_items=[_line(line, invoice.decimals) for line in lines],
        other_assets=[OtherAssetSpent(**other) for other in invoice.others],
        prepaid_usd=usd(invoice.prepaid, invoice.decimals),
        tax_percent=format_amount(invoice.tax_ppm, 4),
        tax_note=invoice.tax_note,
        void_reason=invoice.void_reason,
    )


def summary(invoice: Invoice) -> dict[str, Any]:
    """Return what every answer says of an invoice."""
    return {
        "id": invoice.id,
        "invoice_number": invoice.label,
        "number": invoice.number,
        "organization_id": invoice.organization_id,
        "status": invoice.status,
        "period_start": invoice.month.first.isoformat(),
        "period_end": invoice.month.last.isoformat(),
        "subtotal_usd": usd(invoice.subtotal, invoice.decimals),
        "tax_usd": usd(invoice.tax, invoice.decimals),
        "total_usd": usd(invoice.total, invoice.decimals),
        "amount_due_usd": usd(invoice.open, invoice.decimals),
        "total_atomic": str(invoice.total),
        "amount_due_atomic": str(invoice.open),
        "currency": CURRENCY,
        "created_at": invoice.created_at,
        "issued_at": invoice.issued_at,
        "due_at": invoice.due_at,
        "paid_at": invoice.paid_at,
        "voided_at": invoice.voided_at,
        "overdue": invoice.is_overdue(datetime.now(UTC)),
        "payment_reversal": invoice.payment_reversal,
        "payment_reversed_at": invoice.payment_reversed_at,
    }


def _line(line: Line, decimals: int) -> InvoiceLineItem:
    return InvoiceLineItem(
        line_type=line.line_type,
        description=line.description,
        quantity=float(line.quantity),
        unit_price=usd(unit_price(line), decimals),
        amount_usd=usd(line.amount, decimals),
        amount_atomic=str(line.amount),
        prepaid=line.paid,
    )


def attempt(one: Attempt) -> PaymentRecord:
    """Return one try to pay, as it is answered."""
    ended = None if one.ended_at is None else rfc3339(one.ended_at)
    return PaymentRecord(
        id=str(one.id),
        amount_usd=usd(one.cents, 2),
        currency=CURRENCY,
        status=one.status,
        stripe_payment_intent_id=one.intent_id,
        stripe_charge_id=one.charge_id,
        attempted_at=rfc3339(one.attempted_at),
        succeeded_at=ended if one.status == "succeeded" else None,
        failed_at=ended if one.status == "failed" else None,
        failure_code=one.failure_code,
        failure_message=one.failure_message,
    )


def usd(amount: int, decimals: int) -> float:
    """Return an amount as the contract's number, from its exact decimal."""
    return float(Decimal(format_amount(amount, decimals)))
