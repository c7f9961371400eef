"""Schema migrations: numbered SQL files, each applied once in its own transaction, one migrator at a time.

A file never changes after it has landed: its checksum is stored, and a difference stops the start rather than leaving
two gateways with different ideas of one schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.resources import files

import asyncpg

from gateway.database.pool import Connection, naming_the_database
from gateway.database.statement import Statement

LOCK = 0x746F6C6C776179  # "tollway": one migrator at a time, across hosts


APPLIED = Statement("SELECT name FROM public.tollway_migration", str, scalar=True)


class MigrationError(RuntimeError):
    """The schema is not at this version, or cannot be brought there."""


def migrations() -> list[tuple[str, str]]:
    """Return (name, SQL) of every migration in order."""
    folder = files("gateway.database") / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(name, (folder / name).read_text(encoding="utf-8")) for name in names]


async def missing(connection: Connection) -> list[str]:
    """Return the names of the migrations that the database lacks."""
    try:
        applied = set(await APPLIED.all(connection))
    except asyncpg.UndefinedTableError:
        applied = set[str]()
    return [name for name, _ in migrations() if name not in applied]


async def require_current(connection: Connection) -> None:
    """Raise MigrationError when the schema is older or newer than this program."""
    lacking = await missing(connection)
    if lacking:
        raise MigrationError(f"the database lacks {', '.join(lacking)}: run `tollway migrate`")
    await require_not_newer(connection)


async def require_not_newer(connection: Connection) -> None:
    """Raise MigrationError when the schema has what this program does not know."""
    try:
        _refuse_newer(await APPLIED.all(connection))
    except asyncpg.UndefinedTableError:
        return


def _refuse_newer(applied: Iterable[str]) -> None:
    unknown = sorted(set(applied) - {name for name, _ in migrations()})
    if unknown:
        raise MigrationError(
            f"the database is newer than this program: it has {', '.join(unknown)};"
            " run the version that applied it, or a newer one"
        )


async def migrate(database_url: str) -> list[str]:
    """Apply what is missing and return the names applied. Raises MigrationError when history disagrees."""
    with naming_the_database(database_url):
        connection = await asyncpg.connect(database_url, timeout=30)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS public.tollway_migration"
            " (name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {
            row["name"]: row["checksum"] for row in await connection.fetch("SELECT * FROM public.tollway_migration")
        }
        known = migrations()
        _refuse_newer(done)
        applied: list[str] = []
        for name, sql in known:
            checksum = hashlib.sha256(sql.encode()).hexdigest()
            if name in done:
                if done[name] != checksum:
                    raise MigrationError(f"{name} was changed after it had been applied")
                continue
            async with connection.transaction():
                await connection.execute(sql)
                await connection.execute(
                    "INSERT INTO public.tollway_migration (name, checksum) VALUES ($1, $2)", name, checksum
                )
            applied.append(name)
        return applied
    finally:
        await connection.close()
