"""Parts of months: they sum to the whole, and none costs less than nothing or more than the month."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.proration import month_end, month_start, overage, part_of_month

DOLLAR = 1_000_000
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
prices = st.integers(0, 10**15)


@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        ("2026-11-30T14:00:00+00:00", "2026-11-01", "2026-12-01"),
        ("2026-12-31T23:59:59.999999+00:00", "2026-12-01", "2027-01-01"),
        ("2028-02-29T00:00:00+00:00", "2028-02-01", "2028-03-01"),
        ("2027-01-01T00:00:00+00:00", "2027-01-01", "2027-02-01"),
        ("2027-01-01T00:30:00+01:00", "2026-12-01", "2027-01-01"),
    ],
)
def test_months_are_those_of_utc(moment: str, start: str, end: str) -> None:
    at = datetime.fromisoformat(moment)
    assert (f"{month_start(at):%Y-%m-%d}", f"{month_end(at):%Y-%m-%d}") == (start, end)


@pytest.mark.parametrize(
    ("start", "end", "due"),
    [
        ("2026-11-01T00:00:00", "2026-12-01T00:00:00", 20 * DOLLAR),
        ("2026-11-16T00:00:00", "2026-12-01T00:00:00", 10 * DOLLAR),
        ("2026-10-01T00:00:00", "2027-01-01T00:00:00", 20 * DOLLAR),
        ("2026-11-30T23:59:59", "2026-12-01T00:00:00", 8),  # 20,000,000 / 2,592,000 is 7.7
        ("2026-11-01T00:00:00", "2026-11-01T00:00:01", 7),
        ("2026-12-01T00:00:00", "2026-12-02T00:00:00", 0),
        ("2026-11-20T00:00:00", "2026-11-10T00:00:00", 0),
    ],
)
def test_parts_of_november(start: str, end: str, due: int) -> None:
    bounds = (datetime.fromisoformat(f"{one}+00:00") for one in (start, end))
    assert part_of_month(20 * DOLLAR, datetime(2026, 11, 5, tzinfo=UTC), *bounds) == due


@given(prices, moments, st.lists(st.integers(0, 31 * 86_400_000_000), max_size=8))
def test_the_parts_of_a_month_sum_to_its_price(price: int, month: datetime, cuts: list[int]) -> None:
    first, beyond = month_start(month), month_end(month)
    bounds = [first, *sorted(min(first + timedelta(microseconds=cut), beyond) for cut in cuts), beyond]
    parts = [part_of_month(price, month, *pair) for pair in pairwise(bounds)]
    assert sum(parts) == price
    assert all(0 <= part <= price for part in parts)


@given(prices, moments, moments, moments)
def test_no_part_is_negative_or_above_the_price(price: int, month: datetime, one: datetime, other: datetime) -> None:
    assert 0 <= part_of_month(price, month, one, other) <= price
    elsewhere = other.astimezone(timezone(timedelta(hours=-7)))
    assert part_of_month(price, month, one, elsewhere) == part_of_month(price, month, one, other)


@given(prices, prices, moments, moments)
def test_a_dearer_plan_never_costs_less_for_the_same_part(low: int, high: int, one: datetime, other: datetime) -> None:
    low, high = sorted((low, high))
    # Each of the two bounds is rounded down by less than one unit.
    assert part_of_month(low, one, one, other) <= part_of_month(high, one, one, other) + 1


@pytest.mark.parametrize(
    ("calls", "included", "price", "due"),
    [(0, 0, 200_000, 0), (37, 37, 200_000, 0), (38, 37, 200_000, 200), (1, 0, 1, 1), (1_001, 0, 999, 1_000)],
)
def test_overage(calls: int, included: int, price: int, due: int) -> None:
    assert overage(calls, included, [(price, 5)]) == due


@given(st.integers(0, 10**12), st.integers(0, 10**12), prices)
def test_overage_is_never_below_its_exact_price_and_less_than_a_unit_above(
    calls: int, included: int, price: int
) -> None:
    exact = max(calls - included, 0) * price
    assert 0 <= overage(calls, included, [(price, 3), (price, 4)]) * 1_000 - exact < 1_000
