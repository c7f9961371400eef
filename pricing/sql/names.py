"""Where every name of a query comes from: relations on sale, or parts of the query itself.

Resolves names by the server's scoping rules, and refuses what it cannot trace. That is what stops functional notation
(`c.json_agg` calls json_agg(c)), whole rows and columns that are not on sale, tables hidden behind a CTE of the same
name that is out of scope, and system columns. Relations get their schema written in front, so that the text that runs
does not depend on a search path. The forms of the tree were checked before (forms.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import postgast.pg_query_pb2 as pg
from google.protobuf.message import Message

from pricing.sql.catalogue import OnSale, Relation
from pricing.sql.guard import QueryRefused
from pricing.sql.scopes import Columns, Scope, Source, Tables, no_column, no_source, renamed
from pricing.sql.tree import children, function_of, held, implied_name, inside, place_of, strings


class Names:
    """Resolves one query. `relations` holds what it reads afterwards."""

    def __init__(self, on_sale: OnSale) -> None:
        self._on_sale = on_sale
        self.relations: dict[tuple[str, str], Relation] = {}

    def query(self, query: pg.SelectStmt, tables: Tables, outer: Scope | None) -> Columns:
        """Resolve a query and return its output columns."""
        return self._body(query, self._with(query, tables, outer), outer)

    def _body(
        self, query: pg.SelectStmt, tables: Tables, outer: Scope | None, name: str = "", listed: Columns = ()
    ) -> Columns:
        """Resolve a query whose WITH is resolved; one that calls itself by `name` may do so in its right part."""
        if query.HasField("larg"):
            columns = self.query(query.larg, tables, outer)
            if name and tables.get(name) is None:
                tables = {**tables, name: renamed(listed, columns)}
            self.query(query.rarg, tables, outer)
            self._modifiers(query, tables, Scope(outer, {}, frozenset(columns)))
            return columns
        if query.values_lists:
            return self._values(query, tables, outer)
        return self._select(query, tables, outer)

    def _with(self, query: pg.SelectStmt, tables: Tables, outer: Scope | None) -> Tables:
        expressions = [cte for cte in held(query.with_clause.ctes) if isinstance(cte, pg.CommonTableExpr)]
        known = dict(tables)
        if query.with_clause.recursive:
            # Each of them may read the later ones too, which are not known yet.
            known.update((cte.ctename, None) for cte in expressions)
        for cte in expressions:
            inner = inside(cte.ctequery)
            if not isinstance(inner, pg.SelectStmt):
                raise QueryRefused("not_a_query", "Only SELECT and VALUES are sold, in WITH too.", place_of(cte))
            listed = strings(cte.aliascolnames)
            columns = self._body(
                inner,
                self._with(inner, known, outer),
                outer,
                cte.ctename if query.with_clause.recursive else "",
                listed,
            )
            known[cte.ctename] = renamed(listed, columns)
        return known

    def _select(self, query: pg.SelectStmt, tables: Tables, outer: Scope | None) -> Columns:
        scope = Scope(outer)
        for item in held(query.from_clause):
            self._item(item, tables, scope)
        _expand(query, scope)
        targets = [target for target in held(query.target_list) if isinstance(target, pg.ResTarget)]
        outputs = tuple(output for target in targets for output in _outputs(target, scope))
        scope.outputs = frozenset(outputs)
        for target in targets:
            if _star_of(target) is None:
                self._expressions(inside(target.val), tables, scope)
        for part in (query.where_clause, query.having_clause, *query.window_clause):
            self._expressions(inside(part), tables, scope)
        self._keys(query.distinct_clause, tables, scope)
        self._keys(query.group_clause, tables, scope, rows=True)
        self._modifiers(query, tables, scope)
        return outputs

    def _modifiers(self, query: pg.SelectStmt, tables: Tables, scope: Scope) -> None:
        self._keys(query.sort_clause, tables, scope)
        for part in (query.limit_count, query.limit_offset):
            self._expressions(inside(part), tables, scope)

    def _keys(self, nodes: Iterable[pg.Node], tables: Tables, scope: Scope, *, rows: bool = False) -> None:
        """Resolve keys of ORDER BY, GROUP BY or DISTINCT ON: only as a whole key does the name of an output count.

        Inside an expression the server takes the name for a column or, where there is none, for the row of a table.
        With `rows` a row in brackets is a list of keys.
        """
        for key in held(nodes):
            if isinstance(key, pg.SortBy):
                self._keys([key.node], tables, scope)
            elif isinstance(key, pg.GroupingSet):
                self._keys(key.content, tables, scope, rows=rows)
            elif rows and isinstance(key, pg.RowExpr) and key.row_format == pg.COERCE_IMPLICIT_CAST:
                self._keys(key.args, tables, scope, rows=rows)
            elif isinstance(key, pg.ColumnRef):
                _check_column(key, scope, outputs=True)
            else:
                self._expressions(key, tables, scope)

    def _item(self, item: Message, tables: Tables, scope: Scope) -> None:
        """Put one item of FROM in sight."""
        if isinstance(item, pg.RangeVar):
            self._table(item, tables, scope)
        elif isinstance(item, pg.RangeTableSample):
            self._item(inside(item.relation) or item, tables, scope)
            for part in (*item.args, item.repeatable):
                self._expressions(inside(part), tables, Scope(scope.outer))
        elif isinstance(item, pg.RangeSubselect):
            query = inside(item.subquery)
            if not isinstance(query, pg.SelectStmt):
                raise QueryRefused("from_item", "This kind of item in FROM is not sold.", place_of(item))
            columns = self.query(query, tables, scope if item.lateral else scope.outer)
            scope.add(item.alias.aliasname, Source(renamed(strings(item.alias.colnames), columns)))
        elif isinstance(item, pg.RangeFunction):
            self._functions(item, tables, scope)
        elif isinstance(item, pg.JoinExpr):
            self._join(item, tables, scope)
        else:
            raise QueryRefused("from_item", "This kind of item in FROM is not sold.", place_of(item))

    def _join(self, join: pg.JoinExpr, tables: Tables, scope: Scope) -> None:
        if join.HasField("alias"):
            # With an alias only the columns of what is joined are in sight, together.
            inner = Scope(scope.outer)
            self._joined(join, tables, inner)
            columns = tuple(column for source in inner.sources.values() for column in source.columns)
            listed = strings(join.alias.colnames)
            if listed and inner.is_partial():
                raise _renames(join.alias.aliasname, None)
            source = Source(renamed(listed, columns), whole_row=False, partial=inner.is_partial())
            scope.add(join.alias.aliasname, source)
        else:
            self._joined(join, tables, scope)

    def _joined(self, join: pg.JoinExpr, tables: Tables, scope: Scope) -> None:
        sides: list[dict[str, Source]] = []
        for side in (join.larg, join.rarg):
            before = set(scope.sources)
            self._item(inside(side) or side, tables, scope)
            sides.append({name: source for name, source in scope.sources.items() if name not in before})
        both = Scope(scope.outer, {**sides[0], **sides[1]})
        if join.is_natural and both.is_partial():
            # The server compares all columns of the same name, those that are not on sale included.
            raise QueryRefused("star", "Join with USING and name the columns: NATURAL would use some not on sale.")
        self._expressions(inside(join.quals), tables, both)
        using = strings(join.using_clause)
        for name in using:
            if not all(any(name in source.columns for source in side.values()) for side in sides):
                raise no_column(name, None)
        if join.HasField("join_using_alias"):
            scope.add(join.join_using_alias.aliasname, Source(using, whole_row=False))

    def _table(self, item: pg.RangeVar, tables: Tables, scope: Scope) -> None:
        listed = strings(item.alias.colnames)
        place = place_of(item)
        if item.catalogname:
            raise QueryRefused("unknown_relation", "Name a table by its schema and name only.", place)
        if not item.schemaname and item.relname in tables:
            columns = tables[item.relname]
            if columns is None:
                raise QueryRefused("not_sold", f"{item.relname[:80]!r} stands later in WITH: put it first.", place)
            scope.add(item.alias.aliasname or item.relname, Source(renamed(listed, columns)))
            return
        relation = self._on_sale.find(item.relname, item.schemaname or None)
        if relation is None:
            shown = f"{item.schemaname}.{item.relname}" if item.schemaname else item.relname
            raise QueryRefused("unknown_relation", f"There is no table {shown[:80]!r} on sale here.", place)
        self.relations[relation.schema, relation.name] = relation
        item.schemaname = relation.schema
        if listed and not relation.whole:
            raise _renames(item.relname, place)
        columns = renamed(listed, relation.columns)
        source = Source(columns, relation, whole_row=False, partial=not relation.whole)
        scope.add(item.alias.aliasname or item.relname, source)

    def _functions(self, item: pg.RangeFunction, tables: Tables, scope: Scope) -> None:
        """Functions in FROM: each gives the columns that are defined for it, its own, or one of its name."""
        calls = [held(entry.items) for entry in held(item.functions) if isinstance(entry, pg.List)]
        columns: list[str] = []
        first = guessed = ""
        for call, *definitions in calls:
            self._expressions(call, tables, scope)
            name = implied_name(call)
            first = first or name
            defined = item.coldeflist if len(calls) == 1 else ()
            listed = [
                part.colname
                for entry in (*definitions, *held(defined))
                for part in (held(entry.items) if isinstance(entry, pg.List) else [entry])
                if isinstance(part, pg.ColumnDef)
            ]
            alone = item.alias.aliasname if len(calls) == 1 and item.alias.aliasname else name
            own = _columns_of(call, alone)
            guessed = own[0] if implied_name(call) == "unnest" and len(own) == 1 else guessed
            columns += listed or own
        if item.ordinality:
            columns.append("ordinality")
        names = renamed(strings(item.alias.colnames), tuple(columns))
        scope.add(item.alias.aliasname or first, Source(names, guessed="" if item.alias.colnames else guessed))

    def _values(self, query: pg.SelectStmt, tables: Tables, outer: Scope | None) -> Columns:
        scope = Scope(outer)
        width = 0
        for row in held(query.values_lists):
            self._expressions(row, tables, scope)
            width = max(width, len(row.items) if isinstance(row, pg.List) else 0)
        columns = tuple(f"column{number}" for number in range(1, width + 1))
        scope.outputs = frozenset(columns)
        self._modifiers(query, tables, scope)
        return columns

    def _expressions(self, expression: Message | None, tables: Tables, scope: Scope) -> None:
        """Resolve every column in an expression, and nested queries in their own scope."""
        waiting = [] if expression is None else [expression]
        while waiting:
            part = waiting.pop()
            if isinstance(part, pg.ColumnRef):
                _check_column(part, scope, outputs=False)
            elif isinstance(part, pg.SelectStmt):
                self.query(part, tables, scope)
            else:
                waiting += reversed(children(part))


# Functions in FROM whose columns have names of their own.
_PAIRS = ("json_each", "jsonb_each", "json_each_text", "jsonb_each_text")
_ELEMENTS = (
    "json_array_elements", "jsonb_array_elements", "json_array_elements_text", "jsonb_array_elements_text",
)  # fmt: skip


def _columns_of(call: Message, alone: str) -> Columns:
    if not isinstance(call, pg.FuncCall):
        return (alone,)
    name = function_of(call)
    if name in _PAIRS:
        return ("key", "value")
    if name in _ELEMENTS:
        return ("value",)
    return ("unnest",) * len(call.args) if name == "unnest" and len(call.args) > 1 else (alone,)


def _star_of(target: pg.ResTarget) -> tuple[str, ...] | None:
    """Return the names before the star of an output such as `t.*`; None for an output that is no star."""
    value = inside(target.val)
    if isinstance(value, pg.ColumnRef) and any(isinstance(part, pg.A_Star) for part in held(value.fields)):
        return strings(value.fields)
    return None


def _starred(names: tuple[str, ...], scope: Scope, place: int | None) -> Source:
    source = scope.find(names[-1])
    if source is None or len(names) > 2 or (len(names) == 2 and not _is_of_schema(source, names[0])):
        raise no_source(".".join(names), place)
    return source


def _outputs(target: pg.ResTarget, scope: Scope) -> Iterator[str]:
    star = _star_of(target)
    if star is None:
        yield target.name or implied_name(inside(target.val))
    elif star:
        yield from _starred(star, scope, place_of(target)).columns
    else:
        for source in scope.sources.values():
            yield from source.columns


def _expand(query: pg.SelectStmt, scope: Scope) -> None:
    """Write out the columns on sale where a star stands for a source that has others."""
    written: list[pg.Node] = []
    expanded = False
    for node in query.target_list:
        names = _sources_to_write(inside(node), scope)
        if names is None:
            written.append(node)
            continue
        if any(isinstance(item, pg.JoinExpr) and _merges(item) for item in held(query.from_clause)):
            raise QueryRefused("star", "Name the columns: with USING or NATURAL a star cannot be written out.")
        if any(name.startswith("(") for name in names):
            raise QueryRefused("star", "Give every part of FROM a name, so that the star can be written out.")
        expanded = True
        sources = [(name, source) for name in names if (source := scope.find(name)) is not None]
        written += [_output(name, column) for name, source in sources for column in source.columns]
    if expanded:
        del query.target_list[:]
        query.target_list.extend(written)


def _sources_to_write(target: Message | None, scope: Scope) -> list[str] | None:
    """Return the sources that a star stands for, where one of them has columns that are not on sale."""
    star = _star_of(target) if isinstance(target, pg.ResTarget) else None
    if star is None or target is None:
        return None
    if star:
        return [star[-1]] if _starred(star, scope, place_of(target)).partial else None
    return list(scope.sources) if scope.is_partial() else None


def _merges(join: pg.JoinExpr) -> bool:
    """Return whether columns are merged somewhere in a join, so that a star has fewer than its sources have."""
    sides = (inside(join.larg), inside(join.rarg))
    own = join.is_natural or bool(join.using_clause) or join.HasField("alias")
    return own or any(isinstance(side, pg.JoinExpr) and _merges(side) for side in sides)


def _output(source: str, column: str) -> pg.Node:
    fields = [pg.Node(string=pg.String(sval=name)) for name in (source, column)]
    reference = pg.Node(column_ref=pg.ColumnRef(fields=fields))
    return pg.Node(res_target=pg.ResTarget(val=reference))


def _check_column(column: pg.ColumnRef, scope: Scope, *, outputs: bool) -> None:
    place = place_of(column)
    names = strings(column.fields)
    if len(names) < len(column.fields):
        raise QueryRefused("whole_row", "Name the columns: a whole row is no value here.", place)
    name = names[-1]
    if len(names) == 1:
        if not (scope.has_column(name) or (outputs and name in scope.outputs) or scope.whole_row(name)):
            raise no_column(name, place)
        return
    source = scope.find(names[-2])
    if source is None or len(names) > 3 or (len(names) == 3 and not _is_of_schema(source, names[0])):
        raise no_source(".".join(names[:-1]), place)
    if name not in source.columns or name == source.guessed:
        raise no_column(".".join(names), place)


def _is_of_schema(source: Source, schema: str) -> bool:
    return source.relation is not None and source.relation.schema == schema


def _renames(table: str, place: int | None) -> QueryRefused:
    # The server gives the names to all columns in order, those that are not on sale included.
    return QueryRefused("not_sold", f"Rename columns of {table[:80]!r} in the select list, not in FROM.", place)
