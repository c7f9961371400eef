"""Values that a recursive query makes larger than their double with every step: a gigabyte after thirty of them.

For each output of the recursive part this counts how often the value of the step before goes into it. Once is what
paths and sums are made of, and grows no faster than time passes; more is refused. Rows that multiply are not looked at:
they go to temporary files, which the role bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import postgast.pg_query_pb2 as pg
from google.protobuf.message import Message

from pricing.sql.functions import COLLECTING, words
from pricing.sql.guard import QueryRefused
from pricing.sql.tree import children, function_of, held, implied_name, inside, integer, strings, text_of

Counts = Mapping[str, int]
"""How often the step before goes into each column of a source; ANY stands for columns whose names are not known."""
Sources = Mapping[str, Counts]

MANY = 1_000
ANY = "*"
# Their result is no longer than their first argument, or a number.
_FIRST_ALONE = words("substring substr left right split_part btrim ltrim rtrim lower upper initcap reverse trim_array")
_PARTS_OF_FIRST = words("-> ->> #> #>> #-")
_NUMBERS = words("length char_length character_length octet_length strpos position extract array_length cardinality")
_ONE_OF = (pg.CoalesceExpr, pg.MinMaxExpr, pg.CaseExpr)
_TRUTHS = (pg.BoolExpr, pg.NullTest, pg.BooleanTest)


def check_recursion(parts: Iterable[Message]) -> None:
    """Raise QueryRefused when, among the parts of a query, a recursive one multiplies its own values."""
    for clause in parts:
        if isinstance(clause, pg.WithClause) and clause.recursive:
            for cte in _expressions(clause):
                _check(cte)


def _expressions(clause: pg.WithClause) -> list[pg.CommonTableExpr]:
    return [cte for cte in held(clause.ctes) if isinstance(cte, pg.CommonTableExpr)]


def _query_of(node: pg.Node) -> pg.SelectStmt:
    query = inside(node)
    return query if isinstance(query, pg.SelectStmt) else pg.SelectStmt()


def _check(cte: pg.CommonTableExpr) -> None:
    body = _query_of(cte.ctequery)
    if not body.HasField("larg"):
        return
    listed = strings(cte.aliascolnames)
    first = [name for name, _ in _outputs(body.larg, {}, {})]
    columns = dict.fromkeys([*listed, *first[len(listed) :], ANY], 1)
    for _, count in _outputs(body.rarg, {cte.ctename: columns}, {}):
        if count > 1:
            raise QueryRefused(
                "too_large", "A recursive part may use its own value once in each column, not several times."
            )


def _outputs(query: pg.SelectStmt, known: Sources, outer: Sources) -> list[tuple[str, int]]:
    """Return the outputs of a query by name. `known` are CTEs, `outer` the sources around it."""
    if query.HasField("with_clause"):
        known = dict(known)
        for cte in _expressions(query.with_clause):
            columns = _outputs(_query_of(cte.ctequery), known, outer)
            known[cte.ctename] = _renamed(cte.aliascolnames, columns)
    if query.HasField("larg"):
        pairs = zip(_outputs(query.larg, known, outer), _outputs(query.rarg, known, outer), strict=False)
        return [(name, max(count, other)) for (name, count), (_, other) in pairs]
    if query.values_lists:
        rows = [held(row.items) for row in held(query.values_lists) if isinstance(row, pg.List)]
        columns = zip(*rows, strict=False)
        return [
            (f"column{number}", max(_count(value, known, outer) for value in column))
            for number, column in enumerate(columns, 1)
        ]
    sources = dict(outer)
    for item in held(query.from_clause):
        _add(item, known, sources)
    return [pair for target in held(query.target_list) for pair in _selected(target, known, sources)]


def _renamed(listed: Iterable[pg.Node], columns: list[tuple[str, int]]) -> Counts:
    """Return columns by the names that an alias lists for the first of them."""
    first = strings(listed)
    names = [*first, *(name for name, _ in columns[len(first) :])]
    return dict(zip(names, (count for _, count in columns), strict=False))


def _add(item: Message | None, known: Sources, sources: dict[str, Counts]) -> None:
    """Put a source's columns in sight; a table gives nothing of the step before, a function what went into it."""
    if isinstance(item, pg.JoinExpr):
        inner = dict(sources)
        for side in (item.larg, item.rarg):
            _add(inside(side), known, inner)
        if item.HasField("alias"):
            columns = [pair for name in inner.keys() - sources.keys() for pair in inner[name].items()]
            most = max((count for _, count in columns), default=0)
            sources[item.alias.aliasname] = {ANY: most}
        else:
            sources.update(inner)
            if item.HasField("join_using_alias"):
                sources[item.join_using_alias.aliasname] = {ANY: 1}
    elif isinstance(item, pg.RangeVar):
        of_step: Counts = known.get(item.relname, {}) if not item.schemaname else {}
        sources[item.alias.aliasname or item.relname] = _renamed(item.alias.colnames, list(of_step.items()))
    elif isinstance(item, pg.RangeSubselect):
        columns = _outputs(_query_of(item.subquery), known, sources)
        sources[item.alias.aliasname or f"({len(sources)})"] = _renamed(item.alias.colnames, columns)
    elif isinstance(item, pg.RangeFunction):
        calls = [call for entry in held(item.functions) if isinstance(entry, pg.List) for call in held(entry.items)[:1]]
        name = item.alias.aliasname or (implied_name(calls[0]) if calls else f"({len(sources)})")
        sources[name] = {ANY: max((_count(call, known, sources) for call in calls), default=0)}


def _selected(target: Message, known: Sources, sources: Sources) -> Iterator[tuple[str, int]]:
    value = inside(target.val) if isinstance(target, pg.ResTarget) else None
    if not isinstance(target, pg.ResTarget) or value is None:
        return
    if isinstance(value, pg.ColumnRef) and len(strings(value.fields)) < len(value.fields):
        table = strings(value.fields)[-1:]
        for source in [sources.get(table[0], {})] if table else sources.values():
            yield from source.items()
    else:
        yield target.name or implied_name(value), _count(value, known, sources)


def _count(value: Message | None, known: Sources, sources: Sources) -> int:
    """Return how often the step before goes into a value."""
    if value is None or isinstance(value, pg.TypeName):
        return 0
    if isinstance(value, pg.ColumnRef):
        return _of_column(strings(value.fields), sources)
    if isinstance(value, pg.SelectStmt):
        return max((count for _, count in _outputs(value, known, sources)), default=0)
    if isinstance(value, pg.A_Expr):
        return _of_operator(value, known, sources)
    if isinstance(value, pg.FuncCall):
        return _of_call(value, [_count(part, known, sources) for part in held(value.args)])
    if isinstance(value, _TRUTHS):
        return 0
    if isinstance(value, pg.SubLink):
        carries = value.sub_link_type in (pg.EXPR_SUBLINK, pg.ARRAY_SUBLINK)
        return _count(inside(value.subselect), known, sources) if carries else 0
    if isinstance(value, pg.CaseWhen):
        return _count(inside(value.result), known, sources)
    if isinstance(value, pg.A_Indirection):
        return _count(inside(value.arg), known, sources)
    counts = [_count(part, known, sources) for part in children(value)]
    return max(counts, default=0) if isinstance(value, _ONE_OF) else sum(counts)


def _of_column(names: tuple[str, ...], sources: Sources) -> int:
    if not names:
        return 0
    seen = sources.values() if len(names) == 1 else [sources.get(names[-2], {})]
    found = max((source.get(names[-1], source.get(ANY, 0)) for source in seen), default=0)
    if len(names) == 1 and names[0] in sources:  # a whole row of that name
        found = max(found, sum(sources[names[0]].values()))
    return found


def _of_operator(value: pg.A_Expr, known: Sources, sources: Sources) -> int:
    left = _count(inside(value.lexpr), known, sources)
    if value.kind == pg.AEXPR_NULLIF:
        return left
    operator = strings(value.name)[-1]
    if value.kind != pg.AEXPR_OP or operator not in ("||", *_PARTS_OF_FIRST):
        return 0
    return left if operator in _PARTS_OF_FIRST else left + _count(inside(value.rexpr), known, sources)


def _of_call(call: pg.FuncCall, counts: list[int]) -> int:
    name = function_of(call)
    if name in COLLECTING - {"lag", "lead", "nth_value"}:
        return MANY * sum(counts)  # it may hold those of all rows
    if not counts or name in _NUMBERS:
        return 0
    if name in _FIRST_ALONE:
        return counts[0]
    arguments = held(call.args)
    if name == "repeat":
        times = integer(arguments[1]) if len(arguments) > 1 else None
        return counts[0] * (MANY if times is None else max(0, times))
    if name in ("replace", "regexp_replace", "format", "array_to_string"):
        return MANY if any(counts[1:]) or (counts[0] and _lengthens(name, arguments)) else counts[0]
    return sum(counts)


def _lengthens(name: str, arguments: list[Message]) -> bool:
    """Return whether a replacement may be longer than what it stands for."""
    if len(arguments) < 3 or name not in ("replace", "regexp_replace"):
        return False
    found, put = text_of(arguments[1]), text_of(arguments[2])
    shortest = len(found) if name == "replace" and found else 1
    return put is None or len(put) > shortest
