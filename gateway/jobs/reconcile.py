"""The reconciler: ends the exchanges that a dead worker left open.

A charged exchange without a recorded end may or may not have been delivered: the process died in between. The rule
favours the agent: it is refunded, and a pending hold is voided. A worker is fenced first, so that one which only stood
still cannot charge behind our back. Each decision is the ledger's own atomic refund in a transaction of its own, so any
number of reconcilers may work at once, and none holds one wallet while it waits for another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from gateway.database.pool import Connection, Database
from gateway.jobs.undelivered import abandon_calls
from gateway.ledger.exchanges import (
    END_HOLD,
    FENCE_DEAD,
    FIND_FENCED,
    FIND_ORPHANS,
    SEEN_LATER,
    WORKER_RECONCILED,
    DeadWorker,
    OpenExchange,
    refund,
)

log = logging.getLogger(__name__)

ROUND = 500


class Reconciler:
    """Periodic job; any number of workers may run it.

    `may_judge` says whether silent workers may be taken for dead, and `expected` which time the database should say
    then: by a clock that was just set all others would have been silent for long.
    """

    def __init__(
        self,
        database: Database,
        grace: timedelta,
        dead_after: timedelta,
        may_judge: Callable[[], bool],
        expected: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self._database = database
        self._grace = grace
        self._dead_after = dead_after
        self._may_judge = may_judge
        self._expected = expected
        self.resolved = 0

    async def run(self) -> int:
        """Reconcile every dead worker and return how many exchanges were ended."""
        ended = 0
        async with self._database.acquire() as connection:
            if self._may_judge():
                await SEEN_LATER.run(connection)
                await FENCE_DEAD.run(connection, self._dead_after, self._expected())
            for worker in await FIND_FENCED.all(connection):
                ended += await self._reconcile(connection, worker)
        self.resolved += ended
        return ended

    async def _reconcile(self, connection: Connection, worker: DeadWorker) -> int:
        orphans = await FIND_ORPHANS.all(connection, worker.id, worker.settled_through, ROUND)
        for orphan in orphans:
            await self._end(connection, orphan)
        if len(orphans) < ROUND:
            await abandon_calls(connection, worker.id, worker.settled_through)
            await WORKER_RECONCILED.run(connection, worker.id)
        if orphans:
            log.warning("reconciled %d open exchanges of worker %d: refunded", len(orphans), worker.id)
        return len(orphans)

    async def _end(self, connection: Connection, orphan: OpenExchange) -> None:
        if orphan.kind == "hold":
            await END_HOLD.one(connection, orphan.exchange_id, "0", "0", "reconciled", None, 0, 0, self._grace)
        else:
            await refund(
                connection, orphan.exchange_id, reason="reconciled", status=None, grace=self._grace, only_open=True
            )
