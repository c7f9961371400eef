"""Where every name of a query comes from: relations on sale, or parts of the query itself.

Resolves names by the server's scoping rules, and refuses what it cannot trace. That is what stops functional notation
(`c.json_agg` calls json_agg(c)), whole rows and columns that are not on sale, tables hidden behind a CTE of the same
name that is out of scope, and system columns. Relations get their schema written in front, so that the text that runs
does not depend on a search path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from sqlglot import exp

from pricing.sql.catalogue import OnSale, Relation
from pricing.sql.guard import QueryRefused
from pricing.sql.lexer import folded

Columns = tuple[str, ...]
Tables = Mapping[str, Columns]


@dataclass(slots=True)
class Source:
    """One item of FROM: its columns, and the relation when it is one on sale."""

    columns: Columns
    relation: Relation | None = None
    whole_row: bool = True


@dataclass(slots=True)
class Scope:
    """The sources that expressions of one SELECT see; `outer` is the enclosing one."""

    outer: Scope | None
    sources: dict[str, Source] = field(default_factory=dict[str, Source])
    outputs: frozenset[str] = frozenset()

    def add(self, name: str, source: Source) -> None:
        """Put a source in sight. One without a name cannot be referred to, only its columns can."""
        if name in self.sources:
            raise QueryRefused("ambiguous", f"{name[:80]!r} stands twice in FROM: give one an alias.")
        self.sources[name or f"({len(self.sources)})"] = source

    def find(self, name: str) -> Source | None:
        """Return the source of a name, from the inside out."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.sources:
                return scope.sources[name]
            scope = scope.outer
        return None

    def has_column(self, name: str) -> bool:
        """Return whether an unqualified name is a column that is in sight."""
        scope: Scope | None = self
        while scope is not None:
            if any(name in source.columns for source in scope.sources.values()):
                return True
            scope = scope.outer
        return False

    def is_partial(self) -> bool:
        """Return whether a source is a relation that has columns which are not on sale."""
        return any(source.relation is not None and not source.relation.whole for source in self.sources.values())

    def whole_row(self, name: str) -> bool:
        """Return whether an unqualified name is a row of something that the query itself made."""
        source = self.find(name)
        return source is not None and source.whole_row


def name_of(identifier: exp.Expr | str | None) -> str:
    """Return a name as the server reads it."""
    if isinstance(identifier, exp.Identifier):
        return identifier.name if identifier.args.get("quoted") else folded(identifier.name)
    return folded(str(identifier)) if identifier else ""


def parts(node: exp.Expr, name: str) -> list[exp.Expr]:
    """Return an argument of a node as a list, whether it holds one part, several or none."""
    value = node.args.get(name)
    return [
        item
        for item in cast("list[object]", value if isinstance(value, list) else [value])
        if isinstance(item, exp.Expr)
    ]


class Names:
    """Resolves one query. `relations` holds what it reads afterwards."""

    def __init__(self, on_sale: OnSale) -> None:
        self._on_sale = on_sale
        self.relations: dict[tuple[str, str], Relation] = {}

    def query(self, node: exp.Expr, tables: Tables, outer: Scope | None) -> Columns:
        """Resolve a query expression and return its output columns."""
        tables = self._with(node, tables, outer)
        if isinstance(node, exp.Select):
            return self._select(node, tables, outer)
        if isinstance(node, exp.SetOperation):
            columns = self.query(node.left, tables, outer)
            self.query(node.right, tables, outer)
            self._modifiers(node, tables, Scope(outer, {}, frozenset(columns)))
            return columns
        if isinstance(node, exp.Subquery):
            return self._subquery(node, tables, outer)
        if isinstance(node, exp.Values):
            return self._values(node, tables, outer)
        raise QueryRefused("not_a_query", "Only SELECT, VALUES and their combinations are sold.")

    def _with(self, node: exp.Expr, tables: Tables, outer: Scope | None) -> Tables:
        clause = node.args.get("with_")
        if clause is None:
            return tables
        known = dict(tables)
        for cte in cast("list[exp.CTE]", clause.expressions):
            name, listed = _alias(cte)
            inner = known
            if clause.args.get("recursive"):
                inner = {**known, name: listed or _first_outputs(cte.this)}
            columns = self.query(cte.this, inner, outer)
            known[name] = (*listed, *columns[len(listed) :])
        return known

    def _select(self, node: exp.Select, tables: Tables, outer: Scope | None) -> Columns:
        scope = Scope(outer)
        from_ = node.args.get("from_")
        if from_ is not None:
            self._item(from_.this, tables, scope)
        for item in [*node.args.get("laterals", []), *node.args.get("joins", [])]:
            self._join(item, tables, scope)
        self._expand(node, scope)
        outputs = tuple(output for item in node.expressions for output in self._outputs(item, scope))
        scope.outputs = frozenset(outputs)
        for item in node.expressions:
            if not _is_star(item, scope):
                self._expressions(item, tables, scope)
        for part in ("where", "having", "distinct", "windows"):
            self._part(node, part, tables, scope)
        self._modifiers(node, tables, scope)
        return outputs

    def _modifiers(self, node: exp.Expr, tables: Tables, scope: Scope) -> None:
        for part in ("group", "order", "limit", "offset"):
            self._part(node, part, tables, scope, outputs=part in ("group", "order"))

    def _part(self, node: exp.Expr, part: str, tables: Tables, scope: Scope, *, outputs: bool = False) -> None:
        for item in parts(node, part):
            self._expressions(item, tables, scope, outputs=outputs)

    def _join(self, node: exp.Expr, tables: Tables, scope: Scope) -> None:
        if not isinstance(node, exp.Join):
            self._item(node, tables, scope)
            return
        self._item(node.this, tables, scope)
        if node.args.get("method") and scope.is_partial():
            # The server compares all columns of the same name, those that are not on sale included.
            raise QueryRefused("star", "Join with USING and name the columns: NATURAL would use some not on sale.")
        condition = node.args.get("on")
        if condition is not None:
            self._expressions(condition, tables, scope)
        for column in node.args.get("using", []):
            name = name_of(column if isinstance(column, exp.Identifier) else column.this)
            if not any(name in source.columns for source in scope.sources.values()):
                raise _no_column(name)

    def _item(self, node: exp.Expr, tables: Tables, scope: Scope) -> None:
        """Add one item of FROM, and what is joined to it inside its own brackets, to the scope."""
        if isinstance(node, exp.Lateral):
            self._lateral(node, tables, scope)
        elif isinstance(node, exp.Table):
            self._table(node, tables, scope)
        elif isinstance(node, exp.Unnest):
            for argument in node.expressions:
                self._expressions(argument, tables, scope)
            self._function(node, "unnest", scope)
        elif isinstance(node, exp.Subquery) and isinstance(node.this, exp.Table):
            self._bracketed(node, tables, scope)
        elif isinstance(node, exp.Subquery | exp.Values):
            name, listed = _alias(node)
            columns = self.query(node, tables, _outside(scope))
            scope.add(name, Source((*listed, *columns[len(listed) :])))
        else:
            raise QueryRefused("from_item", "This kind of item in FROM is not sold.")
        for join in node.args.get("joins", []):
            self._join(join, tables, scope)

    def _bracketed(self, node: exp.Subquery, tables: Tables, scope: Scope) -> None:
        """`FROM (a JOIN b …)`: without an alias its tables are in sight, with one only their columns together."""
        name, listed = _alias(node)
        if not name:
            self._item(node.this, tables, scope)
            return
        inner = Scope(scope.outer)
        self._item(node.this, tables, inner)
        columns = tuple(column for source in inner.sources.values() for column in source.columns)
        scope.add(name, Source((*listed, *columns[len(listed) :]), whole_row=False))

    def _lateral(self, node: exp.Lateral, tables: Tables, scope: Scope) -> None:
        if isinstance(node.this, exp.Subquery):
            name, listed = _alias(node)
            columns = self.query(node.this, tables, scope)
            scope.add(name, Source((*listed, *columns[len(listed) :])))
            return
        self._expressions(node.this, tables, scope)
        self._function(node, _function_name(node.this), scope)

    def _table(self, node: exp.Table, tables: Tables, scope: Scope) -> None:
        name, listed = _alias(node)
        if not isinstance(node.this, exp.Identifier):
            for argument in node.this.iter_expressions():
                self._expressions(argument, tables, scope)
            self._function(node, _function_name(node.this), scope)
            return
        table = name_of(node.this)
        if node.args.get("catalog"):
            raise QueryRefused("unknown_relation", "Name a table by its schema and name only.")
        if not node.args.get("db") and table in tables:
            columns = tables[table]
            scope.add(name or table, Source((*listed, *columns[len(listed) :])))
            return
        relation = self._relation(node, table)
        if listed and not relation.whole:
            # The server gives the names to all columns in order, those that are not on sale included.
            raise QueryRefused("not_sold", f"Rename columns of {table[:80]!r} in the select list, not in FROM.")
        columns = (*listed, *relation.columns[len(listed) :])
        scope.add(name or table, Source(columns, relation, whole_row=False))

    def _relation(self, node: exp.Table, table: str) -> Relation:
        schema = name_of(node.args["db"]) if node.args.get("db") else None
        relation = self._on_sale.find(table, schema)
        if relation is None:
            shown = f"{schema}.{table}" if schema else table
            raise QueryRefused("unknown_relation", f"There is no table {shown[:80]!r} on sale here.")
        self.relations[relation.schema, relation.name] = relation
        node.set("this", exp.to_identifier(relation.name, quoted=True))
        node.set("db", exp.to_identifier(relation.schema, quoted=True))
        if not node.alias:
            # A column may be written `schema.table.column` or `table.column`: the alias keeps the latter true.
            node.set("alias", exp.TableAlias(this=exp.to_identifier(relation.name, quoted=True)))
        return relation

    def _function(self, node: exp.Expr, function: str, scope: Scope) -> None:
        """A function in FROM: its columns are those that its alias lists, else the alias or its own name."""
        name, listed = _alias(node)
        name = name or function
        own = _RESULT_COLUMNS.get(function, (name,))
        columns = (*listed, *own[len(listed) :])
        numbered = node.args.get("offset")
        extra = (name_of(numbered) if isinstance(numbered, exp.Identifier) else "ordinality",) if numbered else ()
        scope.add(name, Source((*columns, *extra)))

    def _subquery(self, node: exp.Subquery, tables: Tables, outer: Scope | None) -> Columns:
        columns = self.query(node.this, tables, outer)
        self._modifiers(node, tables, Scope(outer, {}, frozenset(columns)))
        return columns

    def _values(self, node: exp.Values, tables: Tables, outer: Scope | None) -> Columns:
        scope = Scope(outer)
        width = 0
        for row in node.expressions:
            self._expressions(row, tables, scope)
            width = max(width, len(row.expressions))
        self._modifiers(node, tables, scope)
        return tuple(f"column{number}" for number in range(1, width + 1))

    def _expressions(self, node: exp.Expr, tables: Tables, scope: Scope, *, outputs: bool = False) -> None:
        """Resolve every column below a node, and nested queries in their own scope."""
        for found in _walk(node):
            if isinstance(found, exp.Column):
                _check_column(found, scope, outputs=outputs and _is_key(found, node))
            elif isinstance(found, _QUERIES):
                self.query(found, tables, scope)

    def _outputs(self, item: exp.Expr, scope: Scope) -> Iterator[str]:
        if isinstance(item, exp.Star):
            for source in scope.sources.values():
                yield from source.columns
        elif isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
            source = scope.find(name_of(item.args.get("table")))
            yield from source.columns if source else ()
        elif isinstance(item, exp.Alias):
            yield name_of(item.args["alias"])
        elif isinstance(item, exp.Column):
            yield name_of(item.this)
        else:
            yield _implied_name(item)

    def _expand(self, node: exp.Select, scope: Scope) -> None:
        """Write out the columns on sale where a star stands for a relation that has others."""
        if not scope.is_partial():
            return
        written: list[exp.Expr] = []
        for item in node.expressions:
            table = item.args.get("table") if isinstance(item, exp.Column) and isinstance(item.this, exp.Star) else None
            if table is None and not isinstance(item, exp.Star):
                written.append(item)
                continue
            if any(join.args.get("using") or join.args.get("method") for join in node.args.get("joins", [])):
                raise QueryRefused("star", "Name the columns: with USING or NATURAL a star cannot be written out.")
            names = [name_of(table)] if table is not None else list(scope.sources)
            for name in names:
                source = scope.sources.get(name)
                if source is None:
                    raise _no_source(name)
                written += [
                    exp.column(exp.to_identifier(one, quoted=True), table=_quoted(name)) for one in source.columns
                ]
        node.set("expressions", written)


_SORTING = (exp.Ordered, exp.Paren)
_GROUPING = (exp.Cube, exp.Rollup, exp.GroupingSets, exp.Tuple, exp.Paren)
_QUERIES = (exp.Select, exp.SetOperation, exp.Subquery, exp.Values)
# Functions in FROM whose columns have names of their own beside the alias.
_KEY_VALUE = dict.fromkeys(("json_each", "jsonb_each", "json_each_text", "jsonb_each_text"), ("key", "value"))
_VALUE = dict.fromkeys(
    (
        "json_array_elements",
        "jsonb_array_elements",
        "json_array_elements_text",
        "jsonb_array_elements_text",
    ),
    ("value",),
)
_RESULT_COLUMNS: dict[str, Columns] = {**_KEY_VALUE, **_VALUE}


def _is_star(item: exp.Expr, scope: Scope) -> bool:
    """Return whether an output is `t.*`, which is a list of columns only there. Raises for an unknown `t`."""
    if not (isinstance(item, exp.Column) and isinstance(item.this, exp.Star)):
        return False
    if scope.find(name_of(item.args.get("table"))) is None:
        raise _no_source(name_of(item.args.get("table")))
    return True


def _is_key(column: exp.Column, clause: exp.Expr) -> bool:
    """Return whether a column is a whole key of ORDER BY or GROUP BY: only there do names of outputs count.

    Inside an expression the server takes the name for a column or, where there is none, for the row of a table.
    """
    kinds = _GROUPING if isinstance(clause, exp.Group) else _SORTING
    above = column.parent
    while above is not clause and isinstance(above, kinds):
        above = above.parent
    return above is clause


def _walk(node: exp.Expr) -> Iterator[exp.Expr]:
    """Yield a node and what is below it, but not what is below a nested query or a column."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        if not isinstance(found, (*_QUERIES, exp.Column)):
            waiting.extend(found.iter_expressions())


def _outside(scope: Scope) -> Scope | None:
    """A plain subquery in FROM does not see its neighbours."""
    return scope.outer


def _quoted(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=True)


def _alias(node: exp.Expr) -> tuple[str, Columns]:
    alias = node.args.get("alias")
    if alias is None:
        return "", ()
    return name_of(alias.this), tuple(name_of(column) for column in parts(alias, "columns"))


def _function_name(node: exp.Expr) -> str:
    if isinstance(node, exp.Anonymous):
        return folded(str(node.this))
    return folded(node.sql("postgres").partition("(")[0])


def _first_outputs(node: exp.Expr) -> Columns:
    while isinstance(node, exp.SetOperation | exp.Subquery):
        node = node.this
    return tuple(name_of(item.args.get("alias") or item.this) for item in node.expressions)


def _implied_name(item: exp.Expr) -> str:
    """The server names an output after its function or the type it is cast to; others cannot be referred to."""
    if isinstance(item, exp.Cast):
        inner = item.this
        return name_of(inner.this) if isinstance(inner, exp.Column) else folded(item.to.sql("postgres"))
    if isinstance(item, exp.Window | exp.Filter | exp.WithinGroup):
        return _implied_name(item.this)
    if isinstance(item, exp.Func):
        return _function_name(item)
    return "?column?"


def _check_column(column: exp.Column, scope: Scope, *, outputs: bool) -> None:
    table = column.args.get("table")
    if isinstance(column.this, exp.Star):
        raise QueryRefused("whole_row", "Name the columns: a whole row is no value here.")
    name = name_of(column.this)
    if table is None:
        if not (scope.has_column(name) or (outputs and name in scope.outputs) or scope.whole_row(name)):
            raise _no_column(name)
        return
    source = scope.find(name_of(table))
    if source is None:
        raise _no_source(name_of(table))
    schema = column.args.get("db")
    if column.args.get("catalog") or (schema is not None and not _is_schema_of(source, schema)):
        raise _no_source(name_of(table))
    if schema is not None:
        column.set("db", None)
    if name not in source.columns:
        raise _no_column(f"{name_of(table)}.{name}")


def _is_schema_of(source: Source, schema: exp.Expr) -> bool:
    return source.relation is not None and source.relation.schema == name_of(schema)


def _no_column(name: str) -> QueryRefused:
    return QueryRefused("unknown_column", f"There is no column {name[:80]!r} on sale here.")


def _no_source(name: str) -> QueryRefused:
    return QueryRefused("unknown_relation", f"{name[:80]!r} is not in FROM.")
