"""What a part of a month costs, and calls beyond the included ones. Pure; integers only.

A month is as long as it is, in whole seconds. A part's price is what is due by its end less what is due by its
beginning, each rounded down: so the parts of a month sum to its price whatever they are, no part is negative, and none
costs more than the month. The day of a change is paid by the second, by the old plan until then and the new one after.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

SECOND = timedelta(seconds=1)
THOUSAND = 1_000


def month_start(moment: datetime) -> datetime:
    """Return when the UTC month of a moment began."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_end(moment: datetime) -> datetime:
    """Return when the next UTC month begins."""
    return month_start(month_start(moment) + timedelta(days=32))


def part_of_month(price: int, month: datetime, start: datetime, end: datetime) -> int:
    """Return the price of [start, end) of a month that costs `price`; what lies outside of the month costs nothing.

    Fractions of seconds are the earlier part's: a bound counts as the whole second that it is in.
    """
    first, beyond = month_start(month), month_end(month)
    length = (beyond - first) // SECOND

    def due(moment: datetime) -> int:
        return price * ((min(max(moment, first), beyond) - first) // SECOND) // length

    return max(due(end) - due(start), 0)


def overage(calls: int, included: int, prices: Iterable[tuple[int, int]]) -> int:
    """Return the price of the calls beyond the included ones, rounded up to the next atomic unit.

    `prices` are those of a thousand calls, and for how many seconds each held: what counts is their average.
    """
    held = list(prices)
    seconds = sum(time for _, time in held)
    return -(-max(calls - included, 0) * sum(price * time for price, time in held) // (THOUSAND * seconds))
