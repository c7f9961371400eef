"""tiered: what the n-th call of a month costs, by tables and properties."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.tariffs.tiered import Step, Tier, TierRate, rate_of

FREE_THEN = [Tier(3, 0), Tier(5, 10), Tier(None, 4)]
FALLING = [Tier(3, 10), Tier(6, 7), Tier(None, 4)]


def prices(rate: TierRate, calls: int) -> list[int]:
    return [rate.step_after(used).price for used in range(calls)]


@pytest.mark.parametrize(
    ("tiers", "style", "first"),
    [
        (FREE_THEN, "graduated", [0, 0, 0, 10, 10, 4, 4, 4]),
        (FALLING, "graduated", [10, 10, 10, 7, 7, 7, 4, 4]),
        # 30 are paid when the tier of 7 begins: 4 x 7 is 28, 5 x 7 is 35; 42 when that of 4 does: 10 x 4 is 40, 11 x 4 is 44.
        (FALLING, "volume", [10, 10, 10, 0, 5, 7, 0, 0, 0, 0, 2, 4, 4]),
        ([Tier(None, 5)], "volume", [5, 5, 5]),
        ([Tier(1, 5), Tier(None, 5)], "volume", [5, 5, 5]),
        # The tier of 3 ends before its total has caught up.
        ([Tier(10, 10), Tier(12, 3), Tier(None, 2)], "volume", [10] * 10 + [0] * 40 + [2, 2]),
        ([Tier(2, 10), Tier(None, 0)], "volume", [10, 10, 0, 0, 0]),
        ([Tier(2, 10), Tier(3, 0), Tier(None, 20)], "graduated", [10, 10, 0, 20, 20]),
    ],
)
def test_the_price_of_each_call(tiers: list[Tier], style, first: list[int]) -> None:
    rate = rate_of(tiers, style)
    assert prices(rate, len(first)) == first
    assert [rate.total(calls) for calls in range(1, len(first) + 1)] == list(accumulate(first))
    assert (rate.cheapest, rate.dearest) == (min(first), max(first))


def test_steps_are_joined_where_the_price_goes_on() -> None:
    assert rate_of([Tier(1, 5), Tier(9, 5), Tier(None, 4)], "graduated").steps == (Step(0, 9, 5), Step(9, None, 4))
    assert rate_of([Tier(1, 5), Tier(9, 5), Tier(None, 5)], "volume").steps == (Step(0, None, 5),)


@st.composite
def tables(draw: st.DrawFn, *, falling: bool) -> list[Tier]:
    bounds = sorted(draw(st.sets(st.integers(1, 40), max_size=5)))
    found = draw(st.lists(st.integers(0, 30), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    if falling:
        found.sort(reverse=True)
    return [Tier(bound, price) for bound, price in zip([*bounds, None], found, strict=True)]


def tier_of(tiers: list[Tier], number: int) -> Tier:
    return next(tier for tier in tiers if tier.up_to is None or number <= tier.up_to)


def whole(rate: TierRate, calls: int) -> None:
    """The steps have no gap, the parts sum to the whole, and it does not fall with use."""
    assert rate.steps[0].after == 0
    assert [one.up_to for one in rate.steps] == [*(one.after for one in rate.steps[1:]), None]
    assert all(one.up_to is None or one.up_to > one.after for one in rate.steps)
    each = prices(rate, calls)
    assert all(rate.cheapest <= price <= rate.dearest for price in each)
    assert [rate.total(number) for number in range(calls + 1)] == list(accumulate(each, initial=0))


@given(tables(falling=False), st.integers(0, 120))
def test_graduated_calls_cost_what_their_own_tier_says(tiers: list[Tier], calls: int) -> None:
    rate = rate_of(tiers, "graduated")
    whole(rate, calls)
    assert prices(rate, calls) == [tier_of(tiers, number).price for number in range(1, calls + 1)]


@given(tables(falling=True), st.integers(0, 400))
def test_a_volume_month_costs_what_its_last_tier_says_or_what_was_paid_before(tiers: list[Tier], calls: int) -> None:
    rate = rate_of(tiers, "volume")
    whole(rate, calls)
    totals = [number * tier_of(tiers, number).price for number in range(1, calls + 1)]
    assert [rate.total(number) for number in range(1, calls + 1)] == list(accumulate(totals, max))
    assert rate.dearest <= tiers[0].price
