"""How often publishers are used and what they have earned: counts and sums from the ledger, for pages and statements.

Counts come from a roll-up plus the short tail that is not in it yet (migration 0004), so that a page of the store
never scans the ledger. Earnings are exact: they are read from the accounts themselves.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID

from gateway.database.pool import Connection, Database
from gateway.database.statement import Statement

LAG_SECONDS = 120
"""Younger transfers stay in the tail: one may still be uncommitted, or about to be refunded."""
ROLL_UP_LIMIT = 50_000
ROLL_UP_STEPS = 20


@dataclass(frozen=True, slots=True)
class Usage:
    """Paid calls of a publisher and by how many wallets."""

    publisher_id: UUID
    calls: int
    agents: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", int(self.calls))


@dataclass(frozen=True, slots=True)
class Earnings:
    """A publisher's money in one ledger asset, in atomic units: `revenue` is net of fees and refunds."""

    asset_id: UUID
    revenue: int
    paying_out: int
    withdrawn: int

    def __post_init__(self) -> None:
        for name in ("revenue", "paying_out", "withdrawn"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def available(self) -> int:
        """Return what could be paid out now."""
        return self.revenue - self.paying_out - self.withdrawn


USAGE_OF = Statement(
    """
    WITH tail AS MATERIALIZED (
        SELECT u.* FROM catalog.usage_mark m,
               LATERAL catalog.usage_between(m.upto, 'ffffffff-ffff-ffff-ffff-ffffffffffff') u
         WHERE u.publisher_id = ANY ($1::uuid[])
    ), recent AS (
        SELECT t.publisher_id, sum(t.calls) AS calls,
               count(*) FILTER (WHERE NOT EXISTS (
                   SELECT FROM catalog.usage_agent a
                    WHERE a.publisher_id = t.publisher_id AND a.wallet_id = t.wallet_id)) AS agents
          FROM tail t GROUP BY t.publisher_id
    )
    SELECT p.id AS publisher_id, coalesce(o.calls, 0) + coalesce(r.calls, 0) AS calls,
           coalesce(o.agents, 0) + coalesce(r.agents, 0) AS agents
      FROM unnest($1::uuid[]) AS p (id)
      LEFT JOIN catalog.usage_total o ON o.publisher_id = p.id
      LEFT JOIN recent r ON r.publisher_id = p.id
    """,
    Usage,
)
ROLL_UP = Statement("SELECT catalog.roll_up_usage($1, $2)", bool, scalar=True)
# Earnings accounts are kept in the ledger asset: USDC of every network is one purse. Until a payout rail exists nothing
# leaves them but refunds, which are debits, and what was paid to the publisher's own address, which is there already.
EARNINGS_OF = Statement(
    """
    SELECT a.asset_id,
           coalesce(sum(b.amount + d.amount) FILTER (WHERE a.purpose = 'earnings'), 0) AS revenue,
           coalesce(sum(b.amount) FILTER (WHERE a.purpose = 'paying_out'), 0) AS paying_out,
           coalesce(sum(d.amount), 0) AS withdrawn
      FROM ledger.account a
      CROSS JOIN LATERAL (SELECT coalesce(sum(s.credits - s.debits), 0) AS amount FROM ledger.shard s
                           WHERE s.account_id = a.id) b
      CROSS JOIN LATERAL (SELECT coalesce(sum(p.amount), 0) AS amount FROM chain.payment p
                           WHERE p.account_id = a.id AND p.booking = 'direct' AND p.state = 'confirmed') d
     WHERE a.publisher_id = $1 AND a.purpose IN ('earnings', 'paying_out') GROUP BY a.asset_id
    """,
    Earnings,
)


async def usage_of(connection: Connection, publisher_ids: list[UUID]) -> dict[UUID, Usage]:
    """Return the usage of some publishers in one query."""
    return {usage.publisher_id: usage for usage in await USAGE_OF.all(connection, publisher_ids)}


async def earnings_of(connection: Connection, publisher_id: UUID) -> dict[UUID, Earnings]:
    """Return a publisher's earnings by ledger asset."""
    return {earnings.asset_id: earnings for earnings in await EARNINGS_OF.all(connection, publisher_id)}


def horizon(now: float) -> UUID:
    """Return the largest UUIDv7 of LAG_SECONDS ago."""
    milliseconds = int((now - LAG_SECONDS) * 1_000)
    return UUID(int=(milliseconds << 80) | ((1 << 80) - 1))


async def roll_up(database: Database) -> None:
    """Move the roll-up's mark on: a job. Bounded, and it never waits for another worker that does the same."""
    for _ in range(ROLL_UP_STEPS):
        async with database.transaction() as connection:
            done = await ROLL_UP.one(connection, horizon(time.time()), ROLL_UP_LIMIT)
        if done:
            return
