"""Events that nobody's change causes: derived from what calls and payments write anyway, so that no call writes more.

Each is said once: `webhook.alert` remembers for what. A balance that has recovered may be low again, a budget is
reached once a day or month, a deposit arrives once. Only organizations whose webhooks want an event are looked at.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from uuid import UUID

from gateway.billing.budgets import DAY, MONTH
from gateway.billing.quotas import KIND as PLAN_CALLS
from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.plans import Plans
from gateway.webhooks.events import BUDGET_REACHED, DEPOSIT_COMPLETED, LOW_BALANCE, QUOTA_REACHED
from gateway.webhooks.outbox import emit

# One worker at a time; the others need not wait for it.
LOCK = Statement("SELECT pg_try_advisory_xact_lock(hashtextextended('tollway.webhook.alerts', 0))", bool, scalar=True)
ANYBODY = Statement("SELECT EXISTS (SELECT FROM webhook.endpoint WHERE enabled)", bool, scalar=True)
SAY = Command("INSERT INTO webhook.alert (kind, subject) VALUES ($1, $2) ON CONFLICT DO NOTHING")
TAKE_BACK = Command("DELETE FROM webhook.alert WHERE kind = $1 AND NOT subject = ANY ($2::text[])")
FORGET = Command("DELETE FROM webhook.alert WHERE kind <> $1 AND said_at < now() - interval '60 days'")


@dataclass(frozen=True, slots=True)
class LowWallet:
    """A wallet below the bound. Amounts are atomic units, as text because an asset may have 18 decimals."""

    organization_id: UUID
    wallet_address: str
    asset_symbol: str
    balance_atomic: str


@dataclass(frozen=True, slots=True)
class SpentBudget:
    """An API key that has spent nine tenths of a limit, or more."""

    organization_id: UUID
    api_key_id: UUID
    key_id: str
    period: str
    since: str
    limit_atomic: str
    spent_atomic: str


@dataclass(frozen=True, slots=True)
class ArrivedDeposit:
    """A deposit for one publisher that its chain has confirmed."""

    organization_id: UUID
    deposit_id: UUID
    wallet_address: str
    publisher_id: UUID
    network: str
    amount_atomic: str


# An account's own organization hears of its wallet in the default asset. A wallet that never held anything is not low.
LOW = Statement(
    """
    SELECT o.id AS organization_id, w.address AS wallet_address, a.symbol AS asset_symbol,
           s.balance::text AS balance_atomic
      FROM (SELECT DISTINCT organization_id FROM webhook.endpoint
             WHERE enabled AND events && ARRAY['wallet.low_balance', '*']) e
      JOIN identity.organization o ON o.id = e.organization_id AND o.is_personal AND o.deleted_at IS NULL
      JOIN ledger.wallet w ON w.owner_id = o.created_by
      JOIN catalog.asset a ON a.id = w.asset_id AND a.is_default
     CROSS JOIN LATERAL (
           SELECT count(*) AS lots, coalesce(sum(l.balance) FILTER (
                      WHERE NOT l.spent AND (l.expires_at IS NULL OR l.expires_at > now())), 0) AS balance
             FROM ledger.account l
            WHERE l.wallet_id = w.id AND l.granted IS NOT NULL AND l.purpose <> 'deposit') s
     WHERE s.lots > 0 AND s.balance < $1::text::numeric
    """,
    LowWallet,
)
BUDGETS = Statement(
    """
    SELECT k.organization_id, k.id AS api_key_id, k.key_id, b.period, c.period::text AS since,
           b.most::text AS limit_atomic, c.value::text AS spent_atomic
      FROM (SELECT DISTINCT organization_id FROM webhook.endpoint
             WHERE enabled AND events && ARRAY['api_key.budget_reached', '*']) e
      JOIN identity.api_key k ON k.organization_id = e.organization_id AND k.revoked_at IS NULL
     CROSS JOIN LATERAL (VALUES ('day', k.budget_per_day, (now() AT TIME ZONE 'UTC')::date, $1::text),
                                ('month', k.budget_per_month,
                                 date_trunc('month', now() AT TIME ZONE 'UTC')::date, $2::text))
                        AS b (period, most, since, kind)
      JOIN ledger.counter c ON c.scope = k.budget_scope AND c.subject = k.budget_asset AND c.kind = b.kind
                           AND c.period = b.since
     WHERE b.most > 0 AND c.value * 10 >= b.most * 9
    """,
    SpentBudget,
)
DEPOSITS = Statement(
    """
    SELECT o.id AS organization_id, p.id AS deposit_id, w.address AS wallet_address, p.publisher_id, p.network,
           p.amount::text AS amount_atomic
      FROM (SELECT DISTINCT organization_id FROM webhook.endpoint
             WHERE enabled AND events && ARRAY['deposit.completed', '*']) e
      JOIN identity.organization o ON o.id = e.organization_id AND o.is_personal AND o.deleted_at IS NULL
      JOIN ledger.wallet w ON w.owner_id = o.created_by
      JOIN chain.payment p ON p.wallet_id = w.id
     WHERE p.booking = 'deposit' AND p.state = 'confirmed' AND p.ended_at > now() - interval '7 days'
       AND NOT EXISTS (SELECT FROM webhook.alert s WHERE s.kind = 'deposit.completed' AND s.subject = p.id::text)
    """,
    ArrivedDeposit,
)


@dataclass(frozen=True, slots=True)
class ReachedQuota:
    """A plan of whose included calls `percent` are used in this month, or more."""

    organization_id: UUID
    percent: int
    month: str
    included: int
    used: int


# Who has chosen no plan has the default one, which includes $2 calls; null is any number.
QUOTAS = Statement(
    """
    SELECT e.organization_id, s.percent, c.period::text AS month, q.included, c.value::bigint AS used
      FROM (SELECT DISTINCT organization_id FROM webhook.endpoint
             WHERE enabled AND events && ARRAY['quota.reached', '*']) e
      JOIN ledger.counter c ON (c.scope, c.subject, c.kind, c.period)
                             = (e.organization_id, e.organization_id, $1,
                                date_trunc('month', now() AT TIME ZONE 'UTC')::date)
      LEFT JOIN identity.plan_now p ON p.organization_id = e.organization_id
     CROSS JOIN LATERAL (SELECT CASE WHEN p.plan_id IS NULL THEN $2::bigint
                                     ELSE (p.terms->>'included_calls')::bigint END AS included) q
     CROSS JOIN (VALUES (80), (100)) AS s (percent)
     WHERE q.included > 0 AND c.value * 100 >= q.included::numeric * s.percent
    """,
    ReachedQuota,
)


class Alerts:
    """Periodic job; any number of workers may run it. `low` is the bound of balances in the default asset.

    `plans` are those that limit calls; None: none do.
    """

    def __init__(self, database: Database, low: int, plans: Plans | None = None) -> None:
        self._database, self._low, self._plans = database, low, plans

    async def run(self) -> None:
        """Say what has come true since the last time, and take back what is no longer so."""
        async with self._database.transaction() as connection:
            if await ANYBODY.one(connection) and await LOCK.one(connection):
                await self._balances(connection)
                for spent in await BUDGETS.all(connection, DAY, MONTH):
                    subject = f"{spent.api_key_id} {spent.period} {spent.since} {spent.limit_atomic}"
                    await _say(connection, BUDGET_REACHED, subject, spent)
                for quota in await self._quotas(connection):
                    subject = f"{quota.organization_id} {quota.month} {quota.percent}"
                    await _say(connection, QUOTA_REACHED, subject, quota)
                for deposit in await DEPOSITS.all(connection):
                    await _say(connection, DEPOSIT_COMPLETED, str(deposit.deposit_id), deposit)
                await FORGET.run(connection, LOW_BALANCE)

    async def _quotas(self, connection: Connection) -> list[ReachedQuota]:
        """Return what is used of plans that limit calls."""
        return [] if self._plans is None else await QUOTAS.all(connection, PLAN_CALLS, self._plans.free.included_calls)

    async def _balances(self, connection: Connection) -> None:
        low = await LOW.all(connection, str(self._low))
        await TAKE_BACK.run(connection, LOW_BALANCE, [one.wallet_address for one in low])
        for one in low:
            await _say(connection, LOW_BALANCE, one.wallet_address, one)


async def _say(
    connection: Connection, event_type: str, subject: str, what: LowWallet | SpentBudget | ArrivedDeposit | ReachedQuota
) -> None:
    if await SAY.run(connection, event_type, subject):
        data = asdict(what)
        await emit(connection, data.pop("organization_id"), event_type, data)
