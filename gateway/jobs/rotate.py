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

from gateway.audit.entries import record
from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict
from gateway.upstreams.credentials import CredentialBox, CredentialError, key_id_of

BATCH = 100
NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class SealedRow:
    """An envelope, the context it is sealed in, and what it belongs to in words."""

    id: UUID
    name: str
    sealed: bytes
    context: bytes


@dataclass(frozen=True, slots=True)
class Shelf:
    """One table with envelopes: `after` reads those under other keys and locks them, `every` all of them."""

    after: Statement[SealedRow]
    every: Statement[SealedRow]
    put: Command


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A running gateway process and the ids of its secret keys, current first."""

    id: int
    secret_keys: list[str]


@dataclass(slots=True)
class Rotation:
    """What a run did: how many it sealed again, and whose (publishers by slug) did not open, and why."""

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
PUBLISHERS = Shelf(
    Statement(
        """
        SELECT id, slug AS name, credentials AS sealed, uuid_send(id) AS context FROM catalog.publisher
         WHERE id > $1 AND credentials IS NOT NULL AND substring(credentials FOR octet_length($2::bytea)) <> $2::bytea
         ORDER BY id LIMIT $3 FOR UPDATE
        """,
        SealedRow,
    ),
    Statement(
        """
        SELECT id, slug AS name, credentials AS sealed, uuid_send(id) AS context FROM catalog.publisher
         WHERE id > $1 AND credentials IS NOT NULL ORDER BY id LIMIT $2
        """,
        SealedRow,
    ),
    Command("UPDATE catalog.publisher SET credentials = $2 WHERE id = $1"),
)
PROVIDERS = Shelf(
    Statement(
        """
        SELECT id, 'OAuth provider ' || id AS name, client_secret AS sealed, uuid_send(id) AS context
          FROM oauth.provider WHERE id > $1 AND substring(client_secret FOR octet_length($2::bytea)) <> $2::bytea
         ORDER BY id LIMIT $3 FOR UPDATE
        """,
        SealedRow,
    ),
    Statement(
        """
        SELECT id, 'OAuth provider ' || id AS name, client_secret AS sealed, uuid_send(id) AS context
          FROM oauth.provider WHERE id > $1 ORDER BY id LIMIT $2
        """,
        SealedRow,
    ),
    Command("UPDATE oauth.provider SET client_secret = $2 WHERE id = $1"),
)
# What is kept of consents under way is over within minutes; a key must not go before.
CONNECTIONS = Shelf(
    Statement(
        """
        SELECT id, 'OAuth connection ' || id AS name, tokens AS sealed,
               uuid_send(provider_id) || uuid_send(account_id) AS context
          FROM oauth.connection
         WHERE id > $1 AND tokens IS NOT NULL AND substring(tokens FOR octet_length($2::bytea)) <> $2::bytea
         ORDER BY id LIMIT $3 FOR UPDATE
        """,
        SealedRow,
    ),
    Statement(
        """
        SELECT id, 'OAuth connection ' || id AS name, tokens AS sealed,
               uuid_send(provider_id) || uuid_send(account_id) AS context
          FROM oauth.connection WHERE id > $1 AND tokens IS NOT NULL ORDER BY id LIMIT $2
        """,
        SealedRow,
    ),
    Command("UPDATE oauth.connection SET tokens = $2 WHERE id = $1"),
)
# Not FOR UPDATE: gateway/webhooks/endpoints.py says why.
WEBHOOKS = Shelf(
    Statement(
        """
        SELECT id, 'webhook ' || id AS name, secret AS sealed, uuid_send(id) AS context FROM webhook.endpoint
         WHERE id > $1 AND substring(secret FOR octet_length($2::bytea)) <> $2::bytea ORDER BY id LIMIT $3
           FOR NO KEY UPDATE
        """,
        SealedRow,
    ),
    Statement(
        """
        SELECT id, 'webhook ' || id AS name, secret AS sealed, uuid_send(id) AS context FROM webhook.endpoint
         WHERE id > $1 ORDER BY id LIMIT $2
        """,
        SealedRow,
    ),
    Command("UPDATE webhook.endpoint SET secret = $2 WHERE id = $1"),
)
WEBHOOKS_BEFORE = Shelf(
    Statement(
        """
        SELECT id, 'webhook ' || id AS name, previous_secret AS sealed, uuid_send(id) AS context FROM webhook.endpoint
         WHERE id > $1 AND previous_secret IS NOT NULL
           AND substring(previous_secret FOR octet_length($2::bytea)) <> $2::bytea ORDER BY id LIMIT $3
           FOR NO KEY UPDATE
        """,
        SealedRow,
    ),
    Statement(
        """
        SELECT id, 'webhook ' || id AS name, previous_secret AS sealed, uuid_send(id) AS context FROM webhook.endpoint
         WHERE id > $1 AND previous_secret IS NOT NULL ORDER BY id LIMIT $2
        """,
        SealedRow,
    ),
    Command("UPDATE webhook.endpoint SET previous_secret = $2 WHERE id = $1"),
)
SHELVES = (PUBLISHERS, PROVIDERS, CONNECTIONS, WEBHOOKS, WEBHOOKS_BEFORE)
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
    for shelf in SHELVES:
        await _rotate_shelf(database, box, shelf, rotation)
    if rotation.rotated:
        details = {"key_id": rotation.key_id, "credentials": rotation.rotated, "failed": len(rotation.failed)}
        async with database.transaction() as connection:
            await record(connection, "credential.rotate", None, details=details)
    return rotation


async def _rotate_shelf(database: Database, box: CredentialBox, shelf: Shelf, rotation: Rotation) -> None:
    last = NOBODY
    while True:
        async with database.transaction() as connection:
            rows = await shelf.after.all(connection, last, box.header, BATCH)
            for row in rows:
                await _seal_again(connection, box, shelf, row, rotation)
        if not rows:
            return
        last = rows[-1].id


async def _seal_again(
    connection: Connection, box: CredentialBox, shelf: Shelf, row: SealedRow, rotation: Rotation
) -> None:
    try:
        plaintext = box.open(row.sealed, row.context)
    except CredentialError as error:
        rotation.failed[row.name] = str(error)
        return
    await shelf.put.run(connection, row.id, box.seal(plaintext, row.context))
    rotation.rotated += 1


async def key_use(database: Database, box: CredentialBox, *, dead_after: timedelta) -> KeyUse:
    """Open every stored credential and count by key id: which keys are in use, and what does not open. Reads only."""
    use = KeyUse()
    async with database.acquire() as connection:
        use.workers.update(
            worker.secret_keys[0] for worker in await LIVE_WORKERS.all(connection, dead_after) if worker.secret_keys
        )
        for shelf in SHELVES:
            await _use_of(connection, box, shelf, use)
    return use


async def _use_of(connection: Connection, box: CredentialBox, shelf: Shelf, use: KeyUse) -> None:
    last = NOBODY
    while rows := await shelf.every.all(connection, last, BATCH):
        last = rows[-1].id
        for row in rows:
            try:
                use.sealed[key_id_of(row.sealed)] += 1
                box.open(row.sealed, row.context)
                use.opened += 1
            except CredentialError as error:
                use.failed[row.name] = str(error)
