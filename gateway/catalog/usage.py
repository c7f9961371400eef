"""How often publishers are used and what they have earned: counts and sums from the ledger, for pages and statements.

Counts come from the sums that gateway/analytics keeps, plus the short tail that is not in them yet, so that a page of
the store never scans the ledger. Earnings are exact: they are read from the accounts themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement


@dataclass(frozen=True, slots=True)
class Usage:
    """Paid calls of a publisher and by how many wallets."""

    publisher_id: UUID
    calls: int
    agents: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", int(self.calls))
        object.__setattr__(self, "agents", int(self.agents))


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
    WITH account AS MATERIALIZED (
        SELECT id, publisher_id FROM ledger.account WHERE publisher_id = ANY ($1::uuid[]) AND purpose = 'earnings'
    ), tail AS MATERIALIZED (
        SELECT b.account_id, b.payer, sum(b.calls) AS calls
          FROM analytics.mark m
          CROSS JOIN LATERAL analytics.booked(m.upto, m.never, ARRAY(SELECT id FROM account)) b
         GROUP BY b.account_id, b.payer
    ), recent AS (
        SELECT t.account_id, sum(t.calls) AS calls,
               sum((coalesce(a.calls, 0) + t.calls > 0)::integer - (coalesce(a.calls, 0) > 0)::integer) AS agents
          FROM tail t LEFT JOIN analytics.agent a ON a.account_id = t.account_id AND a.payer = t.payer
         GROUP BY t.account_id
    )
    SELECT p.id AS publisher_id, coalesce(sum(o.calls), 0) + coalesce(sum(r.calls), 0) AS calls,
           coalesce(sum(o.agents), 0) + coalesce(sum(r.agents), 0) AS agents
      FROM unnest($1::uuid[]) AS p (id)
      LEFT JOIN account a ON a.publisher_id = p.id
      LEFT JOIN analytics.total o ON o.account_id = a.id
      LEFT JOIN recent r ON r.account_id = a.id
     GROUP BY p.id
    """,
    Usage,
)
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
