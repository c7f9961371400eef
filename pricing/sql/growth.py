"""How large a value a query's constants can be made into. The planner evaluates them, before anything can be metered.

An upper bound in bytes, by the form of the query alone: what joins texts adds, what repeats or replaces multiplies, and
a column of a sub-select is as large as the largest of its outputs. A table's column counts as COLUMN: its rows are read
when the query runs, in bounded time, and are metered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import postgast.pg_query_pb2 as pg
from google.protobuf.message import Message

from pricing.sql.functions import BOUNDED
from pricing.sql.guard import QueryRefused
from pricing.sql.tree import children, function_of, held, inside, integer, place_of, strings, walk

MAX_MADE = 16_777_216
COLUMN = 64
PARAMETER = 65_536
NUMBER = 32
ESCAPED = 8
"""What escaping, encoding or indenting may make of one byte."""

_MULTIPLY = frozenset({"array_to_string", "format", "concat_ws", "ts_headline"})
_REPLACE = frozenset({"regexp_replace", "replace"})
_ESCAPE = frozenset({"jsonb_pretty", "to_json", "to_jsonb", "quote_literal", "quote_nullable", "quote_ident", "encode"})
_PAD = frozenset({"bpchar", "bit"})
_EXPONENT = re.compile(r"[eE]\+?([0-9]+)")

Sizes = Mapping[str, int]


def check_growth(query: pg.SelectStmt) -> int:
    """Return the bytes of the outputs that the text makes longer than a planner knows, such as repeat()'s.

    Raises QueryRefused when some value may become larger than MAX_MADE bytes.
    """
    _query(query, {}, COLUMN)
    targets = [inside(target.val) for target in held(query.target_list) if isinstance(target, pg.ResTarget)]
    return sum(_size(value, {}, COLUMN) for value in targets if _lengthens(value))


def _lengthens(value: Message | None) -> bool:
    """Return whether an output is made by a function whose constant is the length, and not read from elsewhere."""
    parts = list(walk(value)) if value is not None else []
    calls = any(isinstance(part, pg.FuncCall) and function_of(part) in BOUNDED for part in parts)
    return calls and not any(isinstance(part, pg.SelectStmt) for part in parts)


def _query(query: pg.SelectStmt, known: Sizes, outer: int) -> int:
    """Return the size of the largest output of a query. `known` are CTEs, `outer` what outer columns may hold."""
    sizes = dict(known)
    for cte in held(query.with_clause.ctes):
        inner = inside(cte.ctequery) if isinstance(cte, pg.CommonTableExpr) else None
        if isinstance(cte, pg.CommonTableExpr) and isinstance(inner, pg.SelectStmt):
            sizes[cte.ctename] = _query(inner, sizes, outer)
    largest = NUMBER
    column = outer
    if query.HasField("larg"):
        largest = max(_query(query.larg, sizes, outer), _query(query.rarg, sizes, outer))
    for item in held(query.from_clause):
        column = max(column, _source(item, sizes, column))
    for part in (*held(query.target_list), *held(query.values_lists)):
        largest = max(largest, _size(part, sizes, column))
    rest = (query.distinct_clause, query.group_clause, query.window_clause, query.sort_clause)
    for part in (query.where_clause, query.having_clause, query.limit_count, query.limit_offset, *_all(rest)):
        _size(inside(part), sizes, column)
    return largest


def _all(lists: Iterable[Iterable[pg.Node]]) -> list[pg.Node]:
    return [node for nodes in lists for node in nodes]


def _source(item: Message | None, sizes: Sizes, column: int) -> int:
    if isinstance(item, pg.RangeVar):
        return COLUMN if item.schemaname else sizes.get(item.relname, COLUMN)
    if isinstance(item, pg.RangeTableSample):
        _parts(item, sizes, column)
        return COLUMN
    if isinstance(item, pg.JoinExpr):
        left = _source(inside(item.larg), sizes, column)
        both = max(left, _source(inside(item.rarg), sizes, max(column, left)))
        _size(inside(item.quals), sizes, max(column, both))
        return both
    return _size(item, sizes, column)


def _size(message: Message | None, sizes: Sizes, column: int) -> int:
    """Return an upper bound for a value. Raises QueryRefused when it is too large."""
    if message is None or isinstance(message, pg.TypeName | pg.String | pg.Alias | pg.ColumnDef):
        return 0
    if isinstance(message, pg.SelectStmt):
        return _query(message, sizes, column)
    if isinstance(message, pg.A_Const):
        return _constant(message)
    if isinstance(message, pg.ColumnRef):
        return column
    if isinstance(message, pg.ParamRef):
        return PARAMETER
    size = _made(message, _parts(message, sizes, column))
    if size > MAX_MADE:
        text = f"A value could grow to more than {MAX_MADE} bytes: make it from less."
        raise QueryRefused("too_large", text, place_of(message))
    return size


def _parts(message: Message, sizes: Sizes, column: int) -> list[int]:
    """Return the sizes of what a value is made of; the arguments of a call, with its other parts looked at."""
    if not isinstance(message, pg.FuncCall):
        return [_size(part, sizes, column) for part in children(message)]
    arguments = [_size(part, sizes, column) for part in held(message.args)]
    others = [*held(message.agg_order), inside(message.agg_filter), message.over if message.HasField("over") else None]
    for part in others:
        _size(part, sizes, column)
    return arguments or [_size(part, sizes, column) for part in held(message.agg_order)]


def _constant(constant: pg.A_Const) -> int:
    kind = constant.WhichOneof("val")
    if kind == "sval":
        return len(constant.sval.sval.encode())
    if kind == "bsval":
        return 4 * len(constant.bsval.bsval)
    if kind == "fval":
        exponent = _EXPONENT.search(constant.fval.fval)
        return max(NUMBER, len(constant.fval.fval) + (min(int(exponent[1][:9]), MAX_MADE) if exponent else 0))
    return NUMBER


def _made(message: Message, parts: list[int]) -> int:
    """Return what a form makes of its parts' sizes."""
    if isinstance(message, pg.TypeCast):
        return max(NUMBER, sum(parts), _padded(message.type_name))
    if not isinstance(message, pg.FuncCall):
        return max(NUMBER, sum(parts))
    name = function_of(message)
    arguments = held(message.args)
    if name == "repeat":
        return parts[0] * max(0, integer(arguments[1]) or 0)
    if name in ("lpad", "rpad"):
        return max(parts[0], 4 * (integer(arguments[1]) or 0))
    if name in _REPLACE and len(parts) > 2:
        return (parts[0] + 1) * (parts[2] + 1)
    if name == "concat_ws" and not message.func_variadic:
        return sum(parts) + len(parts) * parts[0]
    if name in _MULTIPLY:
        return max(1, parts[0]) * max(1, sum(parts[1:])) if len(parts) > 1 else sum(parts)
    return (ESCAPED if name in _ESCAPE else 1) * max(NUMBER, sum(parts))


def _padded(kind: pg.TypeName) -> int:
    """Return the size to which a cast fills a value up: that of char(n) and bit(n)."""
    if strings(kind.names)[-1] not in _PAD:
        return 0
    return max((4 * (integer(length) or MAX_MADE) for length in held(kind.typmods)), default=0)
