"""The jobs that keep the sums of the ledger and prove the books, and what is known of both without asking again.

The quick proof adds up accounts: per asset, what customers have and what all others are owed and owe must be nothing in
all. The full one recomputes every balance from the transfers (gateway/ledger/proof.py), so it has a long interval and a
connection of its own. Of all workers one is at each. What they found is stored; `report` and GET /billing/health read
it, with the ages of what waits.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.analytics.rollups import roll_up
from gateway.database.pool import Connection, Database, connect
from gateway.database.statement import Command, Statement
from gateway.jobs.runner import Runner
from gateway.ledger.proof import verify
from gateway.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

ROLL_UP_SECONDS, QUICK_SECONDS, LOOK_SECONDS, REPORT_SECONDS = 10.0, 60.0, 30.0, 15.0
OUTBOXES = ("settlements", "repayments", "payouts", "webhooks", "letters")
LONGEST = 6 * 3600
"""Seconds that a full proof may take; a worker that dies at it is followed by another after that."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the books are kept. Ages are whole seconds; 0 where nothing waits."""

    sound: bool | None
    proven_at: datetime | None
    fully_sound: bool | None
    fully_proven_at: datetime | None
    aggregated_at: datetime
    aggregation_lag: int
    reconciler_lag: int
    settlements: int
    repayments: int
    payouts: int
    webhooks: int
    letters: int
    quick_proof: int
    full_proof: int
    unknown: int
    payouts_short: int


@dataclass(frozen=True, slots=True)
class Suspense:
    """What stands in suspense of an asset."""

    network: str
    asset: str
    units: int


@dataclass(frozen=True, slots=True)
class Job:
    """How often a job has failed, on all workers, ever."""

    name: str
    failures: int


HEALTH = Statement(
    """
    SELECT q.sound, q.proven_at, f.sound AS fully_sound, f.proven_at AS fully_proven_at, m.moved_at AS aggregated_at,
           ceil(extract(epoch FROM clock_timestamp() - m.upto))::bigint AS aggregation_lag,
           age.reconciler AS reconciler_lag, age.settlements, age.repayments, age.payouts, age.webhooks, age.letters,
           age.quick_proof, age.full_proof,
           (SELECT count(*) FROM chain.payment WHERE state = 'unknown' AND NOT final)
             + (SELECT count(*) FROM ledger.hold
                 WHERE status = 'pending' AND placed_at < now() - interval '1 hour') AS unknown,
           (SELECT count(*) FROM chain.payout WHERE state = 'queued' AND short IS NOT NULL) AS payouts_short
      FROM analytics.mark m
      JOIN analytics.proof q ON q.kind = 'quick'
      JOIN analytics.proof f ON f.kind = 'full'
      CROSS JOIN LATERAL (
          SELECT coalesce(max(x.age) FILTER (WHERE x.of = 'reconciler'), 0) AS reconciler,
                 coalesce(max(x.age) FILTER (WHERE x.of = 'settlements'), 0) AS settlements,
                 coalesce(max(x.age) FILTER (WHERE x.of = 'repayments'), 0) AS repayments,
                 coalesce(max(x.age) FILTER (WHERE x.of = 'payouts'), 0) AS payouts,
                 coalesce(max(x.age) FILTER (WHERE x.of = 'webhooks'), 0) AS webhooks,
                 coalesce(max(x.age) FILTER (WHERE x.of = 'letters'), 0) AS letters,
                 coalesce(max(x.age) FILTER (WHERE x.of = 'quick_proof'), 0) AS quick_proof,
                 coalesce(max(x.age) FILTER (WHERE x.of = 'full_proof'), 0) AS full_proof
            FROM (SELECT o.of, greatest(floor(extract(epoch FROM clock_timestamp() - o.since)), 0)::bigint AS age
                    FROM (SELECT 'reconciler' AS of, min(seen_at) AS since FROM ledger.worker
                           WHERE reconciled_at IS NULL
                          UNION ALL
                          SELECT p.kind || '_proof', coalesce(p.proven_at, b.at)
                            FROM analytics.proof p
                            CROSS JOIN (SELECT min(applied_at) AS at FROM public.tollway_migration
                                         WHERE name >= '0048') b  -- since when there are proofs
                          UNION ALL
                          SELECT 'settlements', min(submitted_at) FROM chain.payment WHERE state = 'pending'
                          UNION ALL
                          SELECT 'repayments', min(made_at) FROM chain.repayment WHERE state <> 'confirmed'
                          UNION ALL
                          SELECT 'payouts', min(greatest(coalesce(approved_at, requested_at), free_at))
                            FROM chain.payout
                           WHERE state IN ('queued', 'processing') AND NOT (needs_approval AND approved_at IS NULL)
                          UNION ALL
                          -- a receiver that fails or asks to wait is no lag of ours
                          SELECT 'webhooks', min(d.next_at)
                            FROM webhook.endpoint e
                            CROSS JOIN LATERAL (SELECT next_at FROM webhook.delivery
                                                 WHERE endpoint_id = e.id AND state = 'pending'
                                                 ORDER BY next_at LIMIT 1) d
                           WHERE e.enabled AND e.failing_since IS NULL
                             AND (e.paused_until IS NULL OR e.paused_until < now())
                          UNION ALL
                          SELECT 'letters', min(next_try_at) FROM identity.letter WHERE failed_at IS NULL) o) x
      ) age
    """,
    Health,
)
SUSPENSE = Statement(
    """
    SELECT c.network_id AS network, c.symbol AS asset, sum(s.credits - s.debits)::numeric(39,0) AS units
      FROM ledger.account a
      JOIN ledger.shard s ON s.account_id = a.id
      JOIN catalog.asset c ON c.id = a.asset_id
     WHERE a.purpose = 'suspense' AND a.wallet_id IS NULL AND a.publisher_id IS NULL GROUP BY c.network_id, c.symbol
    """,
    Suspense,
)
# For a week each: long enough for somebody to look, and the alert ends by itself.
FAILED_LATER = Statement(
    "SELECT count(*) FROM card.deposit WHERE failed_at > now() - interval '7 days'", int, scalar=True
)
# Money of invoices that was taken back, and has not come again.
REVERSED = Statement(
    """
    SELECT count(DISTINCT n.invoice_id) FROM invoice.back b JOIN invoice.intent n ON n.id = b.intent_id
     WHERE b.kind <> 'refund' AND b.returned_cause IS NULL AND b.made_at > now() - interval '7 days'
    """,
    int,
    scalar=True,
)
JOBS = Statement("SELECT name, failures FROM analytics.job ORDER BY name", Job)
FAILED = Command("UPDATE analytics.job SET failures = failures + 1 WHERE name = $1")
TAKE = Statement(
    """
    UPDATE analytics.proof SET taken_until = clock_timestamp() + $2
     WHERE kind = $1 AND taken_until <= clock_timestamp() RETURNING kind
    """,
    str,
    scalar=True,
)
FOUND = Command(
    """
    UPDATE analytics.proof SET sound = cardinality($2::text[]) = 0, broken = $2, proven_at = clock_timestamp(),
                               taken_until = clock_timestamp() + $3
     WHERE kind = $1
    """
)
# One statement, one snapshot: what customers have and what is booked for all others are nothing in all.
UNBALANCED = Statement(
    """
    SELECT format('asset %s: all accounts together have %s', x.asset_id, sum(x.amount))
      FROM (SELECT a.asset_id, a.balance AS amount FROM ledger.account a WHERE a.balance <> 0
            UNION ALL
            SELECT a.asset_id, s.credits - s.debits FROM ledger.shard s JOIN ledger.account a ON a.id = s.account_id) x
     GROUP BY x.asset_id HAVING sum(x.amount) <> 0
    """,
    str,
    scalar=True,
)


class Bookkeeping:
    """`begin` starts the jobs."""

    def __init__(self, database: Database, metrics: Metrics, every: float) -> None:
        """`every`: seconds between two full proofs."""
        self._database, self._metrics, self._every = database, metrics, timedelta(seconds=every)

    def begin(self, runner: Runner) -> None:
        """Start them."""
        runner.every(ROLL_UP_SECONDS, lambda: self._counted("daily_aggregation", self._roll_up), "analytics")
        runner.every(QUICK_SECONDS, lambda: self._counted("quick_proof", self.prove_quickly), "quick proof")
        runner.every(LOOK_SECONDS, lambda: self._counted("full_proof", self.prove_fully), "full proof")
        runner.every(REPORT_SECONDS, self.report, "billing health")

    async def _roll_up(self) -> None:
        await roll_up(self._database)

    async def prove_quickly(self) -> None:
        """Add all accounts up, unless another worker has just done so."""
        rest = timedelta(seconds=QUICK_SECONDS / 2)
        async with self._database.acquire() as connection:
            if await TAKE.first(connection, "quick", rest) is not None:
                await _found(connection, "quick", await UNBALANCED.all(connection), rest)

    async def prove_fully(self) -> None:
        """Recompute every balance, if it is time and nobody else does."""
        async with self._database.acquire() as connection:
            if await TAKE.first(connection, "full", timedelta(seconds=LONGEST)) is None:
                return
        own = await connect(self._database.settings.direct.model_copy(update={"command_timeout": LONGEST}))
        try:
            report = await verify(own)
            await _found(own, "full", list(report.violations), self._every)
        finally:
            await own.close()

    async def report(self) -> None:
        """Show what is known in the metrics."""
        async with self._database.acquire() as connection:
            health = await HEALTH.one(connection)
            suspended = await SUSPENSE.all(connection)
            self._metrics.set_failed_later(await FAILED_LATER.one(connection), await REVERSED.one(connection))
        for one in suspended:
            self._metrics.set_suspense(one.network, one.asset, one.units)
        self._metrics.set_books(health.sound is not False and health.fully_sound is not False, health.unknown)
        for name in ("aggregation_lag", "reconciler_lag", "quick_proof", "full_proof", *OUTBOXES):
            self._metrics.set_billing_lag(name.removesuffix("_lag"), getattr(health, name))

    async def _counted(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do a job's round, and note whether it failed."""
        try:
            await work()
        except Exception:
            async with self._database.acquire() as connection:
                await FAILED.run(connection, name)
            raise


async def _found(connection: Connection, kind: str, broken: list[str], rest: timedelta) -> None:
    if broken:
        log.error("THE BOOKS DO NOT BALANCE (%s proof): %s", kind, "; ".join(broken))
    await FOUND.run(connection, kind, broken, rest)
