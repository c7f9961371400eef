"""Moments and days that somebody names in a query or a body."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from gateway.catalog.refusals import refused


def moment(name: str, text: str, days: int = 0) -> datetime:
    """Return the moment that a text names, or that a day begins at, `days` later. Raises InvalidRequest for `name`."""
    try:
        if len(text) == len("2026-01-01"):
            day = date.fromisoformat(text) + timedelta(days=days)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        named = datetime.fromisoformat(text)
        return (named if named.tzinfo else named.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise refused(
            name, "must be a moment or a day in ISO 8601, such as 2026-01-31T12:00:00Z or 2026-01-31"
        ) from None
