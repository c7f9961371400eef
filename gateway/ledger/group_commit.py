"""Group commit: concurrent charges share one statement, one transaction and one fsync.

Waiting charges stand on a list. A single drainer takes the whole list, sends it as arrays over a held connection and
resolves each caller with its own verdict; the window is the flight of the previous batch, so there is no timer. Ends of
exchanges (settlements) ride along with the next batch, or are flushed shortly after when none comes.

What can go wrong, and what then holds:
- A charge that does not fit fails alone; the others of its batch are posted.
- The connection is lost in flight: whether the batch committed is unknown, so it is sent again item by item; the
  ledger answers `replayed` for those that had been posted. If the server stays away, callers get Unavailable and any
  charge that did commit is an open exchange, which the reconciler refunds.
- A caller is cancelled: its charge goes on, and `charge` posts the refund before it lets the cancellation through.
- A settlement is lost in a crash: the exchange stays open and is the reconciler's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from gateway.database.pool import LOST, Connection, Held, UniqueViolation
from gateway.database.statement import Command, Statement
from gateway.errors import Unavailable
from gateway.ids import floor_at
from gateway.ledger.exchanges import POST_CHARGE, REFUND, ChargeVerdict, Refunded
from gateway.settings import DatabaseSettings

log = logging.getLogger(__name__)

BATCH = 512
MAX_WAITING = 20_000
FLUSH_SECONDS = 0.02
SLACK_MS = 60_000  # how long a call may take from its id to its charge
RETRY_SECONDS = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0)

POST_CHARGES = Statement(
    """
    SELECT verdict, available, deposit, promotional, funded
      FROM ledger.post_charges($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::text[]::numeric[],
                               $6::text[]::numeric[], $7, $8::uuid[], $9::text[], $10::smallint[], $11::bigint[],
                               $12::bigint[], $13::text[], $14::bytea[], $15::bytea[])
    """,
    ChargeVerdict,
)
SETTLE = Command(
    """
    SELECT ledger.settle($1::uuid[], $2::text[], $3::smallint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[],
                         $8::bytea[], true)
    """
)
SETTLE_DURABLY = Command(
    """
    SELECT ledger.settle($1::uuid[], $2::text[], $3::smallint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[],
                         $8::bytea[], false)
    """
)


@dataclass(frozen=True, slots=True)
class Charge:
    """One fixed-price charge. Amounts are atomic units of the wallet's asset; `fee` is part of `amount`."""

    exchange_id: UUID
    wallet_id: int
    publisher_id: UUID
    account_id: int
    amount: int
    fee: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an exchange ended without a refund, and what its receipt will say: sizes are body bytes either way.

    `target_hash` is the sha256 of the request target as sent, `body_hash` that of the response body as delivered.
    """

    exchange_id: UUID
    reason: str
    status: int | None
    bytes_in: int
    bytes_out: int
    method: str | None = None
    target_hash: bytes | None = None
    body_hash: bytes | None = None


class GroupCommit:
    """The ledger's hot door. One per worker; `start` and `stop` frame its life."""

    def __init__(
        self, settings: DatabaseSettings, *, grace: timedelta, observe: Callable[[int, float], None] | None = None
    ) -> None:
        self._held = Held(settings)
        self._grace = grace
        self._observe = observe
        self._charges: list[tuple[Charge, asyncio.Future[ChargeVerdict]]] = []
        self._settlements: list[Settlement] = []
        self._drainer: asyncio.Task[None] | None = None
        self._flusher: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._using = asyncio.Lock()
        self._open: dict[UUID, None] = {}
        self.worker_id: int | None = None

    async def charge(self, charge: Charge) -> ChargeVerdict:
        """Post one charge durably and return its verdict. Raises Unavailable when the ledger cannot answer."""
        if len(self._charges) >= MAX_WAITING:
            raise Unavailable("Too many payments are waiting for the ledger; nothing was charged.")
        verdict: asyncio.Future[ChargeVerdict] = asyncio.get_running_loop().create_future()
        self._charges.append((charge, verdict))
        self._wake()
        try:
            return await asyncio.shield(verdict)
        except asyncio.CancelledError:
            verdict.add_done_callback(lambda done: self._undo_abandoned(charge, done))
            raise

    def settle(self, settlement: Settlement) -> None:
        """Note how an exchange ended. Returns at once; written with the next batch or within FLUSH_SECONDS."""
        self._settlements.append(settlement)
        if self._drainer is None:
            self._flush_soon()

    async def refund(self, exchange_id: UUID, *, reason: str, status: int | None) -> Refunded:
        """Undo an exchange's charge durably. Raises Unavailable when the ledger stays away (the reconciler will)."""
        refunded: Refunded = await self._exactly(
            lambda connection: REFUND.one(connection, exchange_id, reason, status, self._grace, True)
        )
        self._open.pop(exchange_id, None)
        return refunded

    @property
    def open_exchanges(self) -> int:
        """Return how many exchanges of this worker are charged and not yet ended durably."""
        return len(self._open)

    def settled_through(self, now_ms: int) -> UUID:
        """Return an exchange id before which everything of this worker has ended (see ledger.worker)."""
        waiting = [charge.exchange_id for charge, _ in self._charges]
        return min([floor_at(now_ms - SLACK_MS), *self._open, *waiting])

    def ended(self, exchange_id: UUID) -> None:
        """Note that somebody else wrote this exchange's end durably (ledger.answers)."""
        self._open.pop(exchange_id, None)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run ledger work that outlives its caller; `stop` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def stop(self) -> None:
        """Write everything that waits, then close. Called after the last exchange has ended."""
        while self._drainer is not None or self._background:
            await asyncio.gather(*filter(None, [self._drainer]), *self._background, return_exceptions=True)
        if self._flusher is not None:
            self._flusher.cancel()
        with contextlib.suppress(Unavailable):
            while self._settlements:
                await self._write_settlements()
        await self._held.close()

    def _wake(self) -> None:
        if self._drainer is None:
            self._drainer = asyncio.get_running_loop().create_task(self._drain())

    def _flush_soon(self) -> None:
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_due)

    def _flush_due(self) -> None:
        self._flusher = None
        if self._settlements:
            self._wake()

    async def _drain(self) -> None:
        try:
            await asyncio.sleep(0)  # let the callers of this loop turn join the batch
            while self._settlements and not self._charges:
                await self._write_settlements()
            while self._charges:
                batch, self._charges = self._charges[:BATCH], self._charges[BATCH:]
                await self._post(batch)
        except Unavailable:
            log.warning("settlements could not be written; their exchanges are left to the reconciler")
        finally:
            self._drainer = None
            if self._charges:
                self._wake()
            elif self._settlements:
                # Not at once: while calls come in, the next batch takes these along without a statement of their own.
                self._flush_soon()

    async def _post(self, batch: list[tuple[Charge, asyncio.Future[ChargeVerdict]]]) -> None:
        """Post a batch and resolve every future in it, whatever happens."""
        started = asyncio.get_running_loop().time()
        charges = [charge for charge, _ in batch]
        try:
            verdicts = await self._post_once(charges)
        except (*LOST, UniqueViolation) as error:
            log.warning("ledger batch of %d is sent again item by item after %s", len(batch), type(error).__name__)
            self._held.drop()
            await self._post_each(batch)
            return
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(Unavailable("The ledger refused the payment; nothing was charged."))
            if not isinstance(error, Exception):
                raise
            log.exception("ledger batch failed")
            return
        for (charge, future), verdict in zip(batch, verdicts, strict=True):
            self._resolve(charge, future, verdict)
        if self._observe is not None:
            self._observe(len(batch), asyncio.get_running_loop().time() - started)

    async def _post_once(self, charges: list[Charge]) -> list[ChargeVerdict]:
        async with self._using:
            connection = await self._held.get()
            ends = self._settlements[:BATCH]
            verdicts = await POST_CHARGES.all(
                connection,
                [charge.exchange_id for charge in charges],
                [charge.wallet_id for charge in charges],
                [charge.publisher_id for charge in charges],
                [charge.account_id for charge in charges],
                [str(charge.amount) for charge in charges],
                [str(charge.fee) for charge in charges],
                self.worker_id,
                *settlement_columns(ends),
            )
            self._written(ends)
            return verdicts

    async def _single(self, connection: Connection, charge: Charge) -> ChargeVerdict:
        return await POST_CHARGE.one(
            connection,
            charge.exchange_id,
            charge.wallet_id,
            charge.publisher_id,
            charge.account_id,
            str(charge.amount),
            str(charge.fee),
            self.worker_id,
        )

    async def _post_each(self, batch: list[tuple[Charge, asyncio.Future[ChargeVerdict]]]) -> None:
        """Settle what a lost batch left unknown: each charge by itself, which recognises its own earlier posting."""
        for charge, future in batch:
            try:
                verdict = await self._exactly(lambda connection, charge=charge: self._single(connection, charge))
            except Unavailable as error:
                if not future.done():
                    future.set_exception(error)
                continue
            self._resolve(charge, future, verdict)

    def _resolve(self, charge: Charge, future: asyncio.Future[ChargeVerdict], verdict: ChargeVerdict) -> None:
        if verdict.paid:
            self._open[charge.exchange_id] = None
        if not future.done():
            future.set_result(verdict)

    async def _exactly(self, work: Callable[[Connection], Coroutine[Any, Any, Any]]) -> Any:
        """Run idempotent work, again after each lost connection, until the retries are used up."""
        for pause in RETRY_SECONDS:
            if pause:
                await asyncio.sleep(pause)
            async with self._using:
                try:
                    return await work(await self._held.get())
                except LOST as error:
                    log.warning("ledger connection lost: %s", type(error).__name__)
                    self._held.drop()
        raise Unavailable("The ledger cannot be reached. If anything was charged it is refunded automatically.")

    async def _write_settlements(self) -> None:
        ends = self._settlements[:BATCH]

        async def work(connection: Connection) -> None:
            await SETTLE.run(connection, *settlement_columns(ends))

        await self._exactly(work)
        self._written(ends)

    def _written(self, ends: list[Settlement]) -> None:
        """Take what was written off the list, and only now: a lost connection keeps it for the next try."""
        if ends:
            self._settlements = self._settlements[len(ends) :]
            for end in ends:
                self._open.pop(end.exchange_id, None)

    def _undo_abandoned(self, charge: Charge, done: asyncio.Future[ChargeVerdict]) -> None:
        """Refund a charge whose caller went away before its verdict came."""
        if not done.cancelled() and done.exception() is None and done.result().paid:
            self.spawn(self._refund_quietly(charge.exchange_id))

    async def _refund_quietly(self, exchange_id: UUID) -> None:
        with contextlib.suppress(Unavailable):
            await self.refund(exchange_id, reason="client_gone", status=None)


def settlement_columns(ends: list[Settlement]) -> tuple[list[Any], ...]:
    """Return settlements as the arrays that ledger.settle and ledger.post_charges take."""
    return (
        [end.exchange_id for end in ends],
        [end.reason for end in ends],
        [end.status for end in ends],
        [end.bytes_in for end in ends],
        [end.bytes_out for end in ends],
        [end.method for end in ends],
        [end.target_hash for end in ends],
        [end.body_hash for end in ends],
    )
