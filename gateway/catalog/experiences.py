"""What paid answers have taught about estimates, shared by all workers through the database.

Paths only look into memory; a job writes what this worker saw and reads what others did. Nothing waits for it, and what
is lost costs nothing but a worse guess. What may be told to whom is decided in pricing/sql/learning.py: a payer's own
answers at once, others' only when enough of them agree on the shape.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from pricing.sql.learning import Experience, expected, learn

MOST_SHAPES = 5_000
"""So many shapes are in a worker's memory, the last used ones."""
MOST_PAYERS = 32
"""So many payers' experiences of one shape are kept there."""
MOST_WAITING = 1_000
PER_PUBLISHER = 2_000
AT_ONCE = 5_000
OVERLAP = timedelta(seconds=30)
"""Rows are read again for so long: a transaction that began earlier may be committed later."""
KEPT = timedelta(days=30)

Shape = tuple[UUID, bytes]


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: of `actual` rows, where the planner had said `planned`."""

    publisher_id: UUID
    shape: bytes
    account_id: UUID
    planned: int
    actual: int

    @property
    def key(self) -> tuple[UUID, bytes, UUID]:
        """Return what it is counted under."""
        return self.publisher_id, self.shape, self.account_id


@dataclass(frozen=True, slots=True)
class Row:
    """One row of catalog.experience."""

    publisher_id: UUID
    shape: bytes
    account_id: UUID
    seen: int
    bias: int
    level: int
    plan_error: int
    bias_error: int
    level_error: int
    updated_at: datetime

    @property
    def experience(self) -> Experience:
        """Return what it says."""
        return Experience(
            self.seen, self.bias, self.level, self.plan_error, self.bias_error, self.level_error
        )  # fmt: skip


READ_NEWER = Statement(
    """
    SELECT publisher_id, shape, account_id, seen, bias, level, plan_error, bias_error, level_error, updated_at
      FROM catalog.experience WHERE updated_at > $1 ORDER BY updated_at DESC LIMIT $2
    """,
    Row,
)
READ_THESE = Statement(
    """
    SELECT e.publisher_id, e.shape, e.account_id, seen, bias, level, plan_error, bias_error, level_error, updated_at
      FROM unnest($1::uuid[], $2::bytea[], $3::uuid[]) AS k (publisher_id, shape, account_id)
      JOIN catalog.experience e USING (publisher_id, shape, account_id)
    """,
    Row,
)
# Two workers may write one row at once: the later one stands, and the other's answer is forgotten.
WRITE = Command(
    """
    INSERT INTO catalog.experience AS e
           (publisher_id, shape, account_id, seen, bias, level, plan_error, bias_error, level_error)
    SELECT n.* FROM unnest($1::uuid[], $2::bytea[], $3::uuid[], $4::int[], $5::int[], $6::int[], $7::int[], $8::int[],
                           $9::int[])
                 AS n (publisher_id, shape, account_id, seen, bias, level, plan_error, bias_error, level_error)
      JOIN catalog.publisher p ON p.id = n.publisher_id
     ORDER BY n.publisher_id, n.shape, n.account_id
    ON CONFLICT (publisher_id, shape, account_id) DO UPDATE
       SET seen = excluded.seen, bias = excluded.bias, level = excluded.level, plan_error = excluded.plan_error,
           bias_error = excluded.bias_error, level_error = excluded.level_error, updated_at = clock_timestamp()
    """
)
TRIM = Command(
    """
    DELETE FROM catalog.experience e USING (
        SELECT publisher_id, shape, account_id FROM (
            SELECT publisher_id, shape, account_id,
                   row_number() OVER (PARTITION BY publisher_id ORDER BY updated_at DESC) AS place
              FROM catalog.experience WHERE publisher_id = ANY ($1::uuid[])) ranked
         WHERE place > $2) old
     WHERE (e.publisher_id, e.shape, e.account_id) = (old.publisher_id, old.shape, old.account_id)
    """
)
FORGET = Command("DELETE FROM catalog.experience WHERE updated_at < now() - $1::interval")


class Experiences:
    """One per worker."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[Shape, OrderedDict[UUID, Experience]] = OrderedDict()
        self._waiting: list[Seen] = []
        self._read_to = datetime.min.replace(tzinfo=UTC)

    @property
    def size(self) -> int:
        """Return how many shapes are known."""
        return len(self._known)

    def expected(self, publisher_id: UUID, shape: bytes, account_id: UUID | None, planned: int) -> int:
        """Return the rows to expect of a query where the planner says `planned`."""
        known = self._known.get((publisher_id, shape))
        if known is None:
            return planned
        self._known.move_to_end((publisher_id, shape))
        own = None if account_id is None else known.get(account_id)
        return expected(planned, own, [] if own is not None else list(known.values()))

    def saw(self, seen: Seen) -> None:
        """Note a paid answer. When too many wait to be written, the oldest are not."""
        self._learn(seen)
        self._waiting.append(seen)
        del self._waiting[:-MOST_WAITING]

    async def sync(self) -> None:
        """Write what was seen and read what other workers wrote: a job."""
        waiting, self._waiting = self._waiting, []
        async with self._database.acquire() as connection:
            if waiting:
                await _write(connection, waiting)
            rows = await READ_NEWER.all(connection, self._read_to, AT_ONCE)
        for row in reversed(rows):
            self._keep((row.publisher_id, row.shape), row.account_id, row.experience)
            self._read_to = max(self._read_to, row.updated_at - OVERLAP)
        for seen in self._waiting:  # came meanwhile, so the rows do not have it
            self._learn(seen)

    async def forget(self) -> None:
        """Forget what nobody met for long: a job."""
        async with self._database.acquire() as connection:
            await FORGET.run(connection, KEPT)

    def _learn(self, seen: Seen) -> None:
        known = self._known.get((seen.publisher_id, seen.shape))
        before = None if known is None else known.get(seen.account_id)
        self._keep((seen.publisher_id, seen.shape), seen.account_id, learn(before, seen.planned, seen.actual))

    def _keep(self, shape: Shape, account_id: UUID, experience: Experience) -> None:
        known = self._known.setdefault(shape, OrderedDict())
        known[account_id] = experience
        known.move_to_end(account_id)
        if len(known) > MOST_PAYERS:
            known.popitem(last=False)
        self._known.move_to_end(shape)
        if len(self._known) > MOST_SHAPES:
            self._known.popitem(last=False)


async def _write(connection: Connection, waiting: list[Seen]) -> None:
    keys = sorted({one.key for one in waiting})
    rows = await READ_THESE.all(connection, *map(list, zip(*keys, strict=True)))
    known = {(row.publisher_id, row.shape, row.account_id): row.experience for row in rows}
    for one in waiting:
        known[one.key] = learn(known.get(one.key), one.planned, one.actual)
    found = [known[key] for key in keys]
    await WRITE.run(
        connection,
        *map(list, zip(*keys, strict=True)),
        *([getattr(one, name) for one in found] for name in Experience.__slots__),
    )
    await TRIM.run(connection, list({key[0] for key in keys}), PER_PUBLISHER)
