"""Group commit: concurrent charges share one statement, one transaction and one fsync (batches.py says how).

Ends of charged exchanges (settlements) ride along with the next batch, or are flushed shortly after when none comes.
This is also what one worker knows of its exchanges: which are open, what is owed, what outlives its caller.

What can go wrong besides, and what then holds:
- This process was taken for dead: the ledger refuses its charges (`fenced`) until the heartbeat registers it anew.
- It dies: what is open is refunded by the reconciler, which reads from `settled_through` on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from gateway.database.pool import Connection
from gateway.errors import Unavailable
from gateway.ids import floor_at
from gateway.ledger import batches
from gateway.ledger.batches import BATCH, Batches
from gateway.ledger.entries import SETTLE, Charge, Settlement, post, settlement_columns
from gateway.ledger.exactly import Doubt, Exactly, Owed
from gateway.ledger.exchanges import REFUND, ChargeVerdict, Refunded
from gateway.settings import DatabaseSettings

Result = TypeVar("Result")
FLUSH_SECONDS = 0.02
SLACK_MS = 60_000  # how long a call may take from its id to its charge


class GroupCommit(Batches[Charge, ChargeVerdict]):
    """The ledger's hot door. One per worker; `stop` ends its life."""

    ends_wait = FLUSH_SECONDS

    def __init__(
        self, settings: DatabaseSettings, *, grace: timedelta, observe: Callable[[int, float], None] | None = None
    ) -> None:
        super().__init__(Exactly(settings), observe)
        self._owed = Owed()
        self._doubt = settings.doubt
        self._grace = grace
        self._settlements: list[Settlement] = []
        self._background: set[asyncio.Task[Any]] = set()
        self._open: dict[UUID, None] = {}  # from before the charge is sent until its end is durable
        self._through = floor_at(0)
        self.worker_id: int | None = None

    async def charge(self, charge: Charge) -> ChargeVerdict:
        """Post one charge durably and return its verdict. Raises Unavailable when the ledger cannot answer."""
        return await self._share(charge)

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
            async with asyncio.timeout(batches.PATIENCE):
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
        return Doubt(self._doubt)

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
        self._through = max(self._through, self.through_at(now_ms))
        return self._through

    def through_at(self, now_ms: int) -> UUID:
        """Return the same for a clock that shows `now_ms`, which may have been set back."""
        return min([floor_at(now_ms - SLACK_MS), *self._open])

    def rewind(self, through: UUID) -> None:
        """Let exchanges begin with earlier ids again. The ledger must know before that it has to look that far back."""
        self._through = min(self._through, through)

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
        while self._drainer is not None or self._background:
            await asyncio.gather(*filter(None, [self._drainer]), *self._background, return_exceptions=True)
        await self._drained()
        await self._owed.stop()
        await self._line.close()

    # Batches.

    async def _post_on(self, connection: Connection, items: list[Charge]) -> list[ChargeVerdict]:
        ends = self._settlements[:BATCH]
        verdicts = await post(connection, items, self.worker_id, ends)
        self._written(ends)
        return verdicts

    @property
    def _ends(self) -> int:
        return len(self._settlements)

    async def _write_ends(self) -> None:
        ends = self._settlements[:BATCH]
        await self._line.run(lambda connection: SETTLE.run(connection, *settlement_columns(ends)))
        self._written(ends)

    def _begin(self, item: Charge) -> None:
        self.begin(item.exchange_id)

    def _nothing_moved(self, item: Charge) -> None:
        self.ended(item.exchange_id)

    def _give_back(self, item: Charge) -> None:
        async def quietly() -> None:
            with contextlib.suppress(Unavailable):
                await self._refund(item.exchange_id, "client_gone", None)

        self.spawn(quietly())

    def _give_back_in_doubt(self, item: Charge) -> None:
        doubt = self.doubt()
        self.owe("end", item.exchange_id, lambda: self._undo_unknown(item.exchange_id, doubt))

    # Ends.

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
