"""Proving that the audit log is whole: every chain from its first entry to its head, and the checkpoints.

Digests are computed here from what is stored, never by the database: who can change rows can change functions. What a
chain alone cannot show is that its end was cut off together with its head. For that there are checkpoints: each names
the head of a chain and carries the digest of the one before it, so that the last of them, kept elsewhere, vouches for
all entries up to its moment.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import orjson

from gateway.audit.entries import Entry, digest_of, microseconds
from gateway.database.pool import Connection, Database
from gateway.database.statement import Statement

log = logging.getLogger(__name__)

ROUND = 1_000
MOST_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a chain."""

    chain: UUID
    seq: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head that a chain had at a moment; `digest` binds it and all checkpoints before it.

    `stored` is the digest of that entry as the log has it now.
    """

    number: int
    chain: UUID
    seq: int
    head: bytes
    created_at: datetime
    digest: bytes
    stored: bytes | None


@dataclass(slots=True)
class Proof:
    """What was looked at and what is wrong with it. `last` is the last checkpoint, for the operator to keep."""

    chains: int = 0
    entries: int = 0
    checkpoints: int = 0
    last: Checkpoint | None = None
    findings: list[str] = field(default_factory=list[str])

    @property
    def sound(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings

    def blame(self, finding: str) -> None:
        """Note what is wrong; a broken log could have as many faults as entries."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(finding)


# One snapshot for all of them (verify reads in one repeatable-read transaction).
HEADS = Statement("SELECT chain, seq, digest FROM audit.head ORDER BY chain", Head)
ENTRIES = Statement("SELECT * FROM audit.entry WHERE (chain, seq) > ($1, $2) ORDER BY chain, seq LIMIT $3", Entry)
CHECKPOINTS = Statement(
    """
    SELECT c.number, c.chain, c.seq, c.head, c.created_at, c.digest, e.digest AS stored
      FROM audit.checkpoint c LEFT JOIN audit.entry e ON e.chain = c.chain AND e.seq = c.seq
     WHERE c.number > $1 ORDER BY c.number LIMIT $2
    """,
    Checkpoint,
)
LAST_CHECKPOINT = Statement(
    """
    SELECT number, chain, seq, head, created_at, digest, head AS stored FROM audit.checkpoint
     ORDER BY number DESC LIMIT 1
    """,
    Checkpoint,
)
# One writer of checkpoints at a time, of all workers; the others need not wait for it.
LOCK_CHECKPOINTS = Statement(
    "SELECT pg_try_advisory_xact_lock(hashtextextended('tollway.audit.checkpoint', 0))", bool, scalar=True
)
# A chain that is being written to comes next time.
MOVED = Statement(
    """
    SELECT chain, seq, digest FROM audit.head WHERE anchored < seq ORDER BY chain LIMIT $1 FOR UPDATE SKIP LOCKED
    """,
    Head,
)
ANCHOR = Statement(
    """
    WITH anchored AS (UPDATE audit.head SET anchored = seq WHERE chain = $2)
    INSERT INTO audit.checkpoint (number, chain, seq, head, created_at, digest) VALUES ($1, $2, $3, $4, $5, $6)
    RETURNING number, chain, seq, head, created_at, digest, head AS stored
    """,
    Checkpoint,
)


async def anchor(database: Database) -> Checkpoint | None:
    """Write a checkpoint for every chain that has moved on, and return the last one there is."""
    while True:
        async with database.transaction() as connection:
            locked = await LOCK_CHECKPOINTS.one(connection)
            last = await LAST_CHECKPOINT.first(connection)
            if not locked:
                return last
            moved = await MOVED.all(connection, ROUND)
            for head in moved:
                last = await _anchor(connection, head, last)
        if len(moved) < ROUND:
            return last


class Anchorer:
    """Periodic job; any number of workers may run it. The log line is the copy that is kept elsewhere."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last = 0

    async def run(self) -> None:
        """Write checkpoints, and log the last one where it is new."""
        last = await anchor(self._database)
        if last is not None and last.number > self._last:
            self._last = last.number
            log.info("audit head %d:%s", last.number, last.digest.hex())


async def _anchor(connection: Connection, head: Head, before: Checkpoint | None) -> Checkpoint:
    number, moment = (before.number if before else 0) + 1, datetime.now(UTC)
    digest = _checkpoint_digest(number, head.chain, head.seq, head.digest, moment, before.digest if before else b"")
    return await ANCHOR.one(connection, number, head.chain, head.seq, head.digest, moment, digest)


async def verify(connection: Connection, kept: tuple[int, bytes] | None = None) -> Proof:
    """Read everything and return what was found. `kept` is the number and digest of a checkpoint kept elsewhere."""
    proof = Proof()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        heads = {head.chain: head for head in await HEADS.all(connection)}
        await _check_entries(connection, heads, proof)
        await _check_checkpoints(connection, kept, proof)
    return proof


async def _check_entries(connection: Connection, heads: dict[UUID, Head], proof: Proof) -> None:
    proof.chains = len(heads)
    last = Head(UUID(int=0), 0, b"")
    while entries := await ENTRIES.all(connection, last.chain, last.seq, ROUND):
        for entry in entries:
            if entry.chain != last.chain:
                _check_end(last, heads.pop(last.chain, None), proof)
                last = Head(entry.chain, 0, b"")
            if entry.seq != last.seq + 1:
                proof.blame(f"chain {entry.chain}: entries {last.seq + 1} to {entry.seq - 1} are missing")
            elif entry.previous != last.digest:
                proof.blame(f"chain {entry.chain}: entry {entry.seq} does not follow the one before it")
            if digest_of(entry) != entry.digest:
                proof.blame(f"chain {entry.chain}: entry {entry.seq} ({entry.id}) was changed")
            last = Head(entry.chain, entry.seq, entry.digest)
            proof.entries += 1
    _check_end(last, heads.pop(last.chain, None), proof)
    for head in heads.values():
        proof.blame(f"chain {head.chain}: all of its {head.seq} entries are missing")


def _check_end(last: Head, head: Head | None, proof: Proof) -> None:
    """Compare the last entry of a chain with its head; a chain that has nothing has no head either."""
    if head is None:
        if last.seq:
            proof.blame(f"chain {last.chain}: its head is missing")
    elif head.seq > last.seq:
        proof.blame(f"chain {last.chain}: entries {last.seq + 1} to {head.seq} at its end are missing")
    elif (head.seq, head.digest) != (last.seq, last.digest):
        proof.blame(f"chain {last.chain}: its last entry, {last.seq}, is not the one that its head names")


async def _check_checkpoints(connection: Connection, kept: tuple[int, bytes] | None, proof: Proof) -> None:
    found = False
    while rows := await CHECKPOINTS.all(connection, proof.last.number if proof.last else 0, ROUND):
        for row in rows:
            before, proof.last = proof.last, row
            proof.checkpoints += 1
            previous = before.digest if before else b""
            if row.number != proof.checkpoints:
                proof.blame(f"checkpoint {row.number}: one before it is missing")
                proof.checkpoints = row.number
            digest = _checkpoint_digest(row.number, row.chain, row.seq, row.head, row.created_at, previous)
            if digest != row.digest:
                proof.blame(f"checkpoint {row.number} was changed, or one before it")
            if row.stored != row.head:
                proof.blame(f"chain {row.chain}: entry {row.seq} is not the one of checkpoint {row.number}")
            if kept is not None and row.number == kept[0]:
                found = True
                if row.digest != kept[1]:
                    proof.blame(f"checkpoint {row.number} is not the one that was kept")
    if kept is not None and not found:
        proof.blame(f"checkpoint {kept[0]}, which was kept, is missing")


def _checkpoint_digest(number: int, chain: UUID, seq: int, head: bytes, moment: datetime, previous: bytes) -> bytes:
    fields = [number, str(chain), seq, head.hex(), microseconds(moment), previous.hex()]
    return hashlib.sha256(orjson.dumps(fields)).digest()
