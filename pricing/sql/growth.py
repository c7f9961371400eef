"""How large a value a query's constants can be made into. The planner evaluates them, before anything can be metered.

An upper bound in bytes, by the form of the query alone: what joins texts adds, what repeats or replaces multiplies, and
a column of a sub-select is as large as the largest of its outputs. A table's column counts as COLUMN: its rows are read
when the query runs, in bounded time, and are metered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from sqlglot import exp

from pricing.sql.guard import QueryRefused
from pricing.sql.lexer import folded

MAX_MADE = 16_777_216
COLUMN = 64
NUMBER = 32
ESCAPED = 8
"""What escaping, encoding or indenting may make of one byte."""

QUERIES = (exp.Select, exp.SetOperation, exp.Subquery, exp.Values)
_MULTIPLIES = frozenset({"array_to_string", "format", "concat_ws", "ts_headline", "regexp_replace", "replace"})
_ESCAPES = frozenset(
    {"jsonb_pretty", "to_json", "to_jsonb", "quote_literal", "quote_nullable", "quote_ident", "encode"}
)
_MULTIPLYING = (exp.Replace, exp.RegexpReplace, exp.Format, exp.ArrayToString, exp.ConcatWs)
_ESCAPING = (exp.Encode,)
_PADDING = (exp.DType.CHAR, exp.DType.NCHAR, exp.DType.BPCHAR, exp.DType.BIT)

Sizes = Mapping[str, int]


def check_growth(tree: exp.Expr) -> None:
    """Raise QueryRefused when some value may become larger than MAX_MADE bytes."""
    try:
        _query(tree, {}, COLUMN)
    except RecursionError:
        raise QueryRefused("too_deep", "The query is nested too deeply.") from None


def _query(node: exp.Expr, known: Sizes, outer: int) -> int:
    """Return the size of the largest output of a query. `known` are CTEs, `outer` what outer columns may hold."""
    sizes = dict(known)
    for cte in _parts(node.args.get("with_"), "expressions"):
        sizes[folded(cte.alias)] = _query(cte.this, sizes, outer)
    if isinstance(node, exp.SetOperation):
        return max(_query(node.this, sizes, outer), _query(node.expression, sizes, outer))
    if isinstance(node, exp.Subquery):
        return _query(node.this, sizes, outer)
    if isinstance(node, exp.Values):
        return max((_size(one, sizes, outer) for one in node.expressions), default=NUMBER)
    return _select(node, sizes, outer) if isinstance(node, exp.Select) else _size(node, sizes, outer)


def _select(node: exp.Expr, sizes: Sizes, outer: int) -> int:
    column = outer
    for source in _sources(node):
        column = max(column, _source(source, sizes, column))
    largest = NUMBER
    for name, value in node.args.items():
        for part in _expressions(value):
            if name == "from_" or isinstance(part, exp.With | exp.Lateral):
                continue
            size = _size(part.args.get("on") if isinstance(part, exp.Join) else part, sizes, column)
            if name == "expressions":
                largest = max(largest, size)
    return largest


def _sources(node: exp.Expr) -> Iterator[exp.Expr]:
    first = node.args.get("from_")
    if isinstance(first, exp.From):
        yield first.this
        yield from (join.this for join in _parts(first.this, "joins"))
    yield from (join.this for join in _parts(node, "joins"))
    yield from _parts(node, "laterals")


def _source(node: exp.Expr, sizes: Sizes, column: int) -> int:
    if isinstance(node, exp.Table):
        name = folded(node.name)
        inner = node.this if not isinstance(node.this, exp.Identifier) else None
        return _size(inner, sizes, column) if inner is not None else sizes.get(name, COLUMN)
    if isinstance(node, exp.Lateral):
        return _source(node.this, sizes, column)
    return _query(node, sizes, column) if isinstance(node, QUERIES) else _size(node, sizes, column)


def _size(node: exp.Expr | None, sizes: Sizes, column: int) -> int:
    """Return an upper bound for a value. Raises QueryRefused when it is too large."""
    if node is None:
        return 0
    if isinstance(node, QUERIES):
        return _query(node, sizes, column)
    if isinstance(node, exp.Literal):
        return len(node.name.encode()) if node.is_string else NUMBER
    if isinstance(node, exp.Column | exp.Star):
        return column
    if isinstance(node, exp.DataType | exp.Identifier):
        return 0
    size = _made(node, [_size(part, sizes, column) for part in _children(node)])
    if size > MAX_MADE:
        raise QueryRefused("too_large", f"A value could grow to more than {MAX_MADE} bytes: make it from less.")
    return size


def _made(node: exp.Expr, parts: list[int]) -> int:
    """Return what a node makes of its parts' sizes."""
    name = folded(str(node.this)) if isinstance(node, exp.Anonymous) else ""
    if isinstance(node, exp.Cast):
        return max(NUMBER, sum(parts), _padded(node.to))
    if isinstance(node, exp.Repeat):
        return parts[0] * _number(node.args.get("times"))
    if isinstance(node, exp.Pad):
        return max(parts[0], 4 * _number(node.args.get("expression")))
    if isinstance(node, _MULTIPLYING) or name in _MULTIPLIES:
        first, rest = (parts[0], parts[1:]) if parts else (0, [])
        return max(1, first) * max(1, sum(rest)) if rest else first
    if isinstance(node, _ESCAPING) or name in _ESCAPES:
        return ESCAPED * sum(parts)
    return max(NUMBER, sum(parts))


def _padded(kind: exp.DataType) -> int:
    """Return the size to which a cast fills a value up: that of char(n) and bit(n)."""
    return max(
        (
            4 * _number(length.this)
            for part in kind.find_all(exp.DataType)
            if part.this in _PADDING
            for length in part.find_all(exp.DataTypeParam)
        ),
        default=0,
    )


def _number(node: Any) -> int:
    return int(node.name) if isinstance(node, exp.Literal) and node.name.isdigit() else MAX_MADE


def _children(node: exp.Expr) -> Iterator[exp.Expr]:
    for value in node.args.values():
        yield from _expressions(value)


def _expressions(value: object) -> Iterator[exp.Expr]:
    if isinstance(value, exp.Expr):
        yield value
    elif isinstance(value, list):
        for one in cast("list[object]", value):
            if isinstance(one, exp.Expr):
                yield one


def _parts(node: exp.Expr | None, name: str) -> Iterator[exp.Expr]:
    if node is not None:
        yield from _expressions(node.args.get(name))
