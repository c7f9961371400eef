"""Stored answers: what an Idempotency-Key was given, kept so that asking again costs nothing and moves nothing.

A key is claimed before anything is paid; the claim is unique in the database, so two workers cannot both run it. The
answer is stored in the transaction that settles its exchange, before the caller has all of it: whoever received a whole
answer can have it again, and whoever asks again after a crash either gets that answer or a new call that is paid once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

import orjson

from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.database.together import Together
from gateway.ledger.entries import Settlement


@dataclass(frozen=True, slots=True)
class Claim:
    """The state of a key. `claimed`: run the call. `running`: another has it. `finished`: the answer is here.

    A finished answer without a body was delivered and paid, but was too large to keep.
    """

    verdict: Literal["claimed", "running", "finished"]
    request_hash: bytes
    body_hash: bytes | None
    exchange_id: UUID
    status: int | None
    headers: bytes | None
    body: bytes | None

    def header_pairs(self) -> list[tuple[bytes, bytes]]:
        """Return the stored response fields."""
        pairs: list[list[str]] = orjson.loads(self.headers or b"[]")
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What is kept of an answer; `body` is None when it was larger than the limit."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | None
    request_body_hash: bytes


# Many at once, in the order in which they stand; none is claimed if one waits for a lock longer than $7 (0: no bound).
# The bound is set for this statement before its arrays are read, because they are made to depend on it.
CLAIM = Statement(
    """
    SELECT c.verdict, c.request_hash, c.body_hash, c.exchange_id, c.status, c.headers, c.body
      FROM (SELECT set_config('lock_timeout', $7, true) IS NOT NULL) AS bound (is_set),
           LATERAL unnest(CASE WHEN is_set THEN $1::uuid[] END, $2::text[], $3::bytea[], $4::uuid[], $5::integer[],
                          $6::interval[])
           WITH ORDINALITY AS a (owner_id, key, request_hash, exchange_id, worker_id, lifetime, place),
           LATERAL ledger.claim_answer(a.owner_id, a.key, a.request_hash, a.exchange_id, a.worker_id, a.lifetime) c
     ORDER BY a.place
    """,
    Claim,
)
FIND = Statement(
    """
    SELECT CASE WHEN status IS NULL THEN 'running' ELSE 'finished' END AS verdict, request_hash, body_hash, exchange_id,
           status, headers, body
      FROM ledger.answer a WHERE owner_id = $1 AND key = $2 AND expires_at > now()
       AND NOT (status IS NULL AND EXISTS (
               SELECT FROM ledger.worker w WHERE w.id = a.worker_id AND w.reconciled_at IS NOT NULL))
    """,
    Claim,
)
STORE = Statement(
    "SELECT ledger.store_answer($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
    str,
    scalar=True,
)
RELEASE = Command("DELETE FROM ledger.answer WHERE owner_id = $1 AND key = $2 AND exchange_id = $3 AND status IS NULL")
EXPIRE = Command(
    """
    DELETE FROM ledger.answer WHERE (owner_id, key) IN (
        SELECT owner_id, key FROM ledger.answer WHERE expires_at <= now() ORDER BY expires_at LIMIT 1000
        FOR UPDATE SKIP LOCKED)
    """
)


LOCK_WAIT = "100ms"  # of a claim that others share
Asked = tuple[UUID, str, bytes, UUID, int | None, timedelta]


class Answers:
    """The door to stored answers. `lifetime` is how long a key lives, `keep` the largest body kept, in bytes."""

    def __init__(self, database: Database, *, lifetime: timedelta, keep: int) -> None:
        self._database = database
        self._lifetime = lifetime
        self._claims = Together(self._claim, lock=lambda one: (one[0].bytes, one[1]))
        self.keep = keep

    async def claim(
        self,
        owner_id: UUID,
        key: str,
        request_hash: bytes,
        exchange_id: UUID,
        worker_id: int | None,
        lifetime: timedelta | None = None,
    ) -> Claim:
        """Claim a key, or learn who has it. Raises Unavailable when the database is away; then nothing is claimed."""
        return await self._claims.ask((owner_id, key, request_hash, exchange_id, worker_id, lifetime or self._lifetime))

    async def _claim(self, asked: Sequence[Asked]) -> list[Claim]:
        """Claim many, or raise LockNotAvailable, and they are claimed one by one: only those whose key is held wait."""
        columns = [list(column) for column in zip(*asked, strict=True)]
        bound = LOCK_WAIT if len(asked) > 1 else "0"
        return await self._database.read(lambda connection: CLAIM.all(connection, *columns, bound))

    async def find(self, owner_id: UUID, key: str) -> Claim | None:
        """Return who has a key, without claiming it; None when nobody has. Raises Unavailable."""
        return await self._database.read(lambda connection: FIND.first(connection, owner_id, key))

    async def store(
        self, owner_id: UUID, key: str, exchange_id: UUID, answer: StoredAnswer, settlement: Settlement | None
    ) -> bool:
        """Keep an answer and settle its exchange with it, durably, both or neither; return whether that was done.

        False: the key is another call's by now, or the charge was given back. Raises Unavailable when the database is
        away; it may have been done then.
        """
        headers = orjson.dumps([[n.decode("latin-1"), v.decode("latin-1")] for n, v in answer.headers])
        end = settlement or Settlement(exchange_id, "free", answer.status, 0, 0)
        verdict = await self._database.read(
            lambda connection: STORE.one(
                connection, owner_id, key, exchange_id, answer.status, headers, answer.body, answer.request_body_hash,
                settlement is not None, end.reason, end.status, end.bytes_in, end.bytes_out, end.method,
                end.target_hash, end.body_hash, end.endpoint, end.rows,
            )
        )  # fmt: skip
        return verdict == "stored"

    async def release(self, owner_id: UUID, key: str, exchange_id: UUID) -> None:
        """Give a claimed key back: its call was refused before anything happened."""
        async with self._database.acquire() as connection:
            await RELEASE.run(connection, owner_id, key, exchange_id)


async def expire_answers(connection: Connection) -> int:
    """Remove up to a thousand expired keys and return how many."""
    return await EXPIRE.run(connection)
