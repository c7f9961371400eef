"""How many rows a query is paid for: those that were delivered, or those that were folded into fewer.

    metered = max(1, rows returned, bytes returned / 128, rows entering a node that collects them into values)

What ran is one row at least: that nothing was found tells something too, and where a publisher sets no minimum it would
be asked for nothing.

A query that folds a table into one value (an array, a JSON document, a joined string) carries the table; the plan says
how many rows enter the node that does it. Those are the planner's numbers where the server has not counted. What is
not folding: count, sum, min, max, avg and percentiles, whose answer does not grow with their input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeGuard

from pricing.sql.functions import COLLECTING

BYTES_PER_ROW = 128
"""A row of up to this size counts as one; a wider answer counts as the rows that its bytes would fill."""

_CALL = re.compile(r"\b(" + "|".join(sorted(COLLECTING)) + r")\(")
_FOLDING_NODES = frozenset({"Aggregate", "WindowAgg", "Group"})
_MANY = 10**12

Node = dict[str, Any]


def metered_rows(*, returned: int, size: int, folded: int) -> int:
    """Return the rows to pay for. `size` is the answer's bytes, `folded` what `folded_rows` said of the plan."""
    return max(1, returned, -(-size // BYTES_PER_ROW) if returned else 0, folded)


def folded_rows(plan: Node) -> int:
    """Return how many rows a plan (EXPLAIN (VERBOSE, FORMAT JSON), its "Plan") folds into values of its answer.

    Counts the input of every node that computes a collecting function, and the rows of sub-selects whose result is
    made into an array, once per outer row.
    """
    return min(sum(_folded(plan, 1)), _MANY)


def _folded(node: Node, times: int) -> Iterator[int]:
    children = [child for child in node.get("Plans", []) if _is_node(child)]
    if node.get("Node Type") in _FOLDING_NODES and any(_CALL.search(text) for text in _outputs(node)):
        yield times * sum(_rows(child) for child in children if not _is_subplan(child))
    for child in children:
        if _is_subplan(child):
            again = times * _rows(node) if child.get("Parent Relationship") == "SubPlan" else times
            if _makes_array(node, child):
                yield again * _rows(child)
            yield from _folded(child, again)
        else:
            yield from _folded(child, times)


def _makes_array(node: Node, child: Node) -> bool:
    """An ARRAY(SELECT …) shows as a sub-plan of more than one row whose number the outputs refer to."""
    return _rows(child) > 1 and str(child.get("Subplan Name", "")).partition(" ")[0] in ("InitPlan", "SubPlan")


def _is_subplan(node: Node) -> bool:
    return node.get("Parent Relationship") in ("InitPlan", "SubPlan") and not str(
        node.get("Subplan Name", "")
    ).startswith("CTE ")


def _outputs(node: Node) -> Iterator[str]:
    for text in node.get("Output", []):
        if isinstance(text, str):
            yield text


def _rows(node: Node) -> int:
    rows = node.get("Plan Rows", 0)
    return max(1, rows) if isinstance(rows, int) else 1


def _is_node(value: object) -> TypeGuard[Node]:
    return isinstance(value, dict)
