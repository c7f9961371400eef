"""What the text of a query says about the number of its rows: a LIMIT, one row of an aggregate, the groups of a key.

A planner guesses hundreds of groups for a CASE; its text has three.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import postgast.pg_query_pb2 as pg
from google.protobuf.message import Message

from pricing.sql.functions import AGGREGATE, COLLECTING, ROWS
from pricing.sql.tree import function_of, held, inside, integer, strings, text_of, walk

MOST = 1_000_000
# Parts of a date with a fixed number of values; second and week may have one more than one would think.
_PARTS = {
    "month": 12, "quarter": 4, "day": 31, "dow": 7, "isodow": 7, "hour": 24, "minute": 60, "week": 53, "doy": 366,
}  # fmt: skip
_COMPARISONS = frozenset({"=", "<>", "<", ">", "<=", ">=", "~~", "~~*", "!~~", "!~~*"})


def constant_limit(query: pg.SelectStmt) -> int | None:
    """Return the constant row bound of a query; None without one."""
    if query.limit_option == pg.LIMIT_OPTION_WITH_TIES:
        return None  # as many as are equal to the last
    return integer(inside(query.limit_count))


def is_one_row(query: pg.SelectStmt) -> bool:
    """Return whether a query is an aggregate without GROUP BY: exactly one row."""
    if not query.target_list or query.group_clause or query.HasField("having_clause"):
        return False
    calls = list(_calls(query))
    folds = any(function_of(call) in AGGREGATE and not call.HasField("over") for call in calls)
    return folds and not _makes_rows(calls)


def has_array(parts: Iterable[Message]) -> bool:
    """Return whether there is an ARRAY(SELECT …) among the parts of a query."""
    return any(isinstance(part, pg.SubLink) and part.sub_link_type == pg.ARRAY_SUBLINK for part in parts)


def is_collecting(parts: Sequence[Message]) -> bool:
    """Return whether many rows are carried in one value somewhere among the parts of a query."""
    return has_array(parts) or any(isinstance(part, pg.FuncCall) and function_of(part) in COLLECTING for part in parts)


def most_groups(query: pg.SelectStmt) -> int | None:
    """Return a bound on the rows of a query by its GROUP BY or DISTINCT, None where the text gives none."""
    keys = _keys(query)
    if query.group_clause and _makes_rows(_calls(query)):
        return None
    bounds = [_values(_meant(key, query)) for key in keys]
    if not keys or any(bound is None for bound in bounds):
        return None
    return min(prod(bound for bound in bounds if bound is not None), MOST)


def _makes_rows(calls: Iterable[pg.FuncCall]) -> bool:
    """Return whether an output is a function that makes several rows of each, such as unnest()."""
    return any(function_of(call) in ROWS for call in calls)


def _calls(query: pg.SelectStmt) -> Iterator[pg.FuncCall]:
    """Yield the function calls in the outputs of a query, without those of queries nested in it."""
    for target in held(query.target_list):
        yield from (part for part in walk(target, into_queries=False) if isinstance(part, pg.FuncCall))


def _keys(query: pg.SelectStmt) -> list[Message]:
    keys = held(query.group_clause)
    if keys:
        return [] if any(isinstance(key, pg.GroupingSet) for key in keys) else keys
    if query.distinct_clause and not held(query.distinct_clause):  # DISTINCT ON has expressions there
        return held(query.target_list)
    return []


def _meant(key: Message, query: pg.SelectStmt) -> Message | None:
    """Return the expression that a position or an output's name in GROUP BY stands for."""
    outputs = [target for target in held(query.target_list) if isinstance(target, pg.ResTarget)]
    number = integer(key)
    if number is not None and 0 < number <= len(outputs):
        return inside(outputs[number - 1].val)
    if isinstance(key, pg.ResTarget):
        return inside(key.val)
    if isinstance(key, pg.ColumnRef) and len(key.fields) == 1:
        name = strings(key.fields)[-1:]
        return next((inside(target.val) for target in outputs if (target.name,) == name), key)
    return key


def _values(expression: Message | None) -> int | None:
    """Return how many values an expression can have, null included."""
    if isinstance(expression, pg.A_Const):
        return 1
    if isinstance(expression, pg.CaseExpr):
        whens = [when for when in held(expression.args) if isinstance(when, pg.CaseWhen)]
        branches = [_values(inside(when.result)) for when in whens]
        if expression.HasField("defresult"):
            branches.append(_values(inside(expression.defresult)))
        return sum(branch or 0 for branch in branches) + 1 if None not in branches else None
    if _is_truth(expression):
        return 3
    if isinstance(expression, pg.FuncCall):
        return _results(expression)
    return None


def _is_truth(expression: Message | None) -> bool:
    if isinstance(expression, pg.A_Expr):
        if expression.kind == pg.AEXPR_OP:
            return strings(expression.name)[-1] in _COMPARISONS
        return expression.kind != pg.AEXPR_NULLIF
    if isinstance(expression, pg.SubLink):
        return expression.sub_link_type in (pg.EXISTS_SUBLINK, pg.ANY_SUBLINK, pg.ALL_SUBLINK)
    return isinstance(expression, pg.BoolExpr | pg.NullTest | pg.BooleanTest)


def _results(call: pg.FuncCall) -> int | None:
    arguments = held(call.args)
    if function_of(call) in ("extract", "date_part") and arguments:
        known = _PARTS.get((text_of(arguments[0]) or "").lower())
        return None if known is None else known + 1
    if function_of(call) == "width_bucket" and len(arguments) == 4:
        buckets = integer(arguments[3])
        return None if buckets is None else buckets + 3
    return None
