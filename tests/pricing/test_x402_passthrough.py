"""What is charged for what is bought: never below what was paid, never above what is held, and the parts sum up."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.quote import FREE
from pricing.reported import Reading
from pricing.tariffs.x402_passthrough import PurchaseRate

MARKUPS = st.fractions(min_value=Fraction(1, 100), max_value=100, max_denominator=1_000_000)


@st.composite
def rates(draw: st.DrawFn) -> PurchaseRate:
    reserve = draw(st.integers(1, 10**24))
    return PurchaseRate(
        reserve, draw(MARKUPS), draw(st.integers(0, reserve)), draw(st.integers(0, 1_000_000))
    )  # fmt: skip


@given(rates(), st.data())
def test_a_charge_covers_what_was_paid_and_fits_what_is_held(rate: PurchaseRate, data: st.DataObject) -> None:
    paid = data.draw(st.integers(0, rate.most_paid))
    quote = rate.quote(Reading(paid=paid))
    assert (quote == FREE) == (paid == 0)
    assert paid <= quote.fee <= quote.amount <= rate.reserve
    assert quote.publisher_part >= 0
    assert quote.publisher_part + quote.fee == quote.amount
    assert paid == 0 or quote.amount >= rate.minimum


@given(rates(), st.data())
def test_a_charge_grows_with_what_was_paid(rate: PurchaseRate, data: st.DataObject) -> None:
    less, more = sorted(data.draw(st.lists(st.integers(0, rate.most_paid), min_size=2, max_size=2)))
    assert rate.quote(Reading(paid=less)).amount <= rate.quote(Reading(paid=more)).amount


@given(rates())
def test_what_is_above_the_highest_price_does_not_fit(rate: PurchaseRate) -> None:
    assert rate.quote(Reading(paid=rate.most_paid + 1)).amount > rate.reserve


@pytest.mark.parametrize(
    ("paid", "markup", "fee", "minimum", "amount", "platform"),
    [
        (10_000, "1", 0, 0, 10_000, 10_000),
        (10_000, "1.5", 0, 0, 15_000, 10_000),
        (10_000, "1.5", 100_000, 0, 16_500, 11_500),
        (3, "1.1", 0, 0, 4, 3),
        (3, "0.5", 0, 0, 3, 3),
        (10, "1", 0, 1_000, 1_000, 10),
    ],
)
def test_examples(paid: int, markup: str, fee: int, minimum: int, amount: int, platform: int) -> None:
    quote = PurchaseRate(100_000, Fraction(markup), minimum, fee).quote(Reading(paid=paid))
    assert (quote.amount, quote.fee) == (amount, platform)
