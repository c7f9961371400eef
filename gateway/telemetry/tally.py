"""Numbers gathered in plain Python and handed to prometheus_client a few times a second.

In multi-process mode each `inc` of the library writes to a mapped file under a lock: 0.75 µs a counter, 1.6 to 2.4 a
histogram, so ten stages and three counters would cost a paid call a quarter of its CPU. Adding here costs a tenth. The
price: a worker that is killed loses what it counted in the last quarter second. Metrics may; the ledger may not and
does not depend on them.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol, cast

from prometheus_client import Counter, Gauge, Histogram

FLUSH_SECONDS = 0.25


class Sheet:
    """The tallies that changed since the last flush. A timer runs only while there are any."""

    def __init__(self) -> None:
        self._changed: list[Count | Spread] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # whose timer will flush

    def note(self, tally: Count | Spread) -> None:
        """Remember a tally that has just become non-zero, and see that it gets flushed."""
        self._changed.append(tally)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()  # no event loop (a command line tool): nothing to gain by waiting
            return
        if loop is not self._loop:
            self._loop = loop
            loop.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand over everything that changed."""
        self._loop = None
        changed, self._changed = self._changed, []
        for tally in changed:
            tally.flush()


class Count:
    """A counter or gauge child with what is to be added to it."""

    __slots__ = ("_child", "_noted", "_pending", "_sheet")

    def __init__(self, child: Counter | Gauge, sheet: Sheet) -> None:
        self._child, self._sheet = child, sheet
        self._pending, self._noted = 0, False

    def add(self, amount: int = 1) -> None:
        """Add to the next flush."""
        self._pending += amount
        if not self._noted:
            self._noted = True
            self._sheet.note(self)

    def flush(self) -> None:
        """Hand over and start from zero."""
        amount, self._pending, self._noted = self._pending, 0, False
        if amount:
            self._child.inc(amount)


class Spread:
    """A histogram child with what is to be added to its buckets."""

    __slots__ = ("_bounds", "_child", "_counts", "_noted", "_sheet", "_sum")

    def __init__(self, child: Histogram, bounds: Sequence[float], sheet: Sheet) -> None:
        self._child, self._bounds, self._sheet = child, bounds, sheet
        self._counts, self._sum, self._noted = [0] * (len(bounds) + 1), 0.0, False

    def observe(self, value: float) -> None:
        """Add one observation to the next flush."""
        self._counts[bisect_left(self._bounds, value)] += 1  # "le": a value on a bound belongs below it
        self._sum += value
        if not self._noted:
            self._noted = True
            self._sheet.note(self)

    def flush(self) -> None:
        """Hand over and start from zero.

        The library has no public way to add many observations at once; test_tally.py holds this to `observe`.
        """
        counts, total, self._noted = self._counts, self._sum, False
        self._counts, self._sum = [0] * len(counts), 0.0
        child = cast("_Inside", self._child)
        child._sum.inc(total)  # pyright: ignore[reportPrivateUsage]
        for bucket, count in zip(child._buckets, counts, strict=True):  # pyright: ignore[reportPrivateUsage]
            if count:
                bucket.inc(count)


class _Value(Protocol):
    def inc(self, amount: float) -> None: ...


class _Inside(Protocol):
    """What a histogram child is made of, in 0.25 and 0.26 alike."""

    _sum: _Value
    _buckets: list[_Value]
