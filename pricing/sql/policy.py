"""The second fence in the text: what a query may be made of. What was checked is what runs.

guard -> parse -> allow-lists of nodes, functions, types, relations and columns -> the text written anew without
comments -> a last look at that text. Allow-lists only: what nobody thought of is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from pricing.sql.catalogue import OnSale, Relation
from pricing.sql.functions import BOUNDED, COLLECTING, FUNCTIONS, MAX_LENGTH, MAX_SERIES, SESSION_WORDS, WORDS
from pricing.sql.groups import calls_in, makes_rows, most_groups
from pricing.sql.growth import check_growth
from pricing.sql.guard import QueryRefused, guard
from pricing.sql.lexer import Kind, Token, folded, tokens
from pricing.sql.names import Names, parts
from pricing.sql.nodes import SELECT_PARTS, TYPES, allowed
from pricing.sql.recursion import check_recursion
from pricing.sql.shape import shape_of

# It warns about queries that it half understands, with their text; those are refused here, and no log may hold a query.
logging.getLogger("sqlglot").setLevel(logging.CRITICAL)

MAX_NODES = 20_000
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


def check(query: str, on_sale: OnSale) -> CheckedQuery:
    """Return the query as it may run. Raises QueryRefused; nothing has reached a database then."""
    read = guard(query)
    tree = _parse(query)
    _check_nodes(tree)
    names = Names(on_sale)
    outputs = names.query(tree, {}, None)
    if len(outputs) > MAX_OUTPUTS:
        raise QueryRefused("too_complex", f"A query may return {MAX_OUTPUTS} columns.")
    check_growth(tree)
    check_recursion(tree)
    text = tree.sql("postgres", comments=False)
    written = list(tokens(text))
    _check_text(written)
    return CheckedQuery(
        text,
        tuple(names.relations.values()),
        _parameters(read),
        _limit(tree),
        _is_one_row(tree),
        _is_collecting(written),
        most_groups(tree),
        shape_of(written),
    )


def _parse(query: str) -> exp.Expr:
    try:
        found = [one for one in sqlglot.parse(query, read="postgres") if one and not isinstance(one, exp.Semicolon)]
    except (SqlglotError, ValueError):
        raise QueryRefused("syntax", "The query is not SQL that can be read here; only SELECT is sold.") from None
    except RecursionError:
        raise QueryRefused("too_deep", "The query is nested too deeply.") from None
    if len(found) != 1:
        raise QueryRefused("several_statements", "Send one statement per call.")
    if not isinstance(found[0], exp.Select | exp.SetOperation | exp.Subquery | exp.Values):
        raise QueryRefused("not_a_query", "Only SELECT, VALUES and their combinations are sold.")
    return _with_arrows(found[0])


def _with_arrows(tree: exp.Expr) -> exp.Expr:
    """Read `f(column -> 'key')` as the server does; the parser takes it for a lambda."""
    for node in list(tree.find_all(exp.Lambda)):
        names, first = node.expressions, node.this
        while isinstance(first, exp.Binary):  # of operators in a row the arrow comes first
            first = first.this
        if len(names) == 1 and isinstance(names[0], exp.Identifier) and isinstance(first, exp.Literal):
            read = sqlglot.parse_one(f"SELECT a -> {first.sql('postgres')}", read="postgres").expressions[0]
            read.this.replace(exp.Column(this=names[0].copy()))
            first.replace(read)
            node.replace(node.this if node.this is not first else read)
    return tree


def _check_nodes(tree: exp.Expr) -> None:
    """Refuse every node that is not on a list."""
    known = allowed()
    for number, node in enumerate(tree.walk()):
        if number > MAX_NODES:
            raise QueryRefused("too_complex", "The query has too many parts.")
        kind = type(node)
        if kind is exp.Anonymous:
            name = folded(str(node.this))
            if name not in FUNCTIONS and name != "all":  # `<> ALL (array)`: no function can have that name
                raise _no_function(name)
        elif kind not in known:
            raise QueryRefused("not_sold", f"{_shown(kind)} is not sold.")
        check_kind = _CHECKS.get(kind)
        if check_kind is not None:
            check_kind(node)


def _check_select(node: exp.Expr) -> None:
    for part, value in node.args.items():
        if value and part not in SELECT_PARTS:
            raise QueryRefused("not_sold", f"{part.rstrip('_').upper()} is not sold.")


def _check_star(node: exp.Expr) -> None:
    if any(node.args.values()):
        raise QueryRefused("not_sold", "A star takes no EXCEPT, REPLACE or RENAME here.")


def _check_limit(node: exp.Expr) -> None:
    if node.args.get("expressions"):
        raise QueryRefused("not_sold", "LIMIT … BY is not sold.")


def _check_type(node: exp.Expr) -> None:
    name = node.this.value if isinstance(node.this, exp.DataType.Type) else str(node.this)
    if folded(str(name)) not in TYPES:
        raise QueryRefused("unknown_type", f"The type {folded(str(name))[:60]!r} cannot be used here.")


def _check_parameter(node: exp.Expr) -> None:
    number = node.this
    if not (isinstance(number, exp.Literal) and not number.is_string and re.fullmatch("[1-9][0-9]{0,2}", number.name)):
        raise QueryRefused("parameter", "Parameters are written $1, $2, …")


def _check_alias(node: exp.Expr) -> None:
    if any(isinstance(column, exp.ColumnDef) for column in parts(node, "columns")):
        raise QueryRefused("not_sold", "Column definitions in FROM are not sold.")


def _check_series(node: exp.Expr) -> None:
    bounds = [node.args.get("start"), node.args.get("end"), node.args.get("step")]
    start, end, step = (_integer(bound) for bound in bounds)
    if start is None or end is None or (bounds[2] is not None and step is None):
        return
    if step == 0 or abs(end - start) // abs(step or 1) > MAX_SERIES:
        raise QueryRefused("too_large", f"generate_series may make {MAX_SERIES} rows.")


def _integer(node: exp.Expr | None) -> int | None:
    if isinstance(node, exp.Neg):
        inner = _integer(node.this)
        return None if inner is None else -inner
    if isinstance(node, exp.Literal) and not node.is_string and node.name.isdigit() and len(node.name) < 19:
        return int(node.name)
    return None


_CHECKS: dict[type[exp.Expr], Callable[[exp.Expr], None]] = {
    exp.Select: _check_select,
    exp.Star: _check_star,
    exp.Limit: _check_limit,
    exp.DataType: _check_type,
    exp.Parameter: _check_parameter,
    exp.TableAlias: _check_alias,
    exp.GenerateSeries: _check_series,
    exp.ExplodingGenerateSeries: _check_series,
}


def _is_collecting(read: list[Token]) -> bool:
    return any(
        token.text == "(" and (folded(read[at].text) in COLLECTING or folded(read[at].text) == "array")
        for at, token in enumerate(read[1:])
    )


def _check_text(read: list[Token]) -> None:
    """Look at the text that will run: every name before a bracket is a listed function or a word of the language."""
    for position, token in enumerate(read):
        if token.kind is Kind.COMMENT or token.text == ";":
            raise QueryRefused("syntax", "The query cannot be written in one plain statement.")
        if token.kind is Kind.NAME and folded(token.text) in SESSION_WORDS and not _follows(read, position, ".", "as"):
            raise _no_function(folded(token.text))
        if token.text == "(" and position:
            _check_call(read, position)
            _check_lengths(read, position)


def _check_call(read: list[Token], position: int) -> None:
    before = read[position - 1]
    if before.kind is Kind.QUOTED_NAME:
        if not _is_alias(read, position - 1):
            raise _no_function(before.text)
        return
    if before.kind is not Kind.NAME:
        return
    name = folded(before.text)
    if name in FUNCTIONS or name in WORDS or _is_alias(read, position - 1):
        return
    raise _no_function(name)


def _is_alias(read: list[Token], position: int) -> bool:
    """Return whether a name before a bracket is an alias with its columns: `AS t(a)`, or a CTE `WITH t(a) AS (`."""
    if _follows(read, position, "as"):
        return True
    close = _closing(read, position + 1)
    return close is not None and close + 1 < len(read) and folded(read[close + 1].text) == "as"


def _closing(read: list[Token], position: int) -> int | None:
    """Return where a list of plain names in brackets closes; None when there is anything else in it."""
    for at in range(position + 1, len(read)):
        token = read[at]
        if token.text == ")":
            return at
        if token.kind not in (Kind.NAME, Kind.QUOTED_NAME) and token.text != ",":
            return None
    return None


def _follows(read: list[Token], position: int, *words: str) -> bool:
    return position > 0 and folded(read[position - 1].text) in words


def _check_lengths(read: list[Token], position: int) -> None:
    """Refuse values whose length is not a small constant: they are made before anything can be metered."""
    name = folded(read[position - 1].text)
    if name == "format":
        argument = read[position + 1]
        if argument.kind is not Kind.STRING or re.search(r"%[^%]*?(?:\*|[0-9]{5})", argument.text):
            raise QueryRefused("too_large", "format() takes a constant text without large widths.")
    place = BOUNDED.get(name)
    if place is None:
        return
    argument = _arguments(read, position)
    chosen = argument[place] if place < len(argument) else []
    if len(chosen) != 1 or chosen[0].kind is not Kind.NUMBER or not chosen[0].text.isdigit():
        raise QueryRefused("too_large", f"The length in {name}() must be a constant.")
    if int(chosen[0].text) > MAX_LENGTH:
        raise QueryRefused("too_large", f"The length in {name}() may be {MAX_LENGTH}.")


def _arguments(read: list[Token], position: int) -> list[list[Token]]:
    found: list[list[Token]] = [[]]
    depth = 0
    for token in read[position + 1 :]:
        if token.text in ("(", "["):
            depth += 1
        elif token.text in (")", "]"):
            depth -= 1
            if depth < 0:
                break
        if token.text == "," and depth == 0:
            found.append([])
        else:
            found[-1].append(token)
    return found


def _parameters(read: list[Token]) -> int:
    highest = max((int(token.text[1:5]) for token in read if token.kind is Kind.PARAMETER), default=0)
    if highest > MAX_PARAMETERS:
        raise QueryRefused("parameter", f"A query may have {MAX_PARAMETERS} parameters.")
    return highest


def _limit(tree: exp.Expr) -> int | None:
    clause = tree.args.get("limit")
    if clause is None:
        return None
    options = clause.args.get("limit_options")
    if options is not None and options.args.get("with_ties"):
        return None  # as many as are equal to the last
    return _integer(clause.args.get("expression") or clause.args.get("count"))


def _is_one_row(tree: exp.Expr) -> bool:
    if not isinstance(tree, exp.Select) or tree.args.get("group") or tree.args.get("having"):
        return False
    folds = any(isinstance(node, exp.AggFunc) and not _is_over_a_window(node) for node in calls_in(tree))
    return folds and not makes_rows(tree)


def _is_over_a_window(node: exp.Expr) -> bool:
    above = node.parent
    while isinstance(above, exp.Filter | exp.WithinGroup):
        above = above.parent
    return isinstance(above, exp.Window)


def _shown(kind: type[exp.Expr]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).upper()


def _no_function(name: str) -> QueryRefused:
    return QueryRefused("unknown_function", f"The function {name[:60]!r} cannot be used here.")
