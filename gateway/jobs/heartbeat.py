"""Says that this worker lives, and from where on its exchanges can be open (see ledger.worker)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta

from gateway.database.pool import Database
from gateway.ledger.exchanges import SEE_WORKER, START_WORKER, STOP_WORKER
from gateway.ledger.group_commit import GroupCommit

log = logging.getLogger(__name__)


class Heartbeat:
    """Registers the worker at `start`, renews it by `beat`, and signs off at `stop`.

    `key_ids` are the worker's secret keys, current first (see jobs.rotate). A worker that is not heard of for
    `dead_after` is dead.
    """

    def __init__(
        self, database: Database, ledger: GroupCommit, key_ids: Sequence[str], *, dead_after: timedelta
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._key_ids = list(key_ids)
        self._dead_after = dead_after.total_seconds()
        self._heard = time.monotonic()
        self._doubt_until = 0.0

    async def start(self) -> None:
        """Register. The ledger marks every charge of this worker with its number."""
        async with self._database.acquire() as connection:
            self._ledger.worker_id = await START_WORKER.one(connection, self._through(), self._key_ids)

    async def beat(self) -> None:
        """Renew. A worker that was stalled so long that it counted as dead registers again for what comes."""
        async with self._database.acquire() as connection:
            seen = await SEE_WORKER.run(connection, self._ledger.worker_id, self._through())
        now = time.monotonic()
        if now - self._heard >= self._dead_after:
            self._doubt_until = now + self._dead_after
        self._heard = now
        if not seen:
            log.warning("worker %s was taken for dead; its open exchanges were refunded", self._ledger.worker_id)
            await self.start()

    def may_judge(self) -> bool:
        """Return whether the silence of other workers means anything.

        Not after we could not be heard ourselves: the database was away, and the others are about to be heard too.
        """
        now = time.monotonic()
        return now >= self._doubt_until and now - self._heard < self._dead_after

    async def stop(self) -> None:
        """Sign off, after the ledger's last write."""
        async with self._database.acquire() as connection:
            await STOP_WORKER.run(connection, self._ledger.worker_id, self._through())

    def _through(self) -> object:
        return self._ledger.settled_through(time.time_ns() // 1_000_000)
