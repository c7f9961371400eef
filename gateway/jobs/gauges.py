"""Shows in the metrics what the parts of a worker count by themselves: a job, so that the hot path need not."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from gateway.catalog.snapshot import Catalog
from gateway.database.pool import LOST, Database
from gateway.database.statement import Statement
from gateway.errors import Unavailable
from gateway.identity.principals import Identities
from gateway.ledger.group_commit import GroupCommit
from gateway.limits.limiter import RateLimiter
from gateway.payments.evm.outbox import COUNTS
from gateway.payments.evm.settlements import Settlements
from gateway.telemetry import background
from gateway.telemetry.metrics import Metrics
from gateway.upstreams.http.client import UpstreamClient

# Of all workers that run, one counts what all have in common.
IS_FIRST = Statement(
    "SELECT coalesce(min(id) = $1, false) FROM ledger.worker WHERE stopped_at IS NULL AND reconciled_at IS NULL",
    bool,
    scalar=True,
)


@dataclass(slots=True)
class Sampler:
    """`sample` is the periodic job. Counters of the parts only grow, so what they grew by is added."""

    metrics: Metrics
    database: Database
    upstreams: UpstreamClient
    catalog: Catalog
    identities: Identities
    ledger: GroupCommit
    limiter: RateLimiter
    settlements: Settlements
    _before: dict[str, int] = field(default_factory=dict[str, int])

    async def sample(self) -> None:
        """Set gauges, and move counters on."""
        metrics = self.metrics
        for state, number in self.database.gauges().items():
            metrics.set_pool("database", state, number)
        counts = self.upstreams.counts
        for state in ("open", "idle", "in_use", "waiting"):
            metrics.set_pool("upstream", state, getattr(counts, state))
        metrics.set_cache_entries("catalog", self.catalog.size)
        metrics.set_cache_entries("identity", self.identities.size)
        metrics.open_exchanges(self._grown("open", self.ledger.open_exchanges))
        metrics.cache_event("catalog", "reload", self._grown("reloads", self.catalog.reloads))
        metrics.cache_event("identity", "hit", self._grown("hits", self.identities.hits))
        metrics.cache_event("identity", "miss", self._grown("misses", self.identities.misses))
        metrics.log_lines_lost(self._grown("log lines", background.LOST.count))
        metrics.limit_verdict("any", "unavailable", self._grown("unavailable", self.limiter.stats.unavailable))

        for relayer in self.settlements.relayers:
            seen = relayer.state
            metrics.set_relayer(
                relayer.network, leading=seen.leading, balance=seen.balance or 0,
                waits=seen.leading and bool(relayer.held_up), payments=seen.open_payments,
            )  # fmt: skip
        with contextlib.suppress(*LOST, Unavailable):
            await self._sample_facilitators()

    async def _sample_facilitators(self) -> None:
        """Show what waits for external facilitators: every worker relays to them, one says so."""
        for name in self.settlements.others:
            says, payments = False, dict[str, int]()
            async with self.database.acquire() as connection:
                says = await IS_FIRST.one(connection, self.ledger.worker_id)
                if says:
                    counted = await COUNTS.all(connection, name)
                    payments = {one.state: one.number for one in counted}
            waits = payments.get("unknown", 0) > 0
            self.metrics.set_relayer(name, leading=says, balance=None, waits=waits, payments=payments)

    def _grown(self, name: str, now: int) -> int:
        """Return by how much a number has changed since the last sample."""
        change = now - self._before.get(name, 0)
        self._before[name] = now
        return change
