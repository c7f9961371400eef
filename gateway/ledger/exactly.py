"""Idempotent ledger work over one held connection: again after each loss now, or owed until it is done.

A statement whose answer was lost may have committed. Everything here is safe to send twice, so it is: at once while
somebody waits for it, and later, for as long as the process lives, when nobody can wait. What a process still owes when
it dies is an open exchange, which the reconciler ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from gateway.database.pool import LOST, Connection, Held
from gateway.errors import Unavailable
from gateway.settings import DatabaseSettings
from gateway.telemetry.logging import of

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Debt = tuple[str, UUID, Callable[[], Awaitable[object]]]
RETRY_SECONDS = (0.0, 0.05, 0.2, 0.5)  # callers wait: less than a second in all
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
LAST_CHANCE = 5.0  # seconds that `stop` gives to what is owed


class NotYet(Exception):
    """Owed work cannot be decided yet: a statement that was sent before may still be carried out."""


class Doubt:
    """How long a statement whose connection was lost may still be carried out.

    A server that stood still reads what was sent to it when it goes on, though nobody waits for the answer. So the time
    that statements may take counts from the first answer that it gives after the loss.
    """

    def __init__(self, statement_timeout: float) -> None:
        self._timeout = statement_timeout
        self._over: float | None = None

    def check(self) -> None:
        """Raise NotYet while the statement may still be carried out. Call it after an answer of the server."""
        now = asyncio.get_running_loop().time()
        if self._over is None:
            self._over = now + self._timeout
        if now < self._over:
            raise NotYet


class Exactly:
    """One held connection, used by one piece of work at a time."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._held = Held(settings)
        self._using = asyncio.Lock()
        self._away = False

    async def once(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Run work. Raises what the database raises; after one of LOST the work may have been done."""
        async with self._using:
            try:
                result = await work(await self._held.get())
            except LOST:
                self._held.drop()
                raise
        self._away = False
        return result

    async def run(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Run idempotent work, again after each lost connection. Raises Unavailable when the retries are used up.

        Once they were, and until something has succeeded, work is tried once only: nobody else waits for a database
        that is away.
        """
        for pause in RETRY_SECONDS[:1] if self._away else RETRY_SECONDS:
            if pause:
                await asyncio.sleep(pause)
            try:
                return await self.once(work)
            except LOST as error:
                log.warning("ledger connection lost: %s", type(error).__name__)
        self._away = True
        raise Unavailable("The ledger cannot be reached. If anything was charged it is refunded automatically.")

    async def close(self) -> None:
        """Close the connection politely."""
        await self._held.close()


class Owed:
    """Idempotent work that must happen however long the database is away, in order, one after the other."""

    def __init__(self) -> None:
        self._debts: deque[Debt] = deque()
        self._worker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._debts)

    def add(self, what: str, exchange_id: UUID, work: Callable[[], Awaitable[object]]) -> None:
        """Owe `work`; `what` of which exchange is for the log. First tried after a pause: the database was away."""
        log.warning("%s is owed", what, extra=of(exchange_id))
        self._debts.append((what, exchange_id, work))
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._pay())

    async def stop(self) -> None:
        """Try everything once more within a few seconds, then leave the rest to the reconciler."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_CHANCE):
                await self._pay_all()
        if self._debts:
            log.warning("%d pieces of ledger work are left to the reconciler", len(self._debts))

    async def _pay(self) -> None:
        pause = FIRST_PAUSE
        while self._debts:
            await asyncio.sleep(pause)
            await self._pay_all()
            pause = min(pause * 2, LONGEST_PAUSE)
        self._worker = None

    async def _pay_all(self) -> None:
        """Do everything that can be done now. One that must wait does not hold up those behind it."""
        for _ in range(len(self._debts)):
            debt = self._debts.popleft()
            what, exchange_id, work = debt
            try:
                await work()
            except NotYet:
                self._debts.append(debt)
            except (*LOST, Unavailable):
                self._debts.appendleft(debt)
                return
            except asyncio.CancelledError:
                self._debts.appendleft(debt)
                raise
            except Exception:
                log.exception("%s failed; it is left to the reconciler", what, extra=of(exchange_id))
