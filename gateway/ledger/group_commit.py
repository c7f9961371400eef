"""Group commit: concurrent charges share one statement, one transaction and one fsync.

Waiting charges stand on a list. A single drainer takes the whole list, sends it as arrays over a held connection and
resolves each caller with its own verdict; the window is the flight of the previous batch, so there is no timer. Ends of
exchanges (settlements) ride along with the next batch, or are flushed shortly after when none comes.

What can go wrong, and what then holds:
- A charge that does not fit fails alone; the others of its batch are posted.
- The connection is lost in flight: whether the batch committed is unknown, so it is sent again item by item; the
  ledger answers `replayed` for those that had been posted. If the server stays away, callers get Unavailable, and what
  turns out to be charged is refunded as soon as it is back (exactly.Owed).
- The server hangs: callers get Unavailable after PATIENCE; charges that come through all the same are refunded.
- A caller is cancelled: its charge goes on, and is refunded.
- This process was taken for dead: the ledger refuses its charges (`fenced`) until the heartbeat registers it anew.
- It dies: what is open is refunded by the reconciler, which reads from `settled_through` on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from gateway.database.pool import LOST, UNABLE, Connection, UniqueViolation
from gateway.errors import Unavailable
from gateway.ids import floor_at
from gateway.ledger.entries import SETTLE, Charge, Settlement, post, settlement_columns
from gateway.ledger.exactly import Doubt, Exactly, Owed
from gateway.ledger.exchanges import REFUND, ChargeVerdict, Refunded
from gateway.settings import DatabaseSettings
from gateway.telemetry.logging import of

log = logging.getLogger(__name__)

Result = TypeVar("Result")
BATCH = 512
MAX_WAITING = 20_000
FLUSH_SECONDS = 0.02
FLUSH_AGAIN_SECONDS = 1.0  # after a flush that failed
PATIENCE = 10.0  # how long callers wait for a batch
SLACK_MS = 60_000  # how long a call may take from its id to its charge

Waiting = tuple[Charge, asyncio.Future[ChargeVerdict]]


class GroupCommit:
    """The ledger's hot door. One per worker; `stop` ends its life."""

    def __init__(
        self, settings: DatabaseSettings, *, grace: timedelta, observe: Callable[[int, float], None] | None = None
    ) -> None:
        self._line = Exactly(settings)
        self._owed = Owed()
        self._statement_timeout = settings.command_timeout
        self._grace = grace
        self._observe = observe
        self._charges: list[Waiting] = []
        self._settlements: list[Settlement] = []
        self._drainer: asyncio.Task[None] | None = None
        self._flusher: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._open: dict[UUID, None] = {}  # from before the charge is sent until its end is durable
        self._through = floor_at(0)
        self._hangs = False
        self.worker_id: int | None = None

    async def charge(self, charge: Charge) -> ChargeVerdict:
        """Post one charge durably and return its verdict. Raises Unavailable when the ledger cannot answer."""
        if self._hangs or len(self._charges) >= MAX_WAITING:
            raise Unavailable("The ledger does not keep up; nothing was charged. Try again.")
        self.begin(charge.exchange_id)
        verdict: asyncio.Future[ChargeVerdict] = asyncio.get_running_loop().create_future()
        self._charges.append((charge, verdict))
        self._wake()
        try:
            return await verdict
        except asyncio.CancelledError:
            if not verdict.cancelled() and verdict.exception() is None and verdict.result().paid:
                self._refund_abandoned(charge.exchange_id)
            raise

    def settle(self, settlement: Settlement) -> None:
        """Note how an exchange ended. Returns at once; written with the next batch or within FLUSH_SECONDS."""
        self._settlements.append(settlement)
        if self._drainer is None:
            self._flush_in(FLUSH_SECONDS)

    async def refund(self, exchange_id: UUID, *, reason: str, status: int | None) -> Refunded:
        """Undo an exchange's charge durably, also when the caller is cancelled meanwhile.

        Raises Unavailable when the ledger does not answer within PATIENCE; the refund is made as soon as it does.
        """
        refunding = self.spawn(self._refund(exchange_id, reason, status))
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(refunding)
        except TimeoutError:
            raise Unavailable("The ledger does not answer; what was charged is refunded as soon as it does.") from None

    async def exactly(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Run other idempotent work over the ledger's connection. Raises Unavailable when the ledger stays away."""
        return await self._line.run(work)

    def owe(self, what: str, exchange_id: UUID, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have idempotent work done as soon as the database is back; `what` of which exchange is for the log."""
        self._owed.add(what, exchange_id, work)

    def doubt(self) -> Doubt:
        """Return for how long a statement that was lost now may still be carried out."""
        return Doubt(self._statement_timeout)

    @property
    def open_exchanges(self) -> int:
        """Return how many exchanges of this worker may be charged and have not ended durably."""
        return len(self._open)

    @property
    def owed(self) -> int:
        """Return how many refunds and the like wait for the database."""
        return len(self._owed)

    def settled_through(self, now_ms: int) -> UUID:
        """Return an exchange id before which everything of this worker has ended, and will (see ledger.worker)."""
        self._through = max(self._through, min([floor_at(now_ms - SLACK_MS), *self._open]))
        return self._through

    def begin(self, exchange_id: UUID) -> None:
        """Note that money may move for this exchange. Raises Unavailable when the reconciler could not find it."""
        if exchange_id < self._through:
            raise Unavailable("The call took too long to be paid; nothing was charged. Try again.")
        self._open[exchange_id] = None

    def ended(self, exchange_id: UUID) -> None:
        """Note that this exchange's end is durable, or that nothing moved for it."""
        self._open.pop(exchange_id, None)

    def spawn(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Run ledger work that outlives its caller; `stop` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def stop(self) -> None:
        """Write everything that waits, then close. Called after the last exchange has ended."""
        if self._flusher is not None:
            self._flusher.cancel()
        while self._drainer is not None or self._background:
            await asyncio.gather(*filter(None, [self._drainer]), *self._background, return_exceptions=True)
        with contextlib.suppress(Unavailable):
            while self._settlements:
                await self._write_settlements()
        await self._owed.stop()
        await self._line.close()

    # Batches.

    def _wake(self) -> None:
        if self._drainer is None:
            self._drainer = asyncio.get_running_loop().create_task(self._drain())

    def _flush_in(self, seconds: float) -> None:
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().call_later(seconds, self._flush_due)

    def _flush_due(self) -> None:
        self._flusher = None
        if self._settlements:
            self._wake()

    async def _drain(self) -> None:
        try:
            await asyncio.sleep(0)  # let the callers of this loop turn join the batch
            while self._charges or self._settlements:
                batch, self._charges = self._charges[:BATCH], self._charges[BATCH:]
                with self._watched(batch):
                    await (self._post(batch) if batch else self._write_settlements())
        except Unavailable:
            log.warning("%d settlements wait for the database", len(self._settlements))
        finally:
            self._drainer = None
            if self._charges:
                self._wake()
            elif self._settlements:
                self._flush_in(FLUSH_AGAIN_SECONDS)

    async def _post(self, batch: list[Waiting]) -> None:
        """Post a batch and resolve every future in it, whatever happens."""
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            verdicts = await self._line.once(lambda connection: self._post_on(connection, [item for item, _ in batch]))
        except UNABLE as error:
            log.warning("ledger batch of %d refused: %s", len(batch), type(error).__name__)
            for charge, future in batch:
                self._refused(charge, future)
        except (*LOST, UniqueViolation) as error:
            log.warning("ledger batch of %d is sent again item by item after %s", len(batch), type(error).__name__)
            await self._post_each(batch)
        except BaseException as error:
            for charge, future in batch:
                self._refused(charge, future)
            if not isinstance(error, Exception):
                raise
            log.exception("ledger batch failed")
        else:
            for (charge, future), verdict in zip(batch, verdicts, strict=True):
                self._resolve(charge, future, verdict)
            if self._observe is not None:
                self._observe(len(batch), clock() - started)

    async def _post_on(self, connection: Connection, charges: list[Charge]) -> list[ChargeVerdict]:
        ends = self._settlements[:BATCH]
        verdicts = await post(connection, charges, self.worker_id, ends)
        self._written(ends)
        return verdicts

    async def _post_each(self, batch: list[Waiting]) -> None:
        """Settle what a lost batch left unknown: each charge by itself, which recognises its own earlier posting."""
        for position, (charge, future) in enumerate(batch):
            try:
                verdict = (await self._line.run(lambda connection, one=charge: self._post_on(connection, [one])))[0]
            except Unavailable as error:
                for unknown, waiting in batch[position:]:
                    self._unknown(unknown, waiting, error)
                return
            except Exception:
                log.exception("charge failed", extra=of(charge.exchange_id))
                self._refused(charge, future)
            else:
                self._resolve(charge, future, verdict)

    def _resolve(self, charge: Charge, future: asyncio.Future[ChargeVerdict], verdict: ChargeVerdict) -> None:
        if not verdict.paid:
            self._open.pop(charge.exchange_id, None)
        if future.done():  # nobody waits any more
            if verdict.paid:
                self._refund_abandoned(charge.exchange_id)
        elif verdict.verdict == "fenced":
            future.set_exception(Unavailable("The gateway was taken for dead; nothing was charged. Try again."))
        else:
            future.set_result(verdict)

    def _refused(self, charge: Charge, future: asyncio.Future[ChargeVerdict]) -> None:
        """The database said no to the statement, so nothing of it happened."""
        self._open.pop(charge.exchange_id, None)
        if not future.done():
            future.set_exception(Unavailable("The ledger refused the payment; nothing was charged. Try again."))

    def _unknown(self, charge: Charge, future: asyncio.Future[ChargeVerdict], error: Unavailable) -> None:
        """Nobody knows whether it was charged: if so, it is refunded when the database is back."""
        doubt = self.doubt()
        self.owe("end", charge.exchange_id, lambda: self._undo_unknown(charge.exchange_id, doubt))
        if not future.done():
            future.set_exception(error)

    @contextlib.contextmanager
    def _watched(self, batch: list[Waiting]) -> Generator[None]:
        alarm = asyncio.get_running_loop().call_later(PATIENCE, self._stop_waiting, batch)
        try:
            yield
        finally:
            alarm.cancel()
            self._hangs = False

    def _stop_waiting(self, batch: list[Waiting]) -> None:
        """The ledger hangs: whoever waits is told so. What was sent may still be charged; it is then refunded."""
        self._hangs = True
        error = Unavailable("The ledger does not answer. If anything was charged it is refunded automatically.")
        for _, future in batch:
            if not future.done():
                future.set_exception(error)
        unsent, self._charges = self._charges, []
        for charge, future in unsent:
            self._refused(charge, future)

    # Ends.

    async def _write_settlements(self) -> None:
        ends = self._settlements[:BATCH]
        await self._line.run(lambda connection: SETTLE.run(connection, *settlement_columns(ends)))
        self._written(ends)

    def _written(self, ends: list[Settlement]) -> None:
        """Take what was written off the list, and only now: a lost connection keeps it for the next try."""
        if ends:
            self._settlements = self._settlements[len(ends) :]
            for end in ends:
                self._open.pop(end.exchange_id, None)

    async def _refund(self, exchange_id: UUID, reason: str, status: int | None) -> Refunded:
        async def work(connection: Connection) -> Refunded:
            return await REFUND.one(connection, exchange_id, reason, status, self._grace, True)

        async def later() -> None:
            await self._line.once(work)
            self.ended(exchange_id)

        try:
            refunded = await self._line.run(work)
        except Unavailable:
            self.owe("refund", exchange_id, later)
            raise
        self.ended(exchange_id)
        return refunded

    async def _undo_unknown(self, exchange_id: UUID, doubt: Doubt) -> None:
        """Refund a charge if it was made, or still will be."""
        undone = await self._line.once(
            lambda connection: REFUND.one(connection, exchange_id, "unavailable", None, self._grace, True)
        )
        if undone.verdict == "unknown":
            doubt.check()
        self.ended(exchange_id)

    def _refund_abandoned(self, exchange_id: UUID) -> None:
        async def quietly() -> None:
            with contextlib.suppress(Unavailable):
                await self._refund(exchange_id, "client_gone", None)

        self.spawn(quietly())
