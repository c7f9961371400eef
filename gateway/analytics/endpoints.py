"""Which endpoints were called: what a publisher earns by each, and what an organization uses of each.

An endpoint is a documented path, a tool's name, or `query` of a database. What has none of these, what is on its way
and direct charges are in the sums of publishers only. Money is net of refunds; bytes and rows are of all calls. Reads
sums and the short tail behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement

MOST = 1_000
"""How many endpoints an answer names."""


@dataclass(frozen=True, slots=True)
class EndpointRevenue:
    """What one endpoint has brought in one asset."""

    method: str
    endpoint: str
    calls: int
    spent: int
    fee: int
    bytes_in: int
    bytes_out: int
    rows: int

    def __post_init__(self) -> None:
        for name in ("calls", "spent", "fee", "bytes_in", "bytes_out", "rows"):
            object.__setattr__(self, name, int(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class EndpointUse:
    """What was used of one endpoint in one ledger asset."""

    publisher_id: UUID
    slug: str
    asset_id: UUID
    method: str
    endpoint: str
    calls: int
    spent: int
    bytes_in: int
    bytes_out: int
    rows: int

    def __post_init__(self) -> None:
        for name in ("calls", "spent", "bytes_in", "bytes_out", "rows"):
            object.__setattr__(self, name, int(getattr(self, name)))


REVENUE = Statement(
    """
    WITH found AS (
        SELECT x.method, x.endpoint, sum(x.calls) AS calls, sum(x.spent) AS spent, sum(x.fee) AS fee,
               sum(x.bytes_in) AS bytes_in, sum(x.bytes_out) AS bytes_out, sum(x.row_count) AS rows
          FROM (SELECT e.method, e.endpoint, d.calls, d.spent, d.fee, d.bytes_in, d.bytes_out, d.row_count
                  FROM analytics.endpoint e
                  JOIN analytics.endpoint_day d ON d.endpoint_id = e.id AND d.day BETWEEN $2::date AND $3::date
                 WHERE e.account_id = $1
                UNION ALL
                SELECT b.method, b.endpoint, b.calls, b.spent, b.fee, b.bytes_in, b.bytes_out, b.row_count
                  FROM analytics.mark m
                  CROSS JOIN LATERAL analytics.delivered(m.upto, m.never, ARRAY[$1::bigint]) b
                 WHERE b.day BETWEEN $2 AND $3) x
         GROUP BY x.method, x.endpoint
    )
    SELECT method, endpoint, calls, spent, fee, bytes_in, bytes_out, rows FROM found
     ORDER BY spent - fee DESC, calls DESC, endpoint, method LIMIT $4
    """,
    EndpointRevenue,
)
_OF_MEMBERS = """
    WITH mine AS MATERIALIZED (SELECT id FROM analytics.wallets_of($1)), used AS (
        SELECT e.account_id, e.method, e.endpoint, d.calls, d.spent, d.bytes_in, d.bytes_out, d.row_count
          FROM mine
          JOIN analytics.endpoint_agent_day d ON d.payer = mine.id AND d.day BETWEEN $2 AND $3
          JOIN analytics.endpoint e ON e.id = d.endpoint_id
        UNION ALL
        SELECT b.account_id, b.method, b.endpoint, b.calls, b.spent, b.bytes_in, b.bytes_out, b.row_count
          FROM analytics.mark m
          CROSS JOIN LATERAL analytics.delivered(m.upto, m.never) b
          JOIN mine ON mine.id = b.payer
         WHERE b.day BETWEEN $2 AND $3
    )
"""
_OF_PROJECT = """
    WITH mine AS MATERIALIZED (SELECT id FROM analytics.accounts_of_project($1)), used AS (
        SELECT e.account_id, e.method, e.endpoint, d.calls, d.spent, d.bytes_in, d.bytes_out, d.row_count
          FROM mine
          JOIN analytics.endpoint e ON e.account_id = mine.id
          JOIN analytics.endpoint_day d ON d.endpoint_id = e.id AND d.day BETWEEN $2 AND $3
        UNION ALL
        SELECT b.account_id, b.method, b.endpoint, b.calls, b.spent, b.bytes_in, b.bytes_out, b.row_count
          FROM analytics.mark m
          CROSS JOIN LATERAL analytics.delivered(m.upto, m.never, ARRAY(SELECT id FROM mine)) b
         WHERE b.day BETWEEN $2 AND $3
    )
"""
_NAMED = """
    SELECT p.id AS publisher_id, p.slug, a.asset_id, x.method, x.endpoint, sum(x.calls) AS calls, sum(x.spent) AS spent,
           sum(x.bytes_in) AS bytes_in, sum(x.bytes_out) AS bytes_out, sum(x.row_count) AS rows
      FROM used x
      JOIN ledger.account a ON a.id = x.account_id
      JOIN catalog.publisher p ON p.id = a.publisher_id
     GROUP BY p.id, p.slug, a.asset_id, x.method, x.endpoint
     ORDER BY sum(x.calls) DESC, p.slug, x.endpoint, x.method, a.asset_id
     LIMIT $4
"""
USED = Statement(_OF_MEMBERS + _NAMED, EndpointUse)
SOLD = Statement(_OF_PROJECT + _NAMED, EndpointUse)


async def used_endpoints(connection: Connection, organization_id: UUID, first: date, last: date) -> list[EndpointUse]:
    """Return what an organization has used of which endpoints in some days, the most called first."""
    return await USED.all(connection, organization_id, first, last, MOST)


async def sold_endpoints(connection: Connection, project_id: UUID, first: date, last: date) -> list[EndpointUse]:
    """Return which endpoints of a project's publishers were called in some days, the most called first."""
    return await SOLD.all(connection, project_id, first, last, MOST)
