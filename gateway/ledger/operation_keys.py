"""Keys of operations: which request an Idempotency-Key of the admin API belongs to, and the answer that it got.

A key is claimed before its operation runs, and the answer is stored after it. A run that dies in between leaves a claim
that the next request takes over, with the `effect_id` of the first: what an operation makes is named by that, or it has
a guard of its own (once per account, per day, per state), so that a second run finds what the first one did. Keys of
paid calls live elsewhere (answers.py): their answers are stored with their settlement.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson

from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement

LEASE = timedelta(seconds=120)
"""Longer than an operation takes. A run that takes longer may meet a second one, which finds what the first made."""


@dataclass(frozen=True, slots=True)
class Use:
    """One request that uses a key: who sends it, for which operation, and its own id."""

    owner_id: UUID
    operation: str
    key: str
    request_hash: bytes
    run_id: UUID


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What is known of a key that this request may not run. Without a status its operation is still running."""

    request_hash: bytes
    effect_id: UUID
    status: int | None
    headers: bytes | None
    answer: bytes | None

    def fields(self) -> dict[str, str]:
        """Return the stored response fields."""
        return orjson.loads(self.headers or b"{}")


# A key is free when it has expired, or nobody runs it and this is the same request again. Sent twice, it claims once.
CLAIM = Statement(
    """
    INSERT INTO ledger.operation_key AS k
           (owner_id, operation, key, request_hash, effect_id, run_id, worker_id, lease_until, expires_at)
    VALUES ($1, $2, $3, $4, $5, $5, $6, now() + $7::interval, now() + $8::interval)
        ON CONFLICT (owner_id, operation, key) DO UPDATE
       SET request_hash = excluded.request_hash, run_id = excluded.run_id, worker_id = excluded.worker_id,
           effect_id = CASE WHEN k.expires_at > now() THEN k.effect_id ELSE excluded.effect_id END,
           lease_until = excluded.lease_until, expires_at = excluded.expires_at,
           status = NULL, headers = NULL, answer = NULL
     WHERE k.run_id = excluded.run_id
        OR ((k.status IS NOT NULL OR k.lease_until IS NULL OR k.lease_until <= now() OR EXISTS (
                SELECT FROM ledger.worker w WHERE w.id = k.worker_id
                   AND (w.stopped_at IS NOT NULL OR w.fenced_at IS NOT NULL OR w.reconciled_at IS NOT NULL)))
            AND (k.expires_at <= now() OR (k.status IS NULL AND k.request_hash = excluded.request_hash)))
    RETURNING effect_id::text
    """,
    UUID,
    scalar=True,
)
FIND = Statement(
    """
    SELECT request_hash, effect_id, status, headers, answer FROM ledger.operation_key
     WHERE owner_id = $1 AND operation = $2 AND key = $3
    """,
    KnownKey,
)
STORE = Command(
    """
    UPDATE ledger.operation_key SET status = $5, headers = $6, answer = $7, lease_until = NULL
     WHERE owner_id = $1 AND operation = $2 AND key = $3 AND run_id = $4 AND status IS NULL
    """
)
FREE = Command(
    """
    UPDATE ledger.operation_key SET lease_until = NULL
     WHERE owner_id = $1 AND operation = $2 AND key = $3 AND run_id = $4 AND status IS NULL
    """
)
FORGET = Command(
    """
    DELETE FROM ledger.operation_key
     WHERE owner_id = $1 AND operation = $2 AND key = $3 AND run_id = $4 AND status IS NULL
    """
)
EXPIRE = Command(
    """
    DELETE FROM ledger.operation_key WHERE (owner_id, operation, key) IN (
        SELECT owner_id, operation, key FROM ledger.operation_key WHERE expires_at <= now()
         ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED)
    """
)


async def claim(database: Database, use: Use, worker_id: int | None, lifetime: timedelta) -> UUID | KnownKey:
    """Claim a key and return the id of its effect, or what is known of it. Raises Unavailable."""

    async def work(connection: Connection) -> UUID | KnownKey:
        while True:
            effect_id = await CLAIM.first(
                connection, use.owner_id, use.operation, use.key, use.request_hash, use.run_id, worker_id, LEASE,
                lifetime,
            )  # fmt: skip
            known = effect_id or await FIND.first(connection, use.owner_id, use.operation, use.key)
            if known is not None:  # else its request was refused meanwhile, and the key is free
                return known

    return await database.read(work)


async def store(database: Database, use: Use, status: int, fields: dict[str, str], answer: bytes | None) -> None:
    """Keep the answer of a run, unless another run has the key by now. Raises Unavailable."""
    headers = orjson.dumps(fields)
    await database.read(
        lambda connection: STORE.run(
            connection, use.owner_id, use.operation, use.key, use.run_id, status, headers, answer
        )
    )


async def give_back(database: Database, use: Use, *, forget: bool) -> None:
    """Let the same request run again; with `forget` any other may have the key too. Raises Unavailable."""
    command = FORGET if forget else FREE
    await database.read(lambda connection: command.run(connection, use.owner_id, use.operation, use.key, use.run_id))


async def expire_operation_keys(connection: Connection) -> int:
    """Remove up to a thousand expired keys and return how many."""
    return await EXPIRE.run(connection)
