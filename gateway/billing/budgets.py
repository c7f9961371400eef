"""What an API key may spend, as a pure policy: from a budget, an amount and a moment to counters, or to a refusal.

    per call:            the amount alone decides; nothing is counted
    per day, per month:  the ledger adds the amount to a counter of the UTC day and to one of the UTC month, in the
                         transaction that charges or holds it, and does none of it where a limit would be passed

So a budget is as hard as a balance: no calls that race pass it, in whatever workers. A hold counts whole until its end,
and then as what was captured; what is given back is taken off the day and the month that it was counted in.

Money in another asset than the budget's cannot be compared with it, so a key with a budget pays nothing in it. What
does not live here: payments on a chain, which are their wallet's business and count towards no key's budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from uuid import UUID

from gateway.identity.budgets import KeyBudget
from gateway.ledger.counters import Counter, month_of

DAY, MONTH = "budget_day", "budget_month"
Period = Literal["call", "day", "month"]


@dataclass(frozen=True, slots=True)
class Overrun:
    """A limit that an amount does not fit into; atomic units. `spent` includes what is held, where it matters.

    `renews_at` is when there is room for the amount again, None for one that is above the limit alone.
    """

    period: Period
    limit: int
    spent: int | None
    renews_at: datetime | None


@dataclass(frozen=True, slots=True)
class OtherAsset:
    """The amount is in another asset than the budget."""


def decide(budget: KeyBudget, asset_id: UUID, amount: int, day: date) -> tuple[Counter, ...] | Overrun | OtherAsset:
    """Return what a charge or hold of an amount counts on a UTC day, or why no call of the key may ever cost it.

    `asset_id` is the ledger asset of the amount.
    """
    if asset_id != budget.asset_id:
        return OtherAsset()
    limits = budget.limits
    bounds: tuple[tuple[Period, int | None], ...] = (
        ("call", limits.per_call),
        ("day", limits.per_day),
        ("month", limits.per_month),
    )
    for period, limit in bounds:
        if limit is not None and amount > limit:
            return Overrun(period, limit, None, None)
    return counters(budget, day)


def counters(budget: KeyBudget, day: date) -> tuple[Counter, ...]:
    """Return the counters of a UTC day and its month, as bounded by a budget; none where only calls are."""
    limits = budget.limits
    if not limits.counted:
        return ()
    return (
        Counter(budget.scope, budget.asset_id, DAY, day, most=limits.per_day),
        Counter(budget.scope, budget.asset_id, MONTH, month_of(day), most=limits.per_month),
    )


def beyond(budget: KeyBudget, kind: str | None, counted: int, day: date) -> Overrun | None:
    """Return what the ledger's verdict `beyond` means: which limit, of which `counted` is spent. None: no budget's."""
    limits = budget.limits
    if kind == DAY and limits.per_day is not None:
        return Overrun("day", limits.per_day, counted, next_day(day))
    if kind == MONTH and limits.per_month is not None:
        return Overrun("month", limits.per_month, counted, next_month(day))
    return None


def next_day(day: date) -> datetime:
    """Return when the UTC day behind a day begins."""
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def next_month(day: date) -> datetime:
    """Return when the UTC month behind a day's begins."""
    return datetime.combine(month_of(month_of(day) + timedelta(days=32)), time(), UTC)


def left(limit: int | None, spent: int) -> int | None:
    """Return what is left of a limit: nothing where it was lowered below what had been spent; None without a limit."""
    return None if limit is None else max(limit - spent, 0)
