"""The chain of the audit log: whole under concurrency, append-only, and every way of tampering shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio

from gateway.audit.entries import record
from gateway.audit.origin import Origin, acting
from gateway.audit.verify import Proof, anchor, verify
from gateway.database.pool import Connection, Database
from gateway.ids import uuid7
from gateway.settings import DatabaseSettings


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on this module's database."""
    opened = Database(DatabaseSettings(url=database_url))
    await opened.start()
    yield opened
    await opened.stop()


async def written(database: Database, organization: UUID, number: int) -> None:
    async with database.transaction() as connection:
        await record(connection, "publisher.create", organization, uuid7(), after={"name": str(number)})


@pytest_asyncio.fixture
async def organization(database: Database) -> UUID:
    """An organization with five entries and a checkpoint."""
    made = uuid7()
    for number in range(5):
        await written(database, made, number)
    await anchor(database)
    return made


async def test_many_writers_make_one_chain_for_each_organization(database: Database, connection: Connection) -> None:
    ours = [uuid7() for _ in range(3)]
    await asyncio.gather(*(written(database, ours[number % 3], number) for number in range(45)))
    rows = await connection.fetch(
        "SELECT chain, array_agg(seq ORDER BY seq) AS places, array_agg(seq ORDER BY created_at) AS times"
        " FROM audit.entry WHERE chain = ANY ($1) GROUP BY chain",
        ours,
    )
    assert len(rows) == 3
    for row in rows:
        assert row["places"] == row["times"] == list(range(1, 16))
    assert (await verify(connection)).findings == []


async def test_a_change_that_is_rolled_back_leaves_no_entry_and_no_gap(
    database: Database, connection: Connection
) -> None:
    organization = uuid7()
    await written(database, organization, 1)

    async def in_vain() -> None:
        async with database.transaction() as one:
            await record(one, "publisher.delete", organization)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await in_vain()
    await written(database, organization, 2)
    rows = await connection.fetch("SELECT action, seq FROM audit.entry WHERE chain = $1 ORDER BY seq", organization)
    assert [tuple(row) for row in rows] == [("publisher.create", 1), ("publisher.create", 2)]
    assert (await verify(connection)).findings == []


async def test_no_value_of_a_secret_is_kept_but_its_change_shows(database: Database, connection: Connection) -> None:
    organization = uuid7()
    before = {"name": "a", "price": 1, "token": "first-secret"}
    async with database.transaction() as one:
        with acting(Origin("operator", credential_type="command_line", request_id="r-1")):
            after = before | {"token": "second-secret"}
            await record(one, "publisher.update", organization, before=before, after=after, secret=("token",))
    row = await connection.fetchrow("SELECT * FROM audit.entry WHERE chain = $1", organization)
    assert row["metadata"]["changed"] == ["token"]
    assert row["metadata"]["before"] == row["metadata"]["after"], "a digest would say whether a guess is right"
    assert (row["actor_type"], row["credential_type"], row["request_id"]) == ("operator", "command_line", "r-1")
    assert "secret" not in str(dict(row))


async def test_an_unknown_action_is_refused(database: Database) -> None:
    with pytest.raises(KeyError):
        async with database.transaction() as one:
            await record(one, "publisher.paint", uuid7())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit.entry SET action = 'publisher.delete'",
        "DELETE FROM audit.entry",
        "TRUNCATE audit.entry",
        "UPDATE audit.checkpoint SET seq = 1",
        "DELETE FROM audit.checkpoint",
        "TRUNCATE audit.checkpoint",
        "DELETE FROM audit.head",
        "TRUNCATE audit.head",
        "UPDATE audit.head SET seq = seq - 1",
    ],
)
async def test_the_database_refuses_to_change_the_past(
    statement: str, organization: UUID, connection: Connection
) -> None:
    with pytest.raises(Exception, match=r"append-only|only moves on"):
        await connection.execute(statement)
    assert (await verify(connection)).sound


# Whoever owns the database can take the triggers away. $1 is the organization.
TAMPERING = {
    "a changed field": "UPDATE audit.entry SET ip_address = '192.0.2.1' WHERE chain = $1 AND seq = 3",
    "a changed moment": "UPDATE audit.entry SET created_at = created_at + interval '1 ms' WHERE chain = $1 AND seq = 3",
    "changed metadata": "UPDATE audit.entry SET metadata = metadata || '{\"a\": 1}' WHERE chain = $1 AND seq = 3",
    "another digest": "UPDATE audit.entry SET digest = '\\x00' WHERE chain = $1 AND seq = 3",
    "a removed entry": "DELETE FROM audit.entry WHERE chain = $1 AND seq = 3",
    "a removed end": "DELETE FROM audit.entry WHERE chain = $1 AND seq > 3",
    "a removed beginning": "DELETE FROM audit.entry WHERE chain = $1 AND seq < 3",
    "a removed chain": "DELETE FROM audit.entry WHERE chain = $1",
    "a removed head": "DELETE FROM audit.head WHERE chain = $1",
    "another order": "UPDATE audit.entry SET seq = CASE seq WHEN 2 THEN 103 WHEN 3 THEN 102 ELSE seq END"
    " WHERE chain = $1",
    "another organization": "UPDATE audit.entry SET chain = gen_random_uuid() WHERE chain = $1 AND seq = 5",
    "a removed end with its head": "WITH gone AS (DELETE FROM audit.entry WHERE chain = $1 AND seq > 3) UPDATE audit.head"
    " SET seq = 3, digest = (SELECT digest FROM audit.entry WHERE chain = $1 AND seq = 3) WHERE chain = $1",
    "a chain that never was": "WITH gone AS (DELETE FROM audit.entry WHERE chain = $1)"
    " DELETE FROM audit.head WHERE chain = $1",
    "a changed checkpoint": "UPDATE audit.checkpoint SET seq = 4, head = (SELECT digest FROM audit.entry"
    " WHERE chain = $1 AND seq = 4) WHERE chain = $1",
}


async def tampered(
    connection: Connection, organization: UUID, *statements: str, kept: tuple[int, bytes] | None
) -> Proof:
    """Return what `verify` says after statements that no trigger stops, and put everything back."""
    transaction = connection.transaction(isolation="repeatable_read")
    await transaction.start()
    try:
        for table in ("entry", "head", "checkpoint"):
            await connection.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER USER")
        for statement in statements:
            await connection.execute(statement, *([organization] if "$1" in statement else []))
        return await verify(connection, kept)
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("how", TAMPERING)
async def test_tampering_shows(how: str, organization: UUID, connection: Connection) -> None:
    proof = await tampered(connection, organization, TAMPERING[how], kept=None)
    assert not proof.sound
    assert (await verify(connection)).sound


async def test_a_kept_checkpoint_shows_what_went_with_its_checkpoints(
    organization: UUID, connection: Connection
) -> None:
    last = (await verify(connection)).last
    assert last is not None
    kept = last.number, last.digest
    assert (await verify(connection, kept)).sound
    gone = TAMPERING["a removed end with its head"], "DELETE FROM audit.checkpoint WHERE chain = $1"
    assert (await tampered(connection, organization, *gone, kept=None)).sound, "nothing in the database can show it"
    assert not (await tampered(connection, organization, *gone, kept=kept)).sound
    assert not (await verify(connection, (last.number, b"another"))).sound
