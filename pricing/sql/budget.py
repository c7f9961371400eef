"""Before a query runs: how many rows it will probably be paid for, and how many at most.

    most = max(rows that it can return x what each may weigh, 4 x rows that it folds, 32)

The bound on returned rows is exact (a constant LIMIT, the gateway's cap); the weight of a row is the planner's, with
room to be wrong, or what repeat() and the like make by their constants where the text bounds the rows. What is held is
the price of `most`, and the query is stopped there; what is paid is what was metered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pricing.sql.estimate import estimated_rows
from pricing.sql.metering import BYTES_PER_ROW
from pricing.sql.policy import CheckedQuery

LEAST = 32
"""Every query may answer 4 KiB: one value is often wider than any planner knows."""
FOLD_ROOM = 4
"""A folded row may weigh so many metered rows."""
WIDTH_ROOM = 4
ROUNDED = (1, 2, 5, 10)
FLOOR = 10
"""Quotes for fewer rows than this would tell whether a value occurs at all."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Rows: `estimate` and `most` are metered ones, `returned` bounds those that the answer may have."""

    estimate: int
    most: int
    returned: int

    @property
    def shown(self) -> int:
        """Return the estimate as it may be told for nothing."""
        return rounded(self.estimate, self.returned if self.estimate <= self.returned else self.most)

    @property
    def shown_most(self) -> int:
        """Return the most as it may be told for nothing: what folds rows is bounded by what the planner knows."""
        return max(rounded(self.most), self.shown)


def bound(checked: CheckedQuery, cap: int) -> int:
    """Return how many rows a query can return at most, by its text alone."""
    if checked.one_row:
        return 1
    return cap if checked.limit is None else max(0, min(checked.limit, cap))


def budget(
    checked: CheckedQuery, *, planned: int | None, folded: int, width: int, columns: Sequence[str], cap: int, size: int
) -> Budget:
    """Return what a query may come to.

    `planned`, `folded` and `width` (bytes of a row) are the planner's, `columns` the answer's names, which every row
    repeats; `cap` and `size` are the most rows and bytes of any answer.
    """
    names = sum(len(name.encode()) + 4 for name in columns) + 2
    returned = bound(checked, cap)
    expected = min(estimated_rows(checked, planned, cap=cap), max(returned, 1))
    estimate = max(expected, _rows_of(expected * (names + width)), folded)
    widest = max(WIDTH_ROOM * width, checked.width if returned < cap else 0)
    most = max(returned * _rows_of(names + widest), FOLD_ROOM * folded, LEAST)
    most = min(most, max(_rows_of(size), folded))
    return Budget(min(estimate, most), most, returned)


def rounded(rows: int, bound: int | None = None) -> int:
    """Return an estimate that may be told for nothing: 10, 20, 50, 100, ... and never above a bound that is known."""
    scale = FLOOR
    while scale * ROUNDED[-1] < rows:
        scale *= 10
    shown = next(scale * step for step in ROUNDED if scale * step >= rows)
    return shown if bound is None else max(1, min(shown, bound))


def _rows_of(size: int) -> int:
    return max(1, -(-size // BYTES_PER_ROW))
