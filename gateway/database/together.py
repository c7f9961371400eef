"""Questions of one kind that wait at the same time, put as one: one round trip, one transaction, one flush of the disk.

The window is the flight of the previous batch, so nobody waits for a timer, and one question alone is asked at once.
What does not live here: charges, whose batches have more rules (ledger/group_commit.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from gateway.errors import Unavailable

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    """Puts at most `limit` questions at a time to `work`, which returns their answers in order.

    Questions of a batch are sorted by `lock`, if there is one: rows that everybody locks in one order cannot deadlock.
    A batch that fails is put again one by one, so that only the question at fault fails. When nobody is there to answer
    all fail, also those that wait: nobody waits longer than for one batch that hangs.
    """

    def __init__(
        self,
        work: Callable[[list[Question]], Awaitable[Sequence[Answer]]],
        *,
        limit: int = 64,
        lock: Callable[[Question], Any] | None = None,
    ) -> None:
        self._work = work
        self._limit = limit
        self._lock = lock
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._drainer: asyncio.Task[None] | None = None

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
        batch: list[tuple[Question, asyncio.Future[Answer]]] = []
        try:
            await asyncio.sleep(0)  # let the callers of this loop turn join the batch
            while self._waiting:
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                await self._put(batch)
        finally:
            self._drainer = None
            left, self._waiting = [*batch, *self._waiting], []
            for _, future in left:  # only if this task was cancelled
                future.cancel()

    async def _put(self, batch: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        lock = self._lock
        if lock is not None:
            batch = sorted(batch, key=lambda one: lock(one[0]))
        try:
            answers = await self._work([question for question, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, those who asked must know
            if len(batch) > 1 and not isinstance(error, Unavailable):
                for one in batch:
                    await self._put([one])
                return
            if isinstance(error, Unavailable):
                batch, self._waiting = [*batch, *self._waiting], []
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
