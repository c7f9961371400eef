"""Budgets of API keys: what counts in which day and month, what no call may cost, and that nothing passes a limit."""

from __future__ import annotations

from collections import Counter as Sums
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.budgets import (
    DAY,
    MONTH,
    OtherAsset,
    Overrun,
    Period,
    beyond,
    counters,
    decide,
    left,
    next_day,
    next_month,
)
from gateway.identity.budgets import KeyBudget, Limits, read, written

SCOPE, USDC, ETHER = UUID(int=1), UUID(int=2), UUID(int=3)
FRIDAY = date(2026, 7, 31)
AMOUNTS = st.integers(1, 10**30)
LIMITS = st.builds(Limits, *[st.none() | st.integers(0, 10**30)] * 3)


def budget(call: int | None = None, day: int | None = None, month: int | None = None) -> KeyBudget:
    return KeyBudget(SCOPE, USDC, Limits(call, day, month))


@pytest.mark.parametrize(
    ("limits", "amount", "period", "limit"),
    [
        ((10, None, None), 11, "call", 10),
        ((None, 10, None), 11, "day", 10),
        ((None, None, 10), 11, "month", 10),
        ((5, 10, 20), 11, "call", 5),
        ((None, 10, 5), 11, "day", 10),
        ((0, None, None), 1, "call", 0),
        ((None, 0, None), 1, "day", 0),
    ],
)
def test_what_is_above_a_limit_alone_never_fits(
    limits: tuple[int | None, ...], amount: int, period: Period, limit: int
) -> None:
    assert decide(budget(*limits), USDC, amount, FRIDAY) == Overrun(period, limit, None, None)


def test_single_calls_are_not_counted() -> None:
    assert decide(budget(call=10), USDC, 10, FRIDAY) == ()


def test_a_day_and_its_month_are_counted_together_also_where_one_has_no_limit() -> None:
    for one in (budget(day=10), budget(month=30), budget(day=10, month=30)):
        counted = decide(one, USDC, 10, FRIDAY)
        assert isinstance(counted, tuple)
        day, month = counted
        assert (day.kind, day.period, day.most) == (DAY, FRIDAY, one.limits.per_day)
        assert (month.kind, month.period, month.most) == (MONTH, date(2026, 7, 1), one.limits.per_month)
        assert {(item.scope, item.subject, item.amount, item.least) for item in counted} == {(SCOPE, USDC, None, 0)}


def test_another_asset_cannot_be_compared() -> None:
    assert decide(budget(call=10**30), ETHER, 1, FRIDAY) == OtherAsset()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (DAY, Overrun("day", 10, 7, datetime(2026, 8, 1, tzinfo=UTC))),
        (MONTH, Overrun("month", 30, 7, datetime(2026, 8, 1, tzinfo=UTC))),
        ("calls", None),
        (None, None),
    ],
)
def test_a_verdict_of_the_ledger_is_read(kind: str | None, expected: Overrun | None) -> None:
    assert beyond(budget(day=10, month=30), kind, 7, FRIDAY) == expected


@pytest.mark.parametrize(
    ("day", "tomorrow", "next_first"),
    [
        (date(2026, 7, 31), datetime(2026, 8, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC)),
        (date(2026, 12, 31), datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (date(2028, 2, 28), datetime(2028, 2, 29, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)),
        (date(2026, 1, 1), datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)),
    ],
)
def test_when_it_renews(day: date, tomorrow: datetime, next_first: datetime) -> None:
    assert (next_day(day), next_month(day)) == (tomorrow, next_first)


def test_what_is_left_is_never_below_nothing() -> None:
    assert [left(10, 4), left(10, 10), left(10, 11), left(None, 11)] == [6, 0, 0, None]


@given(LIMITS)
def test_what_is_stored_is_what_was_set(limits: Limits) -> None:
    made = KeyBudget(SCOPE, USDC, limits)
    assert read([None if one is None else str(one) for one in written(made)]) == made


@given(LIMITS, st.lists(st.tuples(st.integers(0, 70), AMOUNTS), max_size=30))
def test_no_day_and_no_month_passes_its_limit_and_nothing_that_fits_is_refused(
    limits: Limits, calls: list[tuple[int, int]]
) -> None:
    """With a ledger that counts as ledger.count_exchange does, on days in any order."""
    stood: Sums[tuple[str, date]] = Sums()
    taken: dict[date, list[int]] = {}
    for days, amount in calls:
        day = FRIDAY + timedelta(days=days)
        counted = decide(KeyBudget(SCOPE, USDC, limits), USDC, amount, day)
        if isinstance(counted, tuple) and all(
            one.most is None or stood[one.kind, one.period] + amount <= one.most for one in counted
        ):
            stood.update({(one.kind, one.period): amount for one in counted})
            taken.setdefault(day, []).append(amount)
        else:
            assert any(
                limit is not None and spent + amount > limit
                for limit, spent in (
                    (limits.per_call, 0),
                    (limits.per_day, sum(taken.get(day, []))),
                    (limits.per_month, sum(in_month(taken, day))),
                )
            )
    for day, amounts in taken.items():
        assert limits.per_call is None or max(amounts) <= limits.per_call
        assert limits.per_day is None or sum(amounts) <= limits.per_day
        assert limits.per_month is None or sum(in_month(taken, day)) <= limits.per_month


def in_month(taken: dict[date, list[int]], day: date) -> list[int]:
    """Return the amounts of a day's month."""
    return [one for other, amounts in taken.items() if other.timetuple()[:2] == day.timetuple()[:2] for one in amounts]


def test_counters_are_the_same_for_a_whole_day_and_other_ones_on_the_next() -> None:
    first, second = counters(budget(day=1), FRIDAY), counters(budget(day=1), FRIDAY + timedelta(days=1))
    assert {(one.kind, one.period) for one in first} & {(one.kind, one.period) for one in second} == set()
