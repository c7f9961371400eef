"""`Retry-After` of a receiver's answer (RFC 9110, section 10.2.3): seconds or an HTTP-date. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_DIGITS = re.compile(rb"[0-9]+", re.ASCII)
_LONGEST = 10
"""Digits that are read as a number; more than those exceed every bound."""


def retry_after(fields: Iterable[tuple[bytes, bytes]], now: datetime, most: timedelta) -> datetime | None:
    """Return until when a receiver asks us to wait, at most `most` from now; None when it does not, or says nonsense.

    Of several fields the longest wait counts.
    """
    moments = [_moment(value.strip(), now, most) for name, value in fields if name.lower() == b"retry-after"]
    waits = [moment for moment in moments if moment is not None and moment > now]
    return max(waits, default=None)


def _moment(value: bytes, now: datetime, most: timedelta) -> datetime | None:
    latest = now + most
    if _DIGITS.fullmatch(value):
        if len(value.lstrip(b"0")) > _LONGEST:
            return latest
        return now + min(timedelta(seconds=int(value)), most)
    try:
        date = parsedate_to_datetime(value.decode("ascii"))
        # An HTTP-date is in GMT also where it does not say so.
        return min(date.astimezone(UTC) if date.tzinfo is not None else date.replace(tzinfo=UTC), latest)
    except (ValueError, OverflowError):
        return None
