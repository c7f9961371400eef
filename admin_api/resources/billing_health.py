"""GET /billing/health: whether the books balance and how far behind the parts of billing are. Public, and about nobody.

Nothing is proven for a request: jobs prove the books and note what they found (gateway/jobs/bookkeeping.py). Which
rule did not hold, and for whom, is in the log and in `tollway ledger verify`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter

from admin_api.kit.access import Public, ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta, rfc3339
from admin_api.kit.problems import refusals
from gateway.jobs.bookkeeping import HEALTH, JOBS, OUTBOXES, Health

router = APIRouter(tags=["billing"], route_class=StrictRoute)

LATE = 900
"""Seconds after which the sums are not kept any more: they are ten to twenty behind."""


class BillingJobHealth(Answer):
    """How often rounds of a job have failed, on all workers."""

    job: str
    failures_total: int


class OutboxAges(Answer):
    """For how many seconds the oldest of what waits to be sent is due; 0: nothing waits. Extension."""

    settlements: int
    repayments: int
    payouts: int
    webhooks: int
    letters: int


class BillingHealth(Answer):
    """The contract's fields are about the sums by day; the rest are extensions.

    `books_balance` is null until the first proof. `unknown_exchanges`: payments without an answer of their chain, and
    holds of more than an hour. `payouts_short`: payouts that wait because a treasury has too little for them.
    """

    daily_aggregation_ok: bool
    has_recent_daily_run: bool
    last_daily_aggregation_run_utc: str | None = None
    daily_aggregation_failures_total: int
    jobs: list[BillingJobHealth]
    books_balance: bool | None
    last_proof: Moment | None
    last_full_proof: Moment | None
    aggregation_lag_seconds: int
    reconciler_lag_seconds: int
    unknown_exchanges: int
    payouts_short: int
    outbox_oldest_seconds: OutboxAges


class BillingHealthResponse(Answer):
    """Envelope."""

    data: BillingHealth
    pagination: PaginationMeta | None = None


@router.get("/billing/health", operation_id="get_billing_health", responses=refusals(429, 503))
async def get_billing_health(_address: Public, services: ServicesDep) -> BillingHealthResponse:
    """Return how billing is: the sums by day, the proofs of the books, and what waits."""
    async with services.database.acquire() as connection:
        health = await HEALTH.one(connection)
        jobs = {job.name: job.failures for job in await JOBS.all(connection)}
    return BillingHealthResponse(
        data=BillingHealth(
            daily_aggregation_ok=health.aggregation_lag < LATE,
            has_recent_daily_run=health.aggregated_at > datetime.now(UTC) - timedelta(days=1),
            last_daily_aggregation_run_utc=rfc3339(health.aggregated_at),
            daily_aggregation_failures_total=jobs.get("daily_aggregation", 0),
            jobs=[BillingJobHealth(job=name, failures_total=failures) for name, failures in jobs.items()],
            books_balance=_balance(health),
            last_proof=health.proven_at,
            last_full_proof=health.fully_proven_at,
            aggregation_lag_seconds=health.aggregation_lag,
            reconciler_lag_seconds=health.reconciler_lag,
            unknown_exchanges=health.unknown,
            payouts_short=health.payouts_short,
            outbox_oldest_seconds=OutboxAges(**{name: getattr(health, name) for name in OUTBOXES}),
        )
    )


def _balance(health: Health) -> bool | None:
    """Return what the last proofs found; one that failed counts until the next of its kind."""
    if health.sound is None and health.fully_sound is None:
        return None
    return health.sound is not False and health.fully_sound is not False
