"""How many rows a query will return, before it runs: the planner's number, bounded by what the text says."""

from __future__ import annotations

from typing import Any

from pricing.sql.policy import CheckedQuery

UNKNOWN_SHARE = 10
"""Without a plan a table is taken to give a tenth of its rows."""
FLOOR = 100


def estimated_rows(checked: CheckedQuery, planned: int | None, *, cap: int) -> int:
    """Return the estimate: at least 1, at most `cap`.

    `planned` is the plan's number of rows, better where earlier answers taught so (learning.py), and None when the
    server would not plan in time.
    """
    if checked.one_row:
        return 1
    rows = _without_plan(checked) if planned is None else planned
    for most in (checked.limit, checked.groups):
        rows = rows if most is None else min(rows, most)
    return max(1, min(rows, cap))


def planned_rows(plan: dict[str, Any]) -> tuple[int, int]:
    """Return a plan's rows, and how many rows a LIMIT at its top chooses them from (as many without one).

    `plan` is the "Plan" of EXPLAIN (FORMAT JSON).
    """
    rows = max(0, int(plan.get("Plan Rows", 0)))
    below: list[dict[str, Any]] = plan.get("Plans", [])
    limited = plan.get("Node Type") == "Limit" and below
    return rows, max(rows, int(below[0].get("Plan Rows", 0))) if limited else rows


def _without_plan(checked: CheckedQuery) -> int:
    largest = max((relation.rows or 0 for relation in checked.relations), default=0)
    return max(FLOOR, largest // UNKNOWN_SHARE)
