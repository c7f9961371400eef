"""How many rows a query will return, before it runs: the planner's number, bounded by what the text says."""

from __future__ import annotations

from pricing.sql.policy import CheckedQuery

UNKNOWN_SHARE = 10
"""Without a plan a table is taken to give a tenth of its rows."""
FLOOR = 100


def estimated_rows(checked: CheckedQuery, planned: int | None, *, cap: int, factor_ppm: int = 1_000_000) -> int:
    """Return the estimate: at least 1, at most `cap`.

    `planned` is the plan's number of rows, None when the server would not plan in time; `factor_ppm` is what earlier
    answers to queries of this shape teach (1,000,000 for nothing).
    """
    if checked.one_row:
        return 1
    rows = _without_plan(checked) if planned is None else planned
    if planned is not None:
        rows = -(-rows * factor_ppm // 1_000_000)
    if checked.limit is not None:
        rows = min(rows, checked.limit)
    return max(1, min(rows, cap))


def _without_plan(checked: CheckedQuery) -> int:
    largest = max((relation.rows or 0 for relation in checked.relations), default=0)
    return max(FLOOR, largest // UNKNOWN_SHARE)
