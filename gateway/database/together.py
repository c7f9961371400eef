"""Questions of one kind that wait at the same time, put as one: one round trip, one transaction, one flush of the disk.

The window is the flight of the previous batch, so nobody waits for a timer, and one question alone is asked at once.
A flight that takes long (a row in it is locked by somebody, a connection is lost) does not hold up the next for longer
than PATIENCE: the next goes beside it, over another connection.

What does not live here: charges, whose batches have more rules (ledger/group_commit.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from gateway.errors import Unavailable

Question = TypeVar("Question")
Answer = TypeVar("Answer")
PATIENCE = 0.25  # seconds; many round trips, and little to a caller


class Together(Generic[Question, Answer]):
    """Puts at most `limit` questions at a time to `work`, which returns their answers in order.

    Questions of a batch are sorted by `lock`, if there is one: rows that everybody locks in one order cannot deadlock.
    A batch that fails is put again one by one, so that only the question at fault fails; but not when it failed because
    nobody is there to answer. After `patience` seconds the next batch flies beside it, which `work` must allow.
    """

    def __init__(
        self,
        work: Callable[[list[Question]], Awaitable[Sequence[Answer]]],
        *,
        limit: int = 64,
        lock: Callable[[Question], Any] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._work = work
        self._limit = limit
        self._lock = lock
        self._patience = patience
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._drainer: asyncio.Task[None] | None = None
        self._flights: set[asyncio.Task[None]] = set()  # the loop itself would let them be collected

    async def ask(self, question: Question) -> Answer:
        """Return the answer. Whoever is cancelled waits for it all the same: what was asked may have had an effect."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._drainer is None:
            self._drainer = asyncio.get_running_loop().create_task(self._drain())
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def _drain(self) -> None:
        try:
            await asyncio.sleep(0)  # let the callers of this loop turn join the batch
            while self._waiting:
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                flight = asyncio.get_running_loop().create_task(self._fly(batch))
                self._flights.add(flight)
                flight.add_done_callback(self._flights.discard)
                await asyncio.wait([flight], timeout=self._patience)
        finally:
            self._drainer = None
            left, self._waiting = self._waiting, []
            _abandon(left)  # only if this task was cancelled

    async def _fly(self, batch: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        try:
            await self._put(batch)
        finally:
            _abandon(batch)  # only if this task was cancelled

    async def _put(self, batch: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        lock = self._lock
        if lock is not None:
            batch = sorted(batch, key=lambda one: lock(one[0]))
        try:
            answers = await self._work([question for question, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, those who asked must know
            if len(batch) > 1 and not isinstance(error, Unavailable):
                await asyncio.gather(*(self._put([one]) for one in batch))  # nobody waits for one that hangs
                return
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)


def _abandon(batch: Sequence[tuple[object, asyncio.Future[Any]]]) -> None:
    """Cancel what has no answer yet."""
    for _, future in batch:
        future.cancel()
