"""Values that a recursive query makes larger than their double with every step: a gigabyte after thirty of them.

For each output of the recursive part this counts how often the value of the step before goes into it. Once is what
paths and sums are made of, and grows no faster than time passes; more is refused. Rows that multiply are not looked at:
they go to temporary files, which the role bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from sqlglot import exp

from pricing.sql.functions import COLLECTING
from pricing.sql.guard import QueryRefused
from pricing.sql.lexer import folded
from pricing.sql.names import name_of, parts

Counts = Mapping[str, int]
"""How often the step before goes into each column of a source; ANY stands for columns whose names are not known."""
Sources = Mapping[str, Counts]

MANY = 1_000
ANY = "*"
# Their result is no longer than their first argument, or a number.
_FIRST_ALONE = (
    exp.Substring, exp.Left, exp.Right, exp.SplitPart, exp.Trim, exp.Lower, exp.Upper, exp.Initcap, exp.Cast,
    exp.Bracket, exp.JSONExtract, exp.JSONExtractScalar, exp.JSONBExtract, exp.JSONBExtractScalar, exp.Reverse,
)  # fmt: skip
_NUMBERS = (
    exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.IntDiv, exp.Pow, exp.Neg, exp.Length, exp.StrPosition, exp.Not,
    exp.And, exp.Or, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.In, exp.Between, exp.Like,
    exp.ILike, exp.Exists, exp.Any, exp.All, exp.ArrayContainsAll, exp.ArrayContainedBy, exp.ArrayOverlaps,
    exp.RegexpLike, exp.ArraySize, exp.Extract, exp.DataType,
)  # fmt: skip
_ONE_OF = (exp.Coalesce, exp.Greatest, exp.Least, exp.Nullif)
_WRITES_INTO = (exp.Replace, exp.RegexpReplace)


def check_recursion(tree: exp.Expr) -> None:
    """Raise QueryRefused when a recursive part multiplies its own values."""
    try:
        for clause in tree.find_all(exp.With):
            if clause.args.get("recursive"):
                for cte in cast("list[exp.CTE]", clause.expressions):
                    _check(cte)
    except RecursionError:
        raise QueryRefused("too_deep", "The query is nested too deeply.") from None


def _check(cte: exp.CTE) -> None:
    body = cte.this
    while isinstance(body, exp.Subquery):
        body = body.this
    if not isinstance(body, exp.SetOperation):
        return
    name = name_of(cte.args["alias"].this)
    listed = [name_of(column) for column in parts(cte.args["alias"], "columns")]
    first = [name for name, _ in _outputs(body.left, {}, {})]
    columns = dict.fromkeys([*listed, *first[len(listed) :]], 1)
    for _, count in _outputs(body.right, {name: columns}, {}):
        if count > 1:
            raise QueryRefused(
                "too_large", "A recursive part may use its own value once in each column, not several times."
            )


def _outputs(node: exp.Expr, known: Sources, outer: Sources) -> Iterator[tuple[str, int]]:
    """Yield the outputs of a query by name. `known` are CTEs, `outer` the sources around it."""
    known = _with(node, known, outer)
    while isinstance(node, exp.Subquery):
        node = node.this
        known = _with(node, known, outer)
    if isinstance(node, exp.SetOperation):
        pairs = zip(_outputs(node.left, known, outer), _outputs(node.right, known, outer), strict=False)
        yield from ((name, max(one, other)) for (name, one), (_, other) in pairs)
    elif isinstance(node, exp.Values):
        columns = zip(*(row.expressions for row in node.expressions), strict=False)
        for number, column in enumerate(columns, 1):
            yield f"column{number}", max(_count(one, outer) for one in column)
    elif isinstance(node, exp.Select):
        sources = dict(outer)
        for source in _sources(node):
            _add(source, known, sources)
        yield from _selected(node, sources)


def _with(node: exp.Expr, known: Sources, outer: Sources) -> Sources:
    """Return the CTEs in sight, those of this query included."""
    clause = node.args.get("with_")
    if clause is None:
        return known
    found = dict(known)
    for cte in cast("list[exp.CTE]", clause.expressions):
        columns = list(_outputs(cte.this, found, outer))
        found[name_of(cte.args["alias"].this)] = _renamed(cte, columns)
    return found


def _renamed(node: exp.Expr, columns: list[tuple[str, int]]) -> Counts:
    """Return columns by the names that an alias lists for the first of them."""
    alias = node.args.get("alias")
    listed = [name_of(column) for column in parts(alias, "columns")] if alias is not None else []
    names = [*listed, *(name for name, _ in columns[len(listed) :])]
    return dict(zip(names, (count for _, count in columns), strict=False))


def _sources(node: exp.Select) -> Iterator[exp.Expr]:
    from_ = node.args.get("from_")
    if from_ is not None:
        yield from_.this
        yield from (join.this for join in parts(from_.this, "joins"))
    yield from (join.this for join in parts(node, "joins"))
    yield from parts(node, "laterals")


def _add(source: exp.Expr, known: Sources, sources: dict[str, Counts]) -> None:
    """Put a source's columns in sight; a table gives nothing of the step before, a function what went into it."""
    alias = source.args.get("alias")
    name = name_of(alias.this) if alias is not None else ""
    if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
        table = "" if source.args.get("db") else name_of(source.this)
        found = _renamed(source, list(known.get(table, {}).items()))
        name = name or name_of(source.this)
    elif isinstance(source, exp.Subquery | exp.Values):
        found = _renamed(source, list(_outputs(source, known, sources)))
    elif isinstance(source, exp.Lateral) and isinstance(source.this, exp.Subquery):
        found = _renamed(source, list(_outputs(source.this, known, sources)))
    else:
        found = {ANY: sum(_count(part, sources) for part in source.iter_expressions())}
    sources[name or f"({len(sources)})"] = found


def _selected(node: exp.Select, sources: Sources) -> Iterator[tuple[str, int]]:
    for item in node.expressions:
        if isinstance(item, exp.Star):
            yield from (pair for source in sources.values() for pair in source.items())
        elif isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
            yield from sources.get(name_of(item.args.get("table")), {}).items()
        elif isinstance(item, exp.Alias):
            yield name_of(item.args["alias"]), _count(item.this, sources)
        else:
            yield name_of(item.this) if isinstance(item, exp.Column) else "?column?", _count(item, sources)


def _count(node: exp.Expr, sources: Sources) -> int:
    """Return how often the step before goes into a value."""
    if isinstance(node, exp.Column):
        table = node.args.get("table")
        name = name_of(node.this)
        seen = sources.values() if table is None else [sources.get(name_of(table), {})]
        return max((source.get(name, source.get(ANY, 0)) for source in seen), default=0)
    if isinstance(node, exp.Select | exp.SetOperation | exp.Values):
        return max((count for _, count in _outputs(node, {}, sources)), default=0)
    if isinstance(node, _NUMBERS):
        return 0
    if isinstance(node, exp.Window):
        return _over_a_window(node, _count(node.this, sources))
    return _joined(node, [_count(part, sources) for part in node.iter_expressions()])


def _over_a_window(node: exp.Window, count: int) -> int:
    """One row's value may hold those of all rows where a function collects them; others give one row's."""
    name = folded(node.this.sql("postgres").partition("(")[0])
    return MANY * count if name in COLLECTING - {"lag", "lead", "nth_value"} else count


def _joined(node: exp.Expr, counts: list[int]) -> int:
    if not counts:
        return 0
    if isinstance(node, _FIRST_ALONE):
        return counts[0]
    if isinstance(node, exp.Case):
        return max(counts)
    if isinstance(node, exp.If):
        return max(counts[1:], default=0)
    if isinstance(node, _ONE_OF):
        return max(counts)
    if isinstance(node, exp.Repeat):
        times = node.args.get("times")
        return counts[0] * (int(times.name) if isinstance(times, exp.Literal) and times.name.isdigit() else MANY)
    if isinstance(node, _WRITES_INTO) or folded(str(node.this)) == "format":
        return MANY if any(counts[1:]) or (counts[0] and _lengthens(node)) else counts[0]
    return sum(counts)


def _lengthens(node: exp.Expr) -> bool:
    """Return whether a replacement may be longer than what it stands for."""
    if isinstance(node, exp.Replace):
        found, put = node.args.get("expression"), node.args.get("replacement")
        old = len(found.name) if isinstance(found, exp.Literal) else 1
        return put is not None and not (isinstance(put, exp.Literal) and len(put.name) <= max(1, old))
    put = node.args.get("replacement")
    return put is not None and not (isinstance(put, exp.Literal) and len(put.name) <= 1)
