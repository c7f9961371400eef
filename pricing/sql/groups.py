"""How many groups a GROUP BY can make at most, where its text says so: a planner guesses hundreds for a CASE."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from sqlglot import exp

from pricing.sql.functions import ROWS
from pricing.sql.lexer import folded

MOST = 1_000_000
# Parts of a date with a fixed number of values; second and week may have one more than one would think.
_PARTS = {
    "month": 12, "quarter": 4, "day": 31, "dow": 7, "isodow": 7, "dayofweek": 7, "hour": 24, "minute": 60, "week": 53,
    "doy": 366, "dayofyear": 366,
}  # fmt: skip
_TRUTHS = (
    exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.Not, exp.And, exp.Or, exp.Between, exp.In, exp.Like,
    exp.ILike, exp.Exists, exp.Boolean,
)  # fmt: skip


def most_groups(tree: exp.Expr) -> int | None:
    """Return a bound on the rows of a query by its GROUP BY or DISTINCT, None where the text gives none."""
    if not isinstance(tree, exp.Select):
        return None
    keys = _keys(tree)
    if tree.args.get("group") and makes_rows(tree):
        return None
    bounds = [_values(_meant(key, tree)) for key in keys]
    if not keys or any(one is None for one in bounds):
        return None
    return min(prod(one for one in bounds if one is not None), MOST)


def makes_rows(tree: exp.Select) -> bool:
    """Return whether an output is a function that makes several rows of each, such as unnest()."""
    return any(folded(node.sql("postgres").partition("(")[0]) in ROWS for node in calls_in(tree))


def calls_in(tree: exp.Select) -> Iterator[exp.Func]:
    """Yield the function calls in the outputs of a query, without those of queries nested in it."""
    for item in tree.expressions:
        yield from (node for node in item.find_all(exp.Func) if node.parent_select is tree)


def _keys(tree: exp.Select) -> list[exp.Expr]:
    group = tree.args.get("group")
    if isinstance(group, exp.Group):
        plain = not any(value for part, value in group.args.items() if part != "expressions")
        return list(group.expressions) if plain else []
    distinct = tree.args.get("distinct")
    return list(tree.expressions) if isinstance(distinct, exp.Distinct) and not distinct.args.get("on") else []


def _meant(key: exp.Expr, tree: exp.Select) -> exp.Expr:
    """Return the output that a position or an alias in GROUP BY stands for."""
    outputs = tree.expressions
    if isinstance(key, exp.Literal) and not key.is_string and key.name.isdigit() and 0 < int(key.name) <= len(outputs):
        key = outputs[int(key.name) - 1]
    elif isinstance(key, exp.Column) and not key.args.get("table"):
        key = next((one for one in outputs if isinstance(one, exp.Alias) and one.alias == key.name), key)
    return key.this if isinstance(key, exp.Alias) else key


def _values(node: exp.Expr) -> int | None:
    """Return how many values an expression can have, null included."""
    node = node.unnest()
    if isinstance(node, exp.Literal | exp.Null):
        return 1
    if isinstance(node, exp.Case):
        branches = list(_branches(node))
        return sum(one or 0 for one in branches) + 1 if None not in branches else None
    if isinstance(node, _TRUTHS):
        return 3
    if isinstance(node, exp.Extract):
        known = _PARTS.get(folded(node.name))
        return None if known is None else known + 1
    if isinstance(node, exp.Anonymous | exp.WidthBucket) and "width_bucket" in node.sql("postgres").lower()[:13]:
        last = list(node.iter_expressions())[-1]
        return int(last.name) + 3 if isinstance(last, exp.Literal) and last.name.isdigit() else None
    return None


def _branches(node: exp.Case) -> Iterator[int | None]:
    for branch in node.args.get("ifs", []):
        yield _values(branch.args["true"])
    if node.args.get("default") is not None:
        yield _values(node.args["default"])
