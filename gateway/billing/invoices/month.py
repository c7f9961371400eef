"""A month of invoices: the calendar's, in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from gateway.errors import InvalidRequest

FIRST_YEAR = 2000


@dataclass(frozen=True, slots=True)
class Month:
    """A month: `start` belongs to it, `end` is the first moment after it."""

    year: int
    month: int

    @property
    def first(self) -> date:
        """Return its first day."""
        return date(self.year, self.month, 1)

    @property
    def last(self) -> date:
        """Return its last day."""
        return self.following.first - timedelta(days=1)

    @property
    def following(self) -> Month:
        """Return the month after it."""
        return Month(self.year + self.month // 12, self.month % 12 + 1)

    @property
    def start(self) -> datetime:
        """Return its first moment."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """Return the first moment after it."""
        return self.following.start

    def __str__(self) -> str:
        """Return it as 2026-10."""
        return f"{self.year:04}-{self.month:02}"


def month_of(day: date) -> Month:
    """Return the month that a day lies in."""
    return Month(day.year, day.month)


def past_month(year: int, month: int, now: datetime) -> Month:
    """Return a month that is over. Raises InvalidRequest naming the field that is wrong."""
    if not 1 <= month <= 12:
        raise _wrong("month", "must be from 1 to 12")
    latest = month_of(now.astimezone(UTC).date())
    if year < FIRST_YEAR:
        raise _wrong("year", f"must be {FIRST_YEAR} or later")
    if (year, month) >= (latest.year, latest.month):
        raise _wrong("month", f"must be over: {latest} still runs, so the last one can be that before it")
    return Month(year, month)


def _wrong(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}", errors=[{"field": field, "message": message}])
