"""Holds: money reserved before a price is known, captured in part when it is. One statement and one commit each.

What can go wrong, and what then holds:
- The database is lost under a statement: it is sent again; the ledger recognises what it has done before.
- It stays away: the caller gets Unavailable, and the hold is undone as soon as the database is back.
- The caller of `place` is cancelled: the hold is placed and released again.
- The process dies: the reconciler releases what is held.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson

from gateway.database.pool import Database
from gateway.database.statement import Statement
from gateway.errors import Unavailable
from gateway.ledger.answers import StoredAnswer
from gateway.ledger.entries import Settlement
from gateway.ledger.exactly import Doubt
from gateway.ledger.exchanges import END_HOLD, PLACE_HOLD, HoldVerdict, refund
from gateway.ledger.group_commit import GroupCommit

FINISH_HOLD = Statement(
    """
    SELECT verdict, available
      FROM ledger.finish_hold($1, $2::text::numeric, $3::text::numeric, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
                              $15, $16)
    """,
    HoldVerdict,
)
LOST_KEY = "The key of this call is another call's by now; nothing was charged. Try again."


@dataclass(frozen=True, slots=True)
class Hold:
    """What to reserve: atomic units of the wallet's asset, for one exchange."""

    exchange_id: UUID
    wallet_id: int
    publisher_id: UUID
    account_id: int
    amount: int


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


class Holds:
    """The ledger's door for prices that are known afterwards. `grace` is what refunds into expired lots get."""

    def __init__(self, database: Database, ledger: GroupCommit, *, grace: timedelta) -> None:
        self._database = database
        self._ledger = ledger
        self._grace = grace

    async def place(self, hold: Hold) -> HoldVerdict:
        """Reserve, durably. Verdict `held` or `short` (with what there is). Raises Unavailable; nothing stays held."""
        self._ledger.begin(hold.exchange_id)
        placing = self._ledger.spawn(self._place(hold))
        try:
            verdict = await asyncio.shield(placing)
        except asyncio.CancelledError:
            self._ledger.spawn(self._release_when_placed(hold.exchange_id, placing))
            raise
        if verdict.verdict not in ("held", "repeated"):
            self._ledger.ended(hold.exchange_id)
        if verdict.verdict == "fenced":
            raise Unavailable("The gateway was taken for dead; nothing was charged. Try again.")
        return verdict

    async def finish(self, capture: Capture) -> HoldVerdict:
        """Capture and release, durably, also when the caller is cancelled meanwhile.

        Raises Unavailable when that cannot be done, or not be known: then nothing stays charged.
        """
        return await asyncio.shield(self._ledger.spawn(self._finish(capture)))

    def finish_later(self, capture: Capture) -> None:
        """Capture and release without anybody waiting, as soon as the database is there."""
        self._ledger.spawn(self._finish_quietly(capture))

    async def _place(self, hold: Hold) -> HoldVerdict:
        worker_id = self._ledger.worker_id
        try:
            return await self._database.read(
                lambda connection: PLACE_HOLD.one(
                    connection, hold.exchange_id, hold.wallet_id, hold.publisher_id, hold.account_id,
                    str(hold.amount), worker_id,
                )
            )  # fmt: skip
        except Unavailable:
            self._owe_release(hold.exchange_id)
            raise

    async def _release_when_placed(self, exchange_id: UUID, placing: asyncio.Task[HoldVerdict]) -> None:
        try:
            verdict = await placing
        except Unavailable:
            return  # its release is owed by now
        if verdict.verdict in ("held", "repeated"):
            await self._finish_quietly(Capture(Settlement(exchange_id, "client_gone", None, 0, 0), 0, 0))
        else:
            self._ledger.ended(exchange_id)

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
            await self._database.read(lambda connection: FINISH_HOLD.one(connection, *_columns(self, capture)))
            self._ledger.ended(exchange_id)

        try:
            await work()
        except Unavailable:
            self._ledger.owe("end", exchange_id, work)

    def _owe_release(self, exchange_id: UUID) -> None:
        """Nobody knows what the ledger holds or has captured: give it back, when the statement cannot run any more."""
        doubt = self._ledger.doubt()
        self._ledger.owe("release", exchange_id, lambda: self._release(exchange_id, doubt))

    async def _release(self, exchange_id: UUID, doubt: Doubt) -> None:
        async with self._database.transaction() as connection:
            ended = await END_HOLD.one(connection, exchange_id, "0", "0", "unavailable", None, 0, 0, self._grace)
            if ended.verdict == "conflict":
                await refund(
                    connection, exchange_id, reason="unavailable", status=None, grace=self._grace, only_open=False
                )
        if ended.verdict == "unknown":
            doubt.check()
        self._ledger.ended(exchange_id)

    @property
    def grace(self) -> timedelta:
        """Return what refunds into expired lots get."""
        return self._grace


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
    )  # fmt: skip
