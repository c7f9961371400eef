"""The price of rows: the rule of the contract in a table, and what holds for any prices and any rows."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.money import fee_of
from pricing.tariffs.per_row import RowRate

TABLE = [
    # per 1,000 rows, markup, minimum, maximum, rows, price
    (1_000_000, "1", 0, None, 0, 0),
    (1_000_000, "1", 0, None, 1, 1_000),
    (1_000_000, "1.25", 0, None, 1, 1_250),
    (1, "1", 0, None, 1, 1),
    (1, "1", 0, None, 1_001, 2),
    (7, "1.000001", 0, None, 1_000, 8),
    (1_000_000, "1", 5_000, None, 1, 5_000),
    (1_000_000, "1", 5_000, None, 6, 6_000),
    (1_000_000, "1", 0, 3_000, 5_000, 3_000),
    (0, "1", 10, None, 5_000, 10),
    (0, "1", 0, None, 5_000, 0),
]


@pytest.mark.parametrize(("per_1000", "markup", "minimum", "maximum", "rows", "price"), TABLE)
def test_rows_cost_what_the_contract_says(
    per_1000: int, markup: str, minimum: int, maximum: int | None, rows: int, price: int
) -> None:
    assert RowRate(per_1000, Fraction(markup), minimum, maximum).quote(rows).amount == price


@st.composite
def rates(draw: st.DrawFn) -> RowRate:
    minimum = draw(st.integers(0, 10**7))
    maximum = draw(st.none() | st.integers(minimum, 10**12))
    markup = Fraction(draw(st.integers(1, 999_999_000_000)), 1_000_000)
    per_1000 = draw(st.integers(0, 10**9))
    return RowRate(per_1000, markup, minimum, maximum, draw(st.integers(0, 1_000_000)))


ROWS = st.integers(0, 10**7)


@given(rates(), ROWS, ROWS)
def test_more_rows_never_cost_less(rate: RowRate, one: int, other: int) -> None:
    fewer, more = sorted((one, other))
    assert rate.quote(fewer).amount <= rate.quote(more).amount


@given(rates(), ROWS)
def test_a_price_keeps_its_bounds_and_its_parts_sum(rate: RowRate, rows: int) -> None:
    quote = rate.quote(rows)
    assert rate.minimum <= quote.amount <= (rate.maximum if rate.maximum is not None else quote.amount)
    assert quote.publisher_part + quote.fee == quote.amount
    assert quote.fee == fee_of(quote.amount, rate.fee_ppm)
    exact = Fraction(rows * rate.per_1000_rows, 1_000) * rate.markup
    if rate.minimum < exact and (rate.maximum is None or exact <= rate.maximum):
        assert exact <= quote.amount < exact + 1, "rounded up once, to the next atomic unit"


@given(rates(), st.integers(0, 10**13), st.integers(1, 10**6))
def test_money_buys_as_many_rows_as_it_pays_for(rate: RowRate, amount: int, limit: int) -> None:
    rows = rate.rows_for(amount, limit)
    assert 0 <= rows <= limit
    if rows:
        assert rate.quote(rows).amount <= amount
    if rows < limit:
        assert rate.quote(rows + 1).amount > amount or amount < rate.quote(0).amount
