"""Typed SQL statements: visible constants next to the code that uses them.

A `Statement` is a literal SQL text and the type its rows become. Texts are `LiteralString`, so SQL built at run time
does not type-check. Every statement registers itself; tests/house prepares them all against the migrated schema, so a
typo fails in a second instead of in production.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Generic, LiteralString, TypeVar, cast

from gateway.database.pool import Connection

Row = TypeVar("Row")

REGISTRY: list[Statement[Any]] = []


class Statement(Generic[Row]):
    """One SQL text with the type of its rows.

    `row` is called with the columns as keyword arguments (a dataclass), or with the first column alone when
    `scalar` is true.
    """

    __slots__ = ("_make", "_scalar", "sql")

    def __init__(self, sql: LiteralString, row: Callable[..., Row], *, scalar: bool = False) -> None:
        self.sql: str = sql
        self._make = row
        self._scalar = scalar
        REGISTRY.append(self)

    async def all(self, connection: Connection, *arguments: object) -> list[Row]:
        """Run and return every row."""
        records = await connection.fetch(self.sql, *arguments)
        return [self._row(record) for record in records]

    async def first(self, connection: Connection, *arguments: object) -> Row | None:
        """Run and return the first row, or None."""
        record = await connection.fetchrow(self.sql, *arguments)
        return None if record is None else self._row(record)

    async def one(self, connection: Connection, *arguments: object) -> Row:
        """Run and return the only row. Raises LookupError when there is none."""
        row = await self.first(connection, *arguments)
        if row is None:
            raise LookupError(f"no row from: {self.sql[:60]}")
        return row

    async def batches(self, connection: Connection, size: int, *arguments: object) -> AsyncGenerator[list[Row]]:
        """Run inside a transaction and yield the rows in batches, by a cursor of the server: memory is a batch's."""
        cursor = await connection.cursor(self.sql, *arguments)
        while records := await cursor.fetch(size):
            yield [self._row(record) for record in records]

    def _row(self, record: Any) -> Row:
        if self._scalar:
            return self._make(record[0])
        return self._make(**cast("dict[str, Any]", dict(record)))


class Command(Statement[None]):
    """A statement whose rows nobody reads; `run` returns how many rows it touched."""

    def __init__(self, sql: LiteralString) -> None:
        super().__init__(sql, _nothing)

    async def run(self, connection: Connection, *arguments: object) -> int:
        """Run and return the number of rows that the command tag names (0 when it names none)."""
        tag = await connection.execute(self.sql, *arguments)
        last = tag.rsplit(" ", 1)[-1]
        return int(last) if last.isdigit() else 0


def _nothing(**_columns: object) -> None:
    return None


def texts() -> Sequence[str]:
    """Return every registered SQL text."""
    return [statement.sql for statement in REGISTRY]
