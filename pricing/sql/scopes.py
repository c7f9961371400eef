"""What the expressions of one SELECT can name: the sources in FROM, their columns, and those of the queries around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pricing.sql.catalogue import Relation
from pricing.sql.guard import QueryRefused

Columns = tuple[str, ...]
Tables = Mapping[str, Columns | None]
"""Columns of the CTEs in sight; None for one that stands further on, which nothing may read here."""


@dataclass(slots=True)
class Source:
    """One item of FROM: its columns, and the relation when it is one on sale.

    `partial` says that it has columns which are not on sale, so that a star is written out.
    `guessed` is a column that is not there where unnest() was given full-text words: `t.guessed` calls a function then.
    """

    columns: Columns
    relation: Relation | None = None
    whole_row: bool = True
    partial: bool = False
    guessed: str = ""


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
        return any(source.partial for source in self.sources.values())

    def whole_row(self, name: str) -> bool:
        """Return whether an unqualified name is a row of something that the query itself made."""
        source = self.find(name)
        return source is not None and source.whole_row


def renamed(listed: Columns, columns: Columns) -> Columns:
    """Return columns by the names that an alias lists for the first of them."""
    return (*listed, *columns[len(listed) :])


def no_column(name: str, place: int | None) -> QueryRefused:
    """Return the refusal of a column that is not on sale."""
    return QueryRefused("unknown_column", f"There is no column {name[:80]!r} on sale here.", place)


def no_source(name: str, place: int | None) -> QueryRefused:
    """Return the refusal of a name that stands for nothing in FROM."""
    return QueryRefused("unknown_relation", f"{name[:80]!r} is not in FROM.", place)
