"""Shows in the metrics what is in each network's treasury, by the books and the chain, and what is to be sent from it.

All workers have it in common: the first one shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.database.pool import Database
from gateway.jobs.gauges import IS_FIRST
from gateway.ledger.group_commit import GroupCommit
from gateway.payments.evm.rpc import RpcError
from gateway.payments.evm.settlements import Settlements
from gateway.payments.evm.treasury import look
from gateway.telemetry.metrics import Metrics


@dataclass(slots=True)
class TreasurySampler:
    """`sample` is the periodic job."""

    metrics: Metrics
    database: Database
    settlements: Settlements
    ledger: GroupCommit

    async def sample(self) -> None:
        """Set the gauges. What a node does not say stays as it was."""
        async with self.database.acquire() as connection:
            if not await IS_FIRST.one(connection, self.ledger.worker_id):
                return
        for name, chain in self.settlements.chains.items():
            try:
                found = await look(self.database, chain)
            except RpcError:
                continue
            for one in found:
                for of in ("books", "chain", "missing", "key", "queued", "short"):
                    self.metrics.set_treasury(name, one.asset, of, getattr(one, of))
