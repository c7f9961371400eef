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
# Joins that ask whether there is such a row -> the side that they ask, of which nothing is in their output.
_LOOKED_UP = {"Semi": "Inner", "Anti": "Inner", "Right Semi": "Outer", "Right Anti": "Outer"}
_QUOTED = re.compile(r"'(?:[^']|'')*'" r'|"(?:[^"]|"")*"')
_EXPRESSIONS = ("Output", "Filter", "Cond", "Key", "Condition")
_MANY = 10**12

Node = dict[str, Any]


def metered_rows(*, returned: int, size: int, folded: int) -> int:
    """Return the rows to pay for. `size` is the answer's bytes, `folded` what `folded_rows` said of the plan."""
    return max(1, returned, -(-size // BYTES_PER_ROW) if returned else 0, folded)


def folded_rows(plan: Node, *, arrays: bool = True) -> int:
    """Return how many rows a plan (EXPLAIN (VERBOSE, FORMAT JSON), its "Plan") folds into values of its answer.

    Counts the input of every node that computes a collecting function, and the rows of sub-selects whose result is
    made into an array, once per outer row. What a predicate looks up (IN, EXISTS, ANY, ALL) carries nothing out.
    `arrays` says whether the text of the query has an ARRAY(SELECT …): older servers' plans do not tell one from an IN.
    """
    return min(sum(_folded(plan, 1, arrays=arrays)), _MANY)


def _folded(node: Node, times: int, *, arrays: bool) -> Iterator[int]:
    children = [child for child in node.get("Plans", []) if _is_node(child)]
    if node.get("Node Type") in _FOLDING_NODES and any(_CALL.search(text) for text in _outputs(node)):
        yield times * sum(_rows(child) for child in children if not _is_subplan(child))
    expressions = _expressions(node) if any(_is_subplan(child) for child in children) else ""
    looked_up = _LOOKED_UP.get(str(node.get("Join Type")))
    for child in children:
        if looked_up is not None and child.get("Parent Relationship") == looked_up:
            continue
        if not _is_subplan(child):
            yield from _folded(child, times, arrays=arrays)
            continue
        use = _use(str(child.get("Subplan Name", "")), expressions)
        if use == "predicate":
            continue
        again = times * _rows(node) if child.get("Parent Relationship") == "SubPlan" else times
        if _rows(child) > 1 and (use == "array" or arrays):
            yield again * _rows(child)
        yield from _folded(child, again, arrays=arrays)


def _use(subplan: str, expressions: str) -> str | None:
    """Return what a sub-plan is used for, "array" or "predicate", where the expressions of its node tell.

    Only a predicate has a hash of its sub-plan. From version 17 on plans write ARRAY(SubPlan 1), EXISTS(SubPlan 1)
    and, inside of ANY and ALL, (SubPlan 1).col1.
    """
    name = re.match(r"(?:Init|Sub)Plan [0-9]+", subplan)
    if name is None:
        return None
    if f"ARRAY({name[0]})" in expressions:
        return "array"
    looked_up = rf"hashed {name[0]}\b|EXISTS\({name[0]}\)" + (rf"|\({name[0]}\)\.col" if name[0][0] == "S" else "")
    return "predicate" if re.search(looked_up, expressions) else None


def _expressions(node: Node) -> str:
    """Return all expressions of a node, without what a buyer can write into constants and names."""
    texts: list[str] = []
    for name, value in node.items():
        if name.endswith(_EXPRESSIONS):
            texts += [str(text) for text in value] if _is_list(value) else [str(value)]
    return _QUOTED.sub("''", " ".join(texts))


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


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
