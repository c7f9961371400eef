"""The second fence in the text: what a query may be made of. What was checked is what runs.

guard -> PostgreSQL's own grammar (tree.py) -> allow-lists of forms, functions, types and operators (forms.py) -> names
(names.py) -> bounds on what values may grow to -> the text written from that tree, without comments, which must read as
the same tree. Allow-lists only: what nobody thought of is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import postgast.pg_query_pb2 as pg

from pricing.sql.catalogue import OnSale, Relation
from pricing.sql.forms import check_forms
from pricing.sql.groups import constant_limit, has_array, is_collecting, is_one_row, most_groups
from pricing.sql.growth import check_growth
from pricing.sql.guard import QueryRefused, guard
from pricing.sql.lexer import Kind, Token, tokens
from pricing.sql.names import Names
from pricing.sql.recursion import check_recursion
from pricing.sql.shape import shape_of
from pricing.sql.tree import inside, read, write

MAX_OUTPUTS = 1_000
MAX_PARAMETERS = 1_000


@dataclass(frozen=True, slots=True)
class CheckedQuery:
    """A query that may run. `text` is what runs; `limit` is the constant row bound of the outermost query."""

    text: str
    relations: tuple[Relation, ...]
    parameters: int
    limit: int | None
    one_row: bool
    """An aggregate without GROUP BY at the top: exactly one row."""
    collecting: bool
    """Carries many rows in one value, as far as the text shows it; the plan has the last word (metering.py)."""
    groups: int | None = None
    """At most so many rows, by GROUP BY or DISTINCT (groups.py)."""
    shape: bytes = b""
    """What queries that differ in constants only have in common (shape.py)."""
    arrays: bool = True
    """Has an ARRAY(SELECT …)."""
    width: int = 0
    """Bytes of a row that the text makes and no planner knows (growth.py)."""


def check(query: str, on_sale: OnSale) -> CheckedQuery:
    """Return the query as it may run. Raises QueryRefused; nothing has reached a database then."""
    try:
        return _checked(query, on_sale)
    except QueryRefused as refusal:
        raise refusal.placed(query) from None
    except RecursionError:
        raise QueryRefused("too_deep", "The query is nested too deeply.") from None


def _checked(query: str, on_sale: OnSale) -> CheckedQuery:
    parameters = _parameters(guard(query))
    tree = read(query)
    select = _only_query(tree)
    parts = check_forms(select)
    names = Names(on_sale)
    if len(names.query(select, {}, None)) > MAX_OUTPUTS:
        raise QueryRefused("too_complex", f"A query may return {MAX_OUTPUTS} columns.")
    width = check_growth(select)
    check_recursion(parts)
    text = write(tree)
    return CheckedQuery(
        text,
        tuple(names.relations.values()),
        parameters,
        constant_limit(select),
        is_one_row(select),
        is_collecting(parts),
        most_groups(select),
        shape_of(tokens(text)),
        has_array(parts),
        width,
    )


def _only_query(tree: pg.ParseResult) -> pg.SelectStmt:
    if len(tree.stmts) != 1:
        raise QueryRefused("several_statements", "Send one statement per call.")
    statement = inside(tree.stmts[0].stmt)
    if not isinstance(statement, pg.SelectStmt):
        raise QueryRefused("not_a_query", "Only SELECT, VALUES and their combinations are sold.")
    return statement


def _parameters(written: list[Token]) -> int:
    highest = max((int(token.text[1:5]) for token in written if token.kind is Kind.PARAMETER), default=0)
    if highest > MAX_PARAMETERS:
        raise QueryRefused("parameter", f"A query may have {MAX_PARAMETERS} parameters.")
    return highest
