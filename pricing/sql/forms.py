"""Which forms of PostgreSQL's grammar a query may be made of: messages of its tree and their fields, by allow-lists.

What nobody thought of is refused. Functions are called by their name alone or as pg_catalog's, and written as
pg_catalog's: a function of the same name in a schema of the publisher's can never be the better match.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import postgast.pg_query_pb2 as pg
from google.protobuf.message import Message

from pricing.sql.functions import (
    BOUNDED,
    EXTENSIONS,
    FUNCTIONS,
    MAX_LENGTH,
    MAX_SERIES,
    OPERATORS,
    SAMPLING,
    TYPES,
    words,
)
from pricing.sql.guard import QueryRefused
from pricing.sql.tree import CATALOG, PLACES, children, held, inside, integer, place_of, strings, text_of

MAX_NODES = 20_000
FORMS: dict[type[Message], frozenset[str]] = {
    pg.SelectStmt: words(
        """
        distinct_clause target_list from_clause where_clause group_clause group_distinct having_clause window_clause
        values_lists sort_clause limit_offset limit_count limit_option with_clause op all larg rarg
        """
    ),
    pg.WithClause: words("ctes recursive"),
    pg.CommonTableExpr: words("ctename aliascolnames ctematerialized ctequery"),
    pg.ResTarget: words("name val"),
    pg.RangeVar: words("catalogname schemaname relname inh relpersistence alias"),
    pg.RangeSubselect: words("lateral subquery alias"),
    pg.RangeFunction: words("lateral ordinality is_rowsfrom functions alias coldeflist"),
    pg.RangeTableSample: words("relation method args repeatable"),
    pg.ColumnDef: words("colname type_name is_local"),
    pg.JoinExpr: words("jointype is_natural larg rarg using_clause join_using_alias quals alias"),
    pg.Alias: words("aliasname colnames"),
    pg.SortBy: words("node sortby_dir sortby_nulls"),
    pg.GroupingSet: words("kind content"),
    pg.WindowDef: words("name refname partition_clause order_clause frame_options start_offset end_offset"),
    pg.List: words("items"),
    pg.ColumnRef: words("fields"),
    pg.A_Star: words(""),
    pg.String: words("sval"),
    pg.Integer: words("ival"),
    pg.Float: words("fval"),
    pg.Boolean: words("boolval"),
    pg.BitString: words("bsval"),
    pg.A_Const: words("ival fval boolval sval bsval isnull"),
    pg.ParamRef: words("number"),
    pg.A_Expr: words("kind name lexpr rexpr"),
    pg.BoolExpr: words("boolop args"),
    pg.NullTest: words("arg nulltesttype"),
    pg.BooleanTest: words("arg booltesttype"),
    pg.FuncCall: words(
        "funcname args agg_order agg_filter over agg_within_group agg_star agg_distinct func_variadic funcformat"
    ),
    pg.NamedArgExpr: words("arg name argnumber"),
    pg.TypeCast: words("arg type_name"),
    pg.TypeName: words("names typmods typemod array_bounds"),
    pg.CollateClause: words("arg collname"),
    pg.CaseExpr: words("arg args defresult"),
    pg.CaseWhen: words("expr result"),
    pg.CoalesceExpr: words("args"),
    pg.MinMaxExpr: words("op args"),
    pg.SubLink: words("sub_link_type testexpr oper_name subselect"),
    pg.A_ArrayExpr: words("elements"),
    pg.RowExpr: words("args row_format"),
    pg.A_Indirection: words("arg indirection"),
    pg.A_Indices: words("is_slice lidx uidx"),
    pg.SQLValueFunction: words("op typmod"),
    pg.GroupingFunc: words("args"),
}
_SHOWN = {"into_clause": "INTO", "locking_clause": "FOR UPDATE and FOR SHARE", "use_op": "ORDER BY … USING"}
_CLOCK = re.compile("SVFOP_(CURRENT|LOCAL)_?(DATE|TIME|TIMESTAMP)(_N)?")


def check_forms(query: pg.SelectStmt) -> list[Message]:
    """Refuse every form that is not on a list, and write functions as pg_catalog's. Return the parts of the query.

    Raises QueryRefused.
    """
    waiting: list[tuple[Message, int | None]] = [(query, None)]
    parts: list[Message] = []
    while waiting:
        message, place = waiting.pop()
        place = around if (around := place_of(message)) is not None else place
        parts.append(message)
        if len(parts) > MAX_NODES:
            raise QueryRefused("too_complex", "The query has too many parts.")
        allowed = FORMS.get(type(message))
        if allowed is None:
            raise QueryRefused("not_sold", f"{_shown(type(message).__name__)} is not sold.", place)
        for field, _ in message.ListFields():
            name = field.name
            if name not in allowed and name not in PLACES:
                raise QueryRefused("not_sold", f"{_SHOWN.get(name) or _shown(name)} is not sold.", place)
        check = _CHECKS.get(type(message))
        if check is not None:
            check(message, place)
        waiting += [(part, place) for part in reversed(children(message))]
    return parts


def _call(call: pg.FuncCall, place: int | None) -> None:
    names = strings(call.funcname)
    name = names[-1]
    if name not in FUNCTIONS or (len(names) > 1 and names[:-1] != (CATALOG,)):
        raise QueryRefused("unknown_function", f"The function {'.'.join(names)[:60]!r} cannot be used here.", place)
    if len(names) == 1 and name not in EXTENSIONS:
        call.funcname.insert(0, pg.Node(string=pg.String(sval=CATALOG)))
    arguments = held(call.args)
    if name in BOUNDED:
        _length(name, arguments, BOUNDED[name], place)
    elif name == "format":
        form = text_of(arguments[0]) if arguments else None
        if form is None or re.search(r"%[^%]*?(?:\*|[0-9]{5})", form):
            raise QueryRefused("too_large", "format() takes a constant text without large widths.", place)
    elif name == "generate_series":
        _series(arguments, place)


def _length(name: str, arguments: list[Message], at: int, place: int | None) -> None:
    """Refuse values whose length is not a small constant: they are made before anything can be metered."""
    length = integer(arguments[at]) if at < len(arguments) else None
    if length is None or any(isinstance(one, pg.NamedArgExpr) for one in arguments):
        raise QueryRefused("too_large", f"The length in {name}() must be a constant.", place)
    if length > MAX_LENGTH:
        raise QueryRefused("too_large", f"The length in {name}() may be {MAX_LENGTH}.", place)


def _series(arguments: list[Message], place: int | None) -> None:
    bounds = [integer(one) for one in arguments[:3]]
    if len(bounds) < 2 or None in bounds:
        return
    start, end, step = [bound or 0 for bound in bounds] if len(bounds) == 3 else [*(bound or 0 for bound in bounds), 1]
    if step == 0 or abs(end - start) // abs(step) > MAX_SERIES:
        raise QueryRefused("too_large", f"generate_series may make {MAX_SERIES} rows.", place)


def _type(kind: pg.TypeName, place: int | None) -> None:
    names = strings(kind.names)
    if names[-1] not in TYPES or names[:-1] not in ((), (CATALOG,)):
        raise QueryRefused("unknown_type", f"The type {'.'.join(names)[:60]!r} cannot be used here.", place)


def _operator(expression: pg.A_Expr, place: int | None) -> None:
    if not _BETWEEN <= expression.kind <= pg.AEXPR_NOT_BETWEEN_SYM:
        _check_operator(strings(expression.name), place)


_BETWEEN = pg.AEXPR_BETWEEN


def _link(link: pg.SubLink, place: int | None) -> None:
    if link.oper_name:
        _check_operator(strings(link.oper_name), place)


def _check_operator(names: tuple[str, ...], place: int | None) -> None:
    if names[-1] not in OPERATORS or names[:-1] not in ((), (CATALOG,)):
        raise QueryRefused("not_sold", f"The operator {'.'.join(names)[:60]} cannot be used here.", place)


def _value(value: pg.SQLValueFunction, place: int | None) -> None:
    name = pg.SQLValueFunctionOp.Name(value.op)
    if not _CLOCK.fullmatch(name):
        shown = name.removeprefix("SVFOP_").lower()
        raise QueryRefused("unknown_function", f"The function {shown!r} cannot be used here.", place)


def _field(indirection: pg.A_Indirection, place: int | None) -> None:
    if not all(isinstance(part, pg.A_Indices) for part in held(indirection.indirection)):
        raise QueryRefused("not_sold", "A field of a value, (value).field, is not sold: name a column.", place)


def _parameter(parameter: pg.ParamRef, place: int | None) -> None:
    if not 1 <= parameter.number <= 999:
        raise QueryRefused("parameter", "Parameters are written $1, $2, …", place)


def _sample(sample: pg.RangeTableSample, place: int | None) -> None:
    if not isinstance(inside(sample.relation), pg.RangeVar) or strings(sample.method)[-1] not in SAMPLING:
        raise QueryRefused("not_sold", "TABLESAMPLE takes SYSTEM or BERNOULLI, of a table.", place)
    if len(sample.method) > 1:
        raise QueryRefused("not_sold", "TABLESAMPLE takes SYSTEM or BERNOULLI, of a table.", place)


def _collation(collation: pg.CollateClause, place: int | None) -> None:
    if strings(collation.collname)[:-1] not in ((), (CATALOG,)):
        raise QueryRefused("not_sold", "A collation is named without a schema.", place)


_CHECKS: dict[type[Message], Callable[[Any, int | None], None]] = {
    pg.FuncCall: _call,
    pg.TypeName: _type,
    pg.A_Expr: _operator,
    pg.SubLink: _link,
    pg.SQLValueFunction: _value,
    pg.A_Indirection: _field,
    pg.ParamRef: _parameter,
    pg.RangeTableSample: _sample,
    pg.CollateClause: _collation,
}


def _shown(name: str) -> str:
    """Return a form by the words of its name in the grammar."""
    words_of = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ")
    return re.sub(r" (clause|expr|stmt|list)$", "", words_of, flags=re.IGNORECASE).upper()
