"""Holds: money reserved before a price is known, captured in part when it is. Placed in batches, ended behind them.

A hold is durable before its caller goes on, and its end is not waited for: it is written at once, before any hold that
is placed later here, so that what it releases can be spent again. Only the end of a call that has a key is waited for,
because its answer is kept with it.

What can go wrong besides what batches.py says, and what then holds:
- The database is away when a hold ends: the end waits here until it is back.
- It is lost under an end that is waited for, and stays away: the caller gets Unavailable, and everything is given back.
- The process dies: the reconciler releases what is held, also where the end was only in this process's memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson

from gateway.database.pool import LOST, Connection, Database
from gateway.database.statement import Statement
from gateway.errors import Unavailable
from gateway.ledger.answers import StoredAnswer
from gateway.ledger.batches import BATCH, Batches
from gateway.ledger.counters import Counter, counter_columns
from gateway.ledger.entries import Settlement, settlement_columns
from gateway.ledger.exactly import Doubt, Exactly
from gateway.ledger.exchanges import END_HOLD, HoldVerdict, refund
from gateway.ledger.group_commit import GroupCommit
from gateway.telemetry.logging import of

log = logging.getLogger(__name__)

PLACE_HOLDS = Statement(
    """
    SELECT verdict, available, kind, counted
      FROM ledger.place_holds($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::text[]::numeric[], $6,
                              $7::text[]::numeric[], $8::text[]::numeric[], $9::uuid[], $10::text[], $11::smallint[],
                              $12::bigint[], $13::bigint[], $14::text[], $15::bytea[], $16::bytea[], $19,
                              $20::integer[], $21::uuid[], $22::uuid[], $23::text[], $24::date[],
                              $25::text[]::numeric[], $26::boolean[], $27::text[]::numeric[], $28::text[]::numeric[],
                              $17::text[], $18::bigint[])
    """,
    HoldVerdict,
)
FINISH_HOLD = Statement(
    """
    SELECT verdict, available
      FROM ledger.finish_hold($1, $2::text::numeric, $3::text::numeric, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
                              $15, $16, $17, $18)
    """,
    HoldVerdict,
)
LOST_KEY = "The key of this call is another call's by now; nothing was charged. Try again."


@dataclass(frozen=True, slots=True)
class Hold:
    """What to reserve: atomic units of the wallet's asset, for one exchange, and what that counts."""

    exchange_id: UUID
    wallet_id: int
    publisher_id: UUID
    account_id: int
    amount: int
    counters: tuple[Counter, ...] = ()


@dataclass(frozen=True, slots=True)
class Capture:
    """How a held exchange ends: `amount` is captured, `fee` of it is the platform's, the rest is released.

    With `answer` the answer of the call with this owner's key is kept in the same transaction.
    """

    settlement: Settlement
    amount: int
    fee: int
    owner_id: UUID | None = None
    key: str | None = None
    answer: StoredAnswer | None = None


class Holds(Batches[Hold, HoldVerdict]):
    """The ledger's door for prices that are known afterwards. `grace` is what refunds into expired lots get."""

    def __init__(self, database: Database, ledger: GroupCommit, *, grace: timedelta) -> None:
        super().__init__(Exactly(database.settings))
        self._database = database
        self._ledger = ledger
        self._captures: list[Capture] = []
        self.grace = grace

    async def place(self, hold: Hold) -> HoldVerdict:
        """Reserve, durably, and count. Verdict `held`, or `short`, `busy` or `beyond`. Raises Unavailable; then not."""
        return await self._share(hold)

    async def finish(self, capture: Capture) -> HoldVerdict:
        """Capture and release, durably, also when the caller is cancelled meanwhile.

        Raises Unavailable when that cannot be done, or not be known: then nothing stays charged.
        """
        return await asyncio.shield(self._ledger.spawn(self._finish(capture)))

    def finish_later(self, capture: Capture) -> None:
        """Capture and release. Returns at once; it is written at once, or as soon as the database is there."""
        self._captures.append(capture)
        self._wake()

    async def stop(self) -> None:
        """Write everything that waits, then close. Called before the ledger stops."""
        await self._drained()
        await self._line.close()

    # Batches.

    async def _post_on(self, connection: Connection, items: list[Hold]) -> list[HoldVerdict]:
        ends = self._captures[:BATCH]
        try:
            rows = await post_holds(connection, items, self._ledger.worker_id, ends, self.grace)
        except LOST:
            raise
        except Exception:
            self._set_aside(ends)
            raise
        self._written(ends, rows)
        return rows[len(ends) :]

    @property
    def _ends(self) -> int:
        return len(self._captures)

    async def _write_ends(self) -> None:
        try:
            await self._line.run(lambda connection: self._post_on(connection, []))
        except Unavailable:
            raise
        except Exception:
            log.exception("ends of holds could not be written together")

    def _written(self, ends: Sequence[Capture], rows: Sequence[HoldVerdict]) -> None:
        """Take what was written off the list, and only now: a lost connection keeps it for the next try."""
        self._captures = self._captures[len(ends) :]
        for end, row in zip(ends, rows, strict=False):  # rows of holds follow
            self._ended(end.settlement.exchange_id, row)

    def _ended(self, exchange_id: UUID, ended: HoldVerdict) -> None:
        """Note an end for which nobody waits, as the ledger tells it."""
        if ended.verdict == "excess":
            log.error("more was due than had been held; nothing is charged", extra=of(exchange_id))
            self._owe_release(exchange_id)
            return
        if ended.verdict not in ("captured", "voided", "repeated"):  # by hand, or while this worker counted as dead
            log.warning("a hold had been ended otherwise", extra=of(exchange_id))
        self._ledger.ended(exchange_id)

    def _set_aside(self, ends: Sequence[Capture]) -> None:
        """Write ends one by one, so that one that the ledger cannot take does not stand in everybody's way."""
        self._captures = self._captures[len(ends) :]
        for end in ends:
            self._ledger.spawn(self._finish_quietly(end))

    def _begin(self, item: Hold) -> None:
        self._ledger.begin(item.exchange_id)

    def _nothing_moved(self, item: Hold) -> None:
        self._ledger.ended(item.exchange_id)

    def _give_back(self, item: Hold) -> None:
        self.finish_later(Capture(Settlement(item.exchange_id, "client_gone", None, 0, 0), 0, 0))

    def _give_back_in_doubt(self, item: Hold) -> None:
        self._owe_release(item.exchange_id)

    # Ends that are waited for.

    async def _finish(self, capture: Capture) -> HoldVerdict:
        exchange_id = capture.settlement.exchange_id
        try:
            ended = await self._database.read(lambda connection: FINISH_HOLD.one(connection, *_columns(self, capture)))
        except Unavailable:
            self._owe_release(exchange_id)
            raise
        if ended.verdict in ("captured", "voided", "repeated"):
            self._ledger.ended(exchange_id)
            return ended
        self._owe_release(exchange_id)
        raise Unavailable(LOST_KEY)

    async def _finish_quietly(self, capture: Capture) -> None:
        exchange_id = capture.settlement.exchange_id

        async def work() -> None:
            self._ended(
                exchange_id,
                await self._database.read(lambda connection: FINISH_HOLD.one(connection, *_columns(self, capture))),
            )

        try:
            await work()
        except Unavailable:
            self._ledger.owe("end", exchange_id, work)
        except Exception:
            log.exception("a hold could not be ended; it is left to the reconciler", extra=of(exchange_id))

    def _owe_release(self, exchange_id: UUID) -> None:
        """Nobody knows what the ledger holds or has captured: give it back, when the statement cannot run any more."""
        doubt = self._ledger.doubt()
        self._ledger.owe("release", exchange_id, lambda: self._release(exchange_id, doubt))

    async def _release(self, exchange_id: UUID, doubt: Doubt) -> None:
        async with self._database.transaction() as connection:
            ended = await END_HOLD.one(connection, exchange_id, "0", "0", "unavailable", None, 0, 0, self.grace)
            if ended.verdict == "conflict":
                await refund(
                    connection, exchange_id, reason="unavailable", status=None, grace=self.grace, only_open=False
                )
        if ended.verdict == "unknown":
            doubt.check()
        self._ledger.ended(exchange_id)


async def post_holds(
    connection: Connection, holds: Sequence[Hold], worker_id: int | None, ends: Sequence[Capture], grace: timedelta
) -> list[HoldVerdict]:
    """End holds and then place others in one transaction; return a verdict for each end, then one for each hold."""
    return await PLACE_HOLDS.all(
        connection,
        [hold.exchange_id for hold in holds],
        [hold.wallet_id for hold in holds],
        [hold.publisher_id for hold in holds],
        [hold.account_id for hold in holds],
        [str(hold.amount) for hold in holds],
        worker_id,
        [str(end.amount) for end in ends],
        [str(end.fee) for end in ends],
        *settlement_columns([end.settlement for end in ends]),
        grace,
        *counter_columns([(hold.amount, hold.counters) for hold in holds]),
    )


def _columns(holds: Holds, capture: Capture) -> tuple[object, ...]:
    end, answer = capture.settlement, capture.answer
    kept = (
        orjson.dumps([[n.decode("latin-1"), v.decode("latin-1")] for n, v in answer.headers]) if answer else None,
        answer.body if answer else None,
        answer.request_body_hash if answer else None,
    )
    return (
        end.exchange_id, str(capture.amount), str(capture.fee), end.reason, end.status, end.bytes_in, end.bytes_out,
        holds.grace, end.method, end.target_hash, end.body_hash, capture.owner_id, capture.key, *kept,
        end.endpoint, end.rows,
    )  # fmt: skip
