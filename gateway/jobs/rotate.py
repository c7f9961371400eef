"""Key rotation: every stored credential is sealed again under the current key, while gateways serve.

Safe to run anywhere, twice, and to kill at any point: each batch is one transaction, each row is either under its old
key or under the new one, and a gateway that has both opens either. What could go wrong is refused or reported: a
running gateway that lacks the current key (it could no longer open what is sealed with it), and an envelope that no
configured key opens (it stays as it is).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict
from gateway.upstreams.credentials import CredentialBox, CredentialError, key_id_of

BATCH = 100
NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class SealedRow:
    """A publisher with an envelope."""

    id: UUID
    slug: str
    credentials: bytes


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A running gateway process and the ids of its secret keys, current first."""

    id: int
    secret_keys: list[str]


@dataclass(slots=True)
class Rotation:
    """What a run did: how many it sealed again, and which publishers' (by slug) did not open, and why."""

    key_id: str
    rotated: int = 0
    failed: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class KeyUse:
    """How many credentials are under each key id, how many open, and which keys live gateways seal with."""

    opened: int = 0
    sealed: Counter[str] = field(default_factory=Counter[str])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    workers: Counter[str] = field(default_factory=Counter[str])


# Deleted publishers have no credentials any more, inactive ones do.
NEXT_ROWS = Statement(
    """
    SELECT id, slug, credentials FROM catalog.publisher
     WHERE id > $1 AND credentials IS NOT NULL AND substring(credentials FOR octet_length($2::bytea)) <> $2::bytea
     ORDER BY id LIMIT $3 FOR UPDATE
    """,
    SealedRow,
)
ALL_ROWS = Statement(
    """
    SELECT id, slug, credentials FROM catalog.publisher WHERE id > $1 AND credentials IS NOT NULL ORDER BY id LIMIT $2
    """,
    SealedRow,
)
SEAL_AGAIN = Command("UPDATE catalog.publisher SET credentials = $2 WHERE id = $1")
LIVE_WORKERS = Statement(
    """
    SELECT id, secret_keys FROM ledger.worker
     WHERE stopped_at IS NULL AND reconciled_at IS NULL AND seen_at > now() - $1::interval ORDER BY id
    """,
    LiveWorker,
)


async def rotate(database: Database, box: CredentialBox, *, dead_after: timedelta, force: bool = False) -> Rotation:
    """Seal every credential under the box's current key and return the counts.

    Raises CredentialError without a key, and Conflict when a running gateway does not have the current one (unless
    `force`): its publishers would become unreachable there.
    """
    rotation = Rotation(box.current)
    if not force:
        async with database.acquire() as connection:
            lacking = [
                worker.id
                for worker in await LIVE_WORKERS.all(connection, dead_after)
                if box.current not in worker.secret_keys
            ]
        if lacking:
            raise Conflict(
                f"{len(lacking)} running gateway process(es) do not have key {box.current}: add it to "
                "TOLLWAY_SECRET_KEYS there and restart them first. Nothing was changed."
            )
    last = NOBODY
    while True:
        async with database.transaction() as connection:
            rows = await NEXT_ROWS.all(connection, last, box.header, BATCH)
            for row in rows:
                await _seal_again(connection, box, row, rotation)
        if not rows:
            return rotation
        last = rows[-1].id


async def _seal_again(connection: Connection, box: CredentialBox, row: SealedRow, rotation: Rotation) -> None:
    try:
        plaintext = box.open(row.credentials, row.id.bytes)
    except CredentialError as error:
        rotation.failed[row.slug] = str(error)
        return
    await SEAL_AGAIN.run(connection, row.id, box.seal(plaintext, row.id.bytes))
    rotation.rotated += 1


async def key_use(database: Database, box: CredentialBox, *, dead_after: timedelta) -> KeyUse:
    """Open every stored credential and count by key id: which keys are in use, and what does not open. Reads only."""
    use, last = KeyUse(), NOBODY
    async with database.acquire() as connection:
        use.workers.update(
            worker.secret_keys[0] for worker in await LIVE_WORKERS.all(connection, dead_after) if worker.secret_keys
        )
        while rows := await ALL_ROWS.all(connection, last, BATCH):
            last = rows[-1].id
            for row in rows:
                try:
                    use.sealed[key_id_of(row.credentials)] += 1
                    box.open(row.credentials, row.id.bytes)
                    use.opened += 1
                except CredentialError as error:
                    use.failed[row.slug] = str(error)
    return use
