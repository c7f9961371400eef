"""Migrations: numbered without gaps, applied once whoever comes first, and a schema that keeps its own rules."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import count

import asyncpg
import pytest
import pytest_asyncio

from gateway.database import migrate as migrating
from gateway.database.migrate import MigrationError, migrate, migrations
from gateway.database.pool import Connection
from tests.house.test_sql import everything
from tests.support.databases import drop_database, replaced
from tests.support.services import Services

NAME = re.compile(r"(\d{4})_[a-z0-9]+(?:_[a-z0-9]+)*\.sql")
NAMES = [name for name, _ in migrations()]
_numbers = count(1)


def test_numbers_are_contiguous() -> None:
    matched = [NAME.fullmatch(name) for name in NAMES]
    assert all(matched), NAMES
    assert [int(one[1]) for one in matched if one] == list(range(1, len(NAMES) + 1))


@pytest_asyncio.fixture
async def empty(services: Services) -> AsyncIterator[str]:
    """The URL of a database with nothing in it."""
    name = f"tw_empty_{next(_numbers)}"
    connection = await asyncpg.connect(services.database_url)
    await connection.execute(f'CREATE DATABASE "{name}"')
    yield replaced(services.database_url, name)
    await drop_database(connection, name)
    await connection.close()


async def test_all_are_applied_once_and_in_order(empty: str) -> None:
    assert await migrate(empty) == NAMES
    assert await migrate(empty) == []


async def test_two_migrators_at_once_apply_each_once(empty: str) -> None:
    first, second = await asyncio.gather(migrate(empty), migrate(empty))
    assert sorted(first + second) == NAMES
    assert [] in (first, second)


async def test_an_older_database_gets_what_it_lacks(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = migrations()
    for end in range(1, len(everything) + 1):
        monkeypatch.setattr(migrating, "migrations", lambda end=end: everything[:end])
        assert await migrate(empty) == [everything[end - 1][0]]


async def test_a_failing_migration_leaves_nothing_behind(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [
        ("0001_a.sql", "CREATE TABLE a (id int PRIMARY KEY)"),
        ("0002_b.sql", "CREATE TABLE b (id int); SELECT x"),
    ]
    monkeypatch.setattr(migrating, "migrations", lambda: broken)
    with pytest.raises(asyncpg.UndefinedColumnError):
        await migrate(empty)
    monkeypatch.setattr(migrating, "migrations", lambda: [broken[0], ("0002_b.sql", "CREATE TABLE b (id int)")])
    assert await migrate(empty) == ["0002_b.sql"]


async def test_a_changed_migration_is_refused(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(empty)
    (name, sql), *others = migrations()
    monkeypatch.setattr(migrating, "migrations", lambda: [(name, sql + "\n"), *others])
    with pytest.raises(MigrationError, match=name):
        await migrate(empty)


async def test_a_newer_database_is_refused(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(empty)
    monkeypatch.setattr(migrating, "migrations", lambda: migrations()[:-1])
    with pytest.raises(MigrationError, match=NAMES[-1]):
        await migrate(empty)


# The schema that they make.

WITHOUT_KEY = """
SELECT c.oid::regclass::text FROM pg_class c
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
   AND c.relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')
   AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
"""
# Foreign keys whose columns no index of their table begins with: deleting the other row would scan the table. An index
# that leaves out only NULL will do.
UNINDEXED = """
SELECT k.conrelid::regclass::text || ' ' || k.conname AS key, k.confrelid::regclass::text AS other
  FROM pg_constraint k
 WHERE k.contype = 'f' AND k.conparentid = 0
   AND NOT EXISTS (
       SELECT FROM pg_index i
        WHERE i.indrelid = k.conrelid AND (i.indkey::int2[])[0 : cardinality(k.conkey) - 1] @> k.conkey
          AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) ~ '^\\(\\w+ IS NOT NULL\\)$'))
"""
# Tables whose rows nothing ever deletes: what refers to them needs no index for that.
KEPT = frozenset(
    {"identity.account", "identity.organization", "catalog.network", "catalog.asset", "catalog.publisher"}
    | {"ledger.account", "ledger.wallet", "chain.sending"}
)
DELETED = re.compile(r"DELETE\s+FROM\s+(?:ONLY\s+)?([\w.]+)", re.I)


async def test_every_table_has_a_primary_key(connection: Connection) -> None:
    assert [row[0] for row in await connection.fetch(WITHOUT_KEY)] == []


async def test_every_foreign_key_has_an_index_or_a_reason(connection: Connection) -> None:
    rows = await connection.fetch(UNINDEXED)
    assert [row["key"] for row in rows if row["other"] not in KEPT] == []


def test_what_is_said_to_be_kept_is_never_deleted() -> None:
    texts = [sql for _, sql in migrations()] + [statement.sql for statement in everything()]
    deleted = {name for text in texts for name in DELETED.findall(text)}
    assert deleted
    assert KEPT & deleted == set()


async def test_a_missing_key_and_a_missing_index_would_be_found(connection: Connection) -> None:
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("CREATE SCHEMA probe; CREATE TABLE probe.one (id int PRIMARY KEY)")
        await connection.execute("CREATE TABLE probe.two (one int REFERENCES probe.one)")
        assert "probe.two" in {row[0] for row in await connection.fetch(WITHOUT_KEY)}
        assert "probe.two two_one_fkey" in {row[0] for row in await connection.fetch(UNINDEXED)}
        await connection.execute("CREATE INDEX ON probe.two (one)")
        assert "probe.two two_one_fkey" not in {row[0] for row in await connection.fetch(UNINDEXED)}
    finally:
        await transaction.rollback()


async def test_moments_know_their_time_zone(connection: Connection) -> None:
    naive = await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND data_type LIKE 'timestamp without%'"
    )
    assert [tuple(row) for row in naive] == []
