"""Shows in the metrics which payouts have not ended, by network, and how long the oldest has been waiting.

All workers have them in common: the first one shows them, and one that is no longer the first shows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.database.pool import Database
from gateway.jobs.gauges import IS_FIRST
from gateway.ledger.group_commit import GroupCommit
from gateway.payments.evm.payouts import COUNTS
from gateway.payments.evm.settlements import Settlements
from gateway.telemetry.metrics import Metrics


@dataclass(slots=True)
class PayoutSampler:
    """`sample` is the periodic job."""

    metrics: Metrics
    database: Database
    settlements: Settlements
    ledger: GroupCommit

    async def sample(self) -> None:
        """Set the gauges."""
        async with self.database.acquire() as connection:
            first = await IS_FIRST.one(connection, self.ledger.worker_id)
            for network in self.settlements.chains:
                found = await COUNTS.all(connection, network) if first else []
                numbers = {one.state: one.number for one in found}
                waiting = [one.oldest for one in found if one.state not in ("approval", "delayed")]
                self.metrics.set_payouts(network, numbers, max(waiting, default=0))
