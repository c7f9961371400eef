"""How often publishers are used: counts from the ledger, for pages.

Counts come from the sums that gateway/analytics keeps, plus the short tail that is not in them yet, so that a page of
the store never scans the ledger. What does not live here: what they have earned (earnings.py).
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


async def usage_of(connection: Connection, publisher_ids: list[UUID]) -> dict[UUID, Usage]:
    """Return the usage of some publishers in one query."""
    return {usage.publisher_id: usage for usage in await USAGE_OF.all(connection, publisher_ids)}
