"""What `Retry-After` of a receiver is read as."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.webhooks.retry_after import retry_after

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"120", 120),
        (b" 7 ", 7),
        (b"86400", 86_400),
        (b"86401", 86_400),
        (b"9" * 400, 86_400),
        (b"0" * 400 + b"7", 7),
        (b"Mon, 30 Nov 2026 12:05:00 GMT", 300),
        (b"Monday, 30-Nov-26 12:05:00 GMT", 300),
        (b"Mon Nov 30 12:05:00 2026", 300),
        (b"Mon, 30 Nov 2036 12:05:00 GMT", 86_400),
        (b"0", None),
        (b"Mon, 30 Nov 2026 11:59:00 GMT", None),
        (b"-5", None),
        (b"1.5", None),
        (b"soon", None),
        (b"\xff", None),
        (b"", None),
        (b"Mon, 99 Nov 2026 12:05:00 GMT", None),
        (b"Fri, 31 Dec 9999 23:59:59 -2359", None),
    ],
)
def test_seconds_and_dates_are_read_and_bounded(value: bytes, seconds: int | None) -> None:
    expected = None if seconds is None else NOW + timedelta(seconds=seconds)
    assert retry_after([(b"Retry-After", value)], NOW, DAY) == expected


def test_the_longest_of_several_counts_and_none_is_none() -> None:
    assert retry_after([(b"retry-after", b"5"), (b"RETRY-AFTER", b"9")], NOW, DAY) == NOW + timedelta(seconds=9)
    assert retry_after([(b"content-type", b"5")], NOW, DAY) is None
