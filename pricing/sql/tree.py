"""The tree of a query, by PostgreSQL's own grammar (libpg_query, through postgast): read, written again, and walked.

The C code recurses without a bound: on a stack of 8 MiB it reads 1,000 nested sub-selects or 2,000 operators in a row
and ends the process at 2,000 and 5,000; on 512 KiB it reads 250 operators. So nothing comes here that guard.py has not
bounded to far less. What does not live here: what a tree may be made of (forms.py, names.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import cast

import postgast
import postgast.pg_query_pb2 as pg
from google._upb import _message as protobuf  # pyright: ignore[reportMissingModuleSource]
from google.protobuf.message import DecodeError, Message

from pricing.sql.guard import QueryRefused

# By itself protobuf decodes messages nested 100 deep, which are 40 operators in a row; guard.py has the bound here.
protobuf.SetAllowOversizeProtos(True)  # pyright: ignore[reportUnknownMemberType]

PLACES = frozenset(
    {"location", "list_start", "list_end", "rexpr_list_start", "rexpr_list_end", "stmt_location", "stmt_len"}
)
"""Fields that say where in its text a part stands."""
_WHOLE = re.compile("-?[0-9]{1,18}")
_SCALARS = frozenset({str, bytes, int, bool})
CATALOG = "pg_catalog"


def read(text: str) -> pg.ParseResult:
    """Return the tree of a guarded text. Raises QueryRefused."""
    try:
        return postgast.parse(text)
    except postgast.PgQueryError as error:
        at = error.cursorpos - 1 if error.cursorpos > 0 else None
        message = f"PostgreSQL cannot read the query: {error.message[:160]}."
        raise QueryRefused("syntax", message, at) from None
    except DecodeError:
        raise QueryRefused("too_deep", "The query is nested too deeply.") from None


def write(tree: pg.ParseResult) -> str:
    """Return the text of a tree, which reads as that tree again. Raises QueryRefused when it does not."""
    try:
        text = postgast.deparse(tree)
        again = postgast.parse(text)
    except (postgast.PgQueryError, DecodeError):
        again = text = None
    if text is None or again is None or not is_same(tree, again):
        raise QueryRefused("syntax", "The query has a form that cannot be written again as it was read.")
    return text


def is_same(tree: pg.ParseResult, other: pg.ParseResult) -> bool:
    """Return whether two trees are equal but for the places in their texts, which both lose."""
    for one in (tree, other):
        one.version = 0
        for statement in one.stmts:
            for part in walk(statement):
                for name in _places_of(type(part)):
                    part.ClearField(name)
    return tree == other


@cache
def _places_of(kind: type[Message]) -> tuple[str, ...]:
    return tuple(field.name for field in kind.DESCRIPTOR.fields if field.name in PLACES)


def inside(node: Message) -> Message | None:
    """Return what a node holds; None for an empty one."""
    if not isinstance(node, pg.Node):
        return node
    kind = node.WhichOneof("node")
    return None if kind is None else cast("Message", getattr(node, kind))


def held(nodes: Iterable[pg.Node]) -> list[Message]:
    """Return what the nodes of a list hold, without empty ones."""
    return [message for node in nodes if (message := inside(node)) is not None]


def children(message: Message) -> list[Message]:
    """Return the parts of a message in the order of its fields."""
    found: list[Message] = []
    for _, value in message.ListFields():
        if type(value) in _SCALARS:
            continue
        for part in (value,) if isinstance(value, Message) else value:
            if type(part) is pg.Node:
                # The one field that a node has is what it holds.
                found += [content for _, content in part.ListFields()]
            elif isinstance(part, Message):
                found.append(part)
    return found


def walk(message: Message, *, into_queries: bool = True) -> Iterator[Message]:
    """Yield a message and all that is below it; without `into_queries` not what is below a nested query."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        yield part
        if into_queries or part is message or not isinstance(part, pg.SelectStmt):
            waiting += children(part)


def strings(nodes: Iterable[pg.Node]) -> tuple[str, ...]:
    """Return the names in a list of nodes; one that is no name is left out."""
    return tuple(part.sval for part in held(nodes) if isinstance(part, pg.String))


def function_of(call: pg.FuncCall) -> str:
    """Return the name of the function that is called, without its schema."""
    return strings(call.funcname)[-1]


def integer(message: Message | None) -> int | None:
    """Return a constant whole number; None for anything else."""
    if isinstance(message, pg.A_Const):
        if message.WhichOneof("val") == "ival":
            return message.ival.ival
        if message.WhichOneof("val") == "fval" and _WHOLE.fullmatch(message.fval.fval):
            return int(message.fval.fval)
    return None


def text_of(message: Message | None) -> str | None:
    """Return a constant text; None for anything else."""
    if isinstance(message, pg.A_Const) and message.WhichOneof("val") == "sval":
        return message.sval.sval
    return None


def place_of(message: Message) -> int | None:
    """Return where in its text a message stands, in bytes; None when the grammar does not say."""
    place = getattr(message, "location", -1)
    return place if isinstance(place, int) and place >= 0 else None


def implied_name(message: Message | None) -> str:
    """Return the name that the server gives an output without an alias (parse_target.c, FigureColname)."""
    return _figured(message)[0] or "?column?"


def _figured(message: Message | None) -> tuple[str, bool]:
    """Return a name, and whether it is a better one than that of a type around it."""
    if isinstance(message, pg.ColumnRef):
        names = strings(message.fields)
        return (names[-1], True) if names else ("", False)
    if isinstance(message, pg.A_Indirection):
        names = strings(message.indirection)
        return (names[-1], True) if names else _figured(inside(message.arg))
    if isinstance(message, pg.FuncCall):
        return function_of(message), True
    if isinstance(message, pg.TypeCast):
        name, good = _figured(inside(message.arg))
        names = strings(message.type_name.names)
        return (name, True) if good else ((names[-1], False) if names else (name, False))
    if isinstance(message, pg.CollateClause):
        return _figured(inside(message.arg))
    if isinstance(message, pg.CaseExpr):
        name, good = _figured(inside(message.defresult))
        return (name, True) if good else ("case", False)
    if isinstance(message, pg.SubLink):
        return _figured_query(message)
    if isinstance(message, pg.A_Expr):
        return ("nullif", True) if message.kind == pg.AEXPR_NULLIF else ("", False)
    if isinstance(message, pg.MinMaxExpr):
        return ("greatest" if message.op == pg.IS_GREATEST else "least"), True
    if isinstance(message, pg.SQLValueFunction):
        name = pg.SQLValueFunctionOp.Name(message.op).removeprefix("SVFOP_").removesuffix("_N")
        return name.lower(), True
    return (_FIXED.get(type(message), ""), type(message) in _FIXED) if message is not None else ("", False)


_FIXED: dict[type[Message], str] = {
    pg.GroupingFunc: "grouping", pg.A_ArrayExpr: "array", pg.RowExpr: "row", pg.CoalesceExpr: "coalesce",
}  # fmt: skip


def _figured_query(link: pg.SubLink) -> tuple[str, bool]:
    if link.sub_link_type == pg.EXISTS_SUBLINK:
        return "exists", True
    if link.sub_link_type == pg.ARRAY_SUBLINK:
        return "array", True
    query = inside(link.subselect)
    if link.sub_link_type != pg.EXPR_SUBLINK or not isinstance(query, pg.SelectStmt):
        return "", False
    while query.HasField("larg"):
        query = query.larg
    target = next(iter(held(query.target_list)), None)
    if not isinstance(target, pg.ResTarget):
        return ("column1", True) if query.values_lists else ("", False)
    return (target.name, True) if target.name else _figured(inside(target.val))
