"""Batches: what waits at the same time shares one statement, one transaction and one fsync. The base of the ledger's
hot doors: charges (group_commit.py) and holds (holds.py).

Waiting items stand on a list. A single drainer takes the whole list, sends it as arrays over a held connection and
resolves each caller with its own verdict; the window is the flight of the previous batch, so there is no timer. Ends of
exchanges, for which nobody waits, ride along.

What can go wrong, and what then holds:
- An item that does not fit fails alone; the others of its batch are posted.
- The connection is lost in flight: whether the batch committed is unknown, so it is sent again item by item; the
  ledger recognises those that had been posted. If the server stays away, callers get Unavailable, and what turns out
  to be taken is given back as soon as it is back (exactly.Owed).
- The server hangs: callers get Unavailable after PATIENCE; what comes through all the same is given back.
- A caller is cancelled: its item goes on, and is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from gateway.database.pool import LOST, UNABLE, Connection, UniqueViolation
from gateway.errors import Unavailable
from gateway.ledger.exactly import Exactly
from gateway.telemetry.logging import of

log = logging.getLogger(__name__)

BATCH = 512
MAX_WAITING = 20_000
FLUSH_AGAIN_SECONDS = 1.0  # after a flush that failed
PATIENCE = 10.0  # how long callers wait for a batch


class Entry(Protocol):
    """What one exchange asks of the ledger."""

    @property
    def exchange_id(self) -> UUID:
        """Return whose it is."""
        ...


class Verdict(Protocol):
    """What the ledger says of one item."""

    @property
    def verdict(self) -> str:
        """Return its word for it; `fenced` when this worker was taken for dead."""
        ...

    @property
    def paid(self) -> bool:
        """Return whether the item's money is taken, now or by an earlier try of the same exchange."""
        ...


Item = TypeVar("Item", bound=Entry)
Outcome = TypeVar("Outcome", bound=Verdict)


class Batches(ABC, Generic[Item, Outcome]):
    """One list, one drainer, one connection. `observe` is told of each batch: items and seconds."""

    ends_wait = 0.0
    """For how many seconds ends may wait behind a batch for another one that takes them along."""

    def __init__(self, line: Exactly, observe: Callable[[int, float], None] | None = None) -> None:
        self._line = line
        self._observe = observe
        self._waiting: list[tuple[Item, asyncio.Future[Outcome]]] = []
        self._drainer: asyncio.Task[None] | None = None
        self._flusher: asyncio.TimerHandle | None = None
        self._hangs = False

    # What a kind of item is.

    @abstractmethod
    async def _post_on(self, connection: Connection, items: list[Item]) -> list[Outcome]:
        """Post items, and ends that wait, in one transaction. Return a verdict for each item, in order."""

    @abstractmethod
    async def _write_ends(self) -> None:
        """Write ends that wait, without items. Raises Unavailable; then they still wait."""

    @property
    @abstractmethod
    def _ends(self) -> int:
        """Return how many ends wait."""

    @abstractmethod
    def _begin(self, item: Item) -> None:
        """Note that the item's money may move. Raises Unavailable when it may not."""

    @abstractmethod
    def _nothing_moved(self, item: Item) -> None:
        """Note that it did not."""

    @abstractmethod
    def _give_back(self, item: Item) -> None:
        """Give back what was taken for nobody."""

    @abstractmethod
    def _give_back_in_doubt(self, item: Item) -> None:
        """Give back, as soon as it can be done, what may have been taken, or still will be."""

    # Callers.

    async def _share(self, item: Item) -> Outcome:
        """Have an item posted durably and return its verdict. Raises Unavailable when the ledger cannot answer."""
        if self._hangs or len(self._waiting) >= MAX_WAITING:
            raise Unavailable("The ledger does not keep up; nothing was charged. Try again.")
        self._begin(item)
        verdict: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, verdict))
        self._wake()
        try:
            return await verdict
        except asyncio.CancelledError:
            if not verdict.cancelled() and verdict.exception() is None and verdict.result().paid:
                self._give_back(item)
            raise

    async def _drained(self) -> None:
        """Wait until nothing waits any more, except for a database that is away. Nobody may come afterwards."""
        while self._drainer is not None:
            await asyncio.gather(self._drainer, return_exceptions=True)
        if self._flusher is not None:
            self._flusher.cancel()
            self._flusher = None
        with contextlib.suppress(Unavailable):
            while self._ends:
                await self._write_ends()

    # Batches.

    def _wake(self) -> None:
        if self._drainer is None:
            self._drainer = asyncio.get_running_loop().create_task(self._drain())

    def _flush_in(self, seconds: float) -> None:
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().call_later(seconds, self._flush_due)

    def _flush_due(self) -> None:
        self._flusher = None
        if self._ends:
            self._wake()

    async def _drain(self) -> None:
        again = FLUSH_AGAIN_SECONDS
        try:
            await asyncio.sleep(0)  # let the callers of this loop turn join the batch
            while self._waiting or (self._ends and again != self.ends_wait):
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                if batch and self.ends_wait:
                    again = self.ends_wait
                with self._watched(batch):
                    await (self._post(batch) if batch else self._write_ends())
        except Unavailable:
            log.warning("%d ends of exchanges wait for the database", self._ends)
        finally:
            self._drainer = None
            if self._waiting:
                self._wake()
            elif self._ends:
                self._flush_in(again)

    async def _post(self, batch: list[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        """Post a batch and resolve every future in it, whatever happens."""
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            verdicts = await self._line.once(lambda connection: self._post_on(connection, [item for item, _ in batch]))
        except UNABLE as error:
            log.warning("ledger batch of %d refused: %s", len(batch), type(error).__name__)
            for item, future in batch:
                self._refused(item, future)
        except (*LOST, UniqueViolation) as error:
            log.warning("ledger batch of %d is sent again item by item after %s", len(batch), type(error).__name__)
            await self._post_each(batch)
        except BaseException as error:
            for item, future in batch:
                self._refused(item, future)
            if not isinstance(error, Exception):
                raise
            log.exception("ledger batch failed")
        else:
            for (item, future), verdict in zip(batch, verdicts, strict=True):
                self._resolve(item, future, verdict)
            if self._observe is not None:
                self._observe(len(batch), clock() - started)

    async def _post_each(self, batch: list[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        """Settle what a lost batch left unknown: each item by itself, which recognises its own earlier posting."""
        for position, (item, future) in enumerate(batch):
            try:
                verdict = (await self._line.run(lambda connection, one=item: self._post_on(connection, [one])))[0]
            except Unavailable as error:
                for unknown, waiting in batch[position:]:
                    self._give_back_in_doubt(unknown)
                    if not waiting.done():
                        waiting.set_exception(error)
                return
            except Exception:
                log.exception("an item of a batch failed", extra=of(item.exchange_id))
                self._refused(item, future)
            else:
                self._resolve(item, future, verdict)

    def _resolve(self, item: Item, future: asyncio.Future[Outcome], verdict: Outcome) -> None:
        if not verdict.paid:
            self._nothing_moved(item)
        if future.done():  # nobody waits any more
            if verdict.paid:
                self._give_back(item)
        elif verdict.verdict == "fenced":
            future.set_exception(Unavailable("The gateway was taken for dead; nothing was charged. Try again."))
        else:
            future.set_result(verdict)

    def _refused(self, item: Item, future: asyncio.Future[Outcome]) -> None:
        """The database said no to the statement, so nothing of it happened."""
        self._nothing_moved(item)
        if not future.done():
            future.set_exception(Unavailable("The ledger refused the payment; nothing was charged. Try again."))

    @contextlib.contextmanager
    def _watched(self, batch: list[tuple[Item, asyncio.Future[Outcome]]]) -> Generator[None]:
        alarm = asyncio.get_running_loop().call_later(PATIENCE, self._stop_waiting, batch)
        try:
            yield
        finally:
            alarm.cancel()
            self._hangs = False

    def _stop_waiting(self, batch: list[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        """The ledger hangs: whoever waits is told so. What was sent may still be taken; it is then given back."""
        self._hangs = True
        error = Unavailable("The ledger does not answer. If anything was charged it is refunded automatically.")
        for _, future in batch:
            if not future.done():
                future.set_exception(error)
        unsent, self._waiting = self._waiting, []
        for item, future in unsent:
            self._refused(item, future)
