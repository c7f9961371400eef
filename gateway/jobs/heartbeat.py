"""Says that this worker lives, and from where on its exchanges can be open (see ledger.worker).

It also notices a clock that was set, of this host or of the database. Ids keep their order when the host's clock is set
back (ids.Clock); once the ledger knows that this worker's exchanges can be open from the earlier time on, they follow.
When the database's clock was set, no worker's silence means anything for a while.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from gateway import ids
from gateway.database.pool import Connection, Database
from gateway.jobs.clocks import STEP_SECONDS, DatabaseClock
from gateway.ledger.exchanges import SEE_WORKER, START_WORKER, STOP_WORKER
from gateway.ledger.group_commit import SLACK_MS, GroupCommit
from gateway.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Heartbeat:
    """Registers the worker at `start`, renews it by `beat`, and signs off at `stop`.

    `key_ids` are the worker's secret keys, current first (see jobs.rotate). A worker that is not heard of for
    `dead_after` is dead.
    """

    def __init__(
        self,
        database: Database,
        ledger: GroupCommit,
        key_ids: Sequence[str],
        *,
        dead_after: timedelta,
        metrics: Metrics | None = None,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._key_ids = list(key_ids)
        self._dead_after = dead_after.total_seconds()
        self._heard = time.monotonic()
        self._doubt_until = 0.0
        self._metrics = metrics
        self.database_clock = DatabaseClock()

    async def start(self) -> None:
        """Register. The ledger marks every charge of this worker with its number."""
        async with self._database.acquire() as connection:
            self._ledger.worker_id = await START_WORKER.one(connection, self._through(), self._key_ids)

    async def beat(self) -> None:
        """Renew. A worker that was stalled so long that it counted as dead registers again for what comes."""
        async with self._database.acquire() as connection:
            seen = await self._renew(connection)
        now = time.monotonic()
        if now - self._heard >= self._dead_after:
            self._doubt_until = now + self._dead_after
        self._heard = now
        if not seen:
            log.warning("worker %s was taken for dead; its open exchanges were refunded", self._ledger.worker_id)
            await self.start()

    async def _renew(self, connection: Connection) -> bool:
        """Say that we live, and from where on exchanges can be open. Returns False when we were taken for dead."""
        ahead = ids.CLOCK.behind_host()
        if ahead > 0:
            ids.CLOCK.follow()
        back = ahead < -STEP_SECONDS * 1_000
        through = self._ledger.through_at(ids.CLOCK.milliseconds() + ahead) if back else self._through()
        sent = time.monotonic()
        said = await SEE_WORKER.first(connection, self._ledger.worker_id, through)
        if back and said is not None:
            self._ledger.rewind(through)
            ids.CLOCK.follow()
        if abs(ahead) > STEP_SECONDS * 1_000:
            self._was_set("host", ahead / 1_000)
        if said is None:
            return False
        step = self.database_clock.hear(said, sent, time.monotonic())
        if step:
            self._doubt_until = time.monotonic() + self._dead_after
            self._was_set("database", step)
        if self._metrics is not None:
            self._metrics.set_clock_difference(self.database_clock.difference())
        return True

    def _was_set(self, whose: str, seconds: float) -> None:
        direction = "forward" if seconds > 0 else "back"
        log.warning("the clock of the %s was set %s by %.0f seconds; calls go on", whose, direction, abs(seconds))
        if self._metrics is not None:
            self._metrics.clock_stepped(whose, direction)

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

    def _through(self) -> UUID:
        return self._ledger.settled_through(ids.CLOCK.milliseconds_before_steps(SLACK_MS))
