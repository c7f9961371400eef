"""Which payment an invoice still needs: all of it at first, some of what went back later, and none that is in the way."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID, uuid4

import pytest

from gateway.billing.invoices.booking import is_wanted
from gateway.billing.invoices.records import Invoice, Status
from gateway.payments.stripe.facts import PaymentFacts

CENT = 10_000
PAID = uuid4()


def invoice(status: Status, receipt: UUID | None = None, owed_again: int = 0) -> Invoice:
    """Return an invoice of $12.00 with $2.28 of tax, of which $2.00 was prepaid."""
    now = datetime(2026, 11, 1, tzinfo=UTC)
    return Invoice(
        id=uuid4(), organization_id=uuid4(), period_start=date(2026, 10, 1), status=status, number="2026-1",
        asset_id=uuid4(), decimals=6, subtotal=1_200 * CENT, taxable=1_000 * CENT, tax=228 * CENT, tax_ppm=228_000,
        tax_note="", seller={}, buyer={}, others=[], created_at=now, issued_at=now, due_at=now, paid_at=None,
        voided_at=None, void_reason=None, booking=uuid4(), receipt=receipt, reversal=None, owed_again=owed_again,
    )  # fmt: skip


def payment(cents: int, currency: str = "usd") -> PaymentFacts:
    return PaymentFacts("pi_1", cents, currency, False, None, (), (), ())


@pytest.mark.parametrize(
    ("asked", "made", "wanted"),
    [
        (invoice("issued"), payment(1_228), True),
        (invoice("issued"), payment(1_227), False),
        (invoice("issued"), payment(1_229), False),
        (invoice("issued"), payment(1_228, "eur"), False),
        (invoice("issued", PAID, 500 * CENT), payment(500), True),
        (invoice("issued", PAID, 500 * CENT), payment(499), True),
        (invoice("issued", PAID, 500 * CENT), payment(501), False),
        (invoice("draft"), payment(1_228), False),
        (invoice("paid", PAID), payment(1_228), False),
        (invoice("void"), payment(1_228), False),
    ],
)
def test_a_payment_is_wanted_only_as_it_was_asked_for(asked: Invoice, made: PaymentFacts, *, wanted: bool) -> None:
    assert is_wanted(asked, made) is wanted
