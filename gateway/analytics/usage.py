"""What an organization has used of publishers, by day: calls, bytes and money of its members' wallets; and what was
used of a project's publishers, by everybody.

A wallet belongs to an account and counts for the account's default organization, whichever key it called with. Money is
net of refunds; bytes are of all calls. Reads sums and the short tail behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement


@dataclass(frozen=True, slots=True)
class Use:
    """One day at one publisher in one ledger asset."""

    day: date
    publisher_id: UUID
    slug: str
    asset_id: UUID
    calls: int
    spent: int
    bytes_in: int
    bytes_out: int

    def __post_init__(self) -> None:
        for name in ("calls", "spent", "bytes_in", "bytes_out"):
            object.__setattr__(self, name, int(getattr(self, name)))


USED = Statement(
    """
    WITH mine AS MATERIALIZED (SELECT id FROM analytics.wallets_of($1)), used AS (
        SELECT d.account_id, d.day, d.calls, d.spent, d.bytes_in, d.bytes_out
          FROM mine JOIN analytics.agent_day d ON d.payer = mine.id AND d.day BETWEEN $2 AND $3
        UNION ALL
        SELECT b.account_id, b.day, b.calls, b.spent, b.bytes_in, b.bytes_out
          FROM analytics.mark m
          CROSS JOIN LATERAL analytics.booked(m.upto, m.never) b
          JOIN mine ON mine.id = b.payer
         WHERE b.day BETWEEN $2 AND $3
    )
    SELECT u.day, p.id AS publisher_id, p.slug, a.asset_id, sum(u.calls) AS calls, sum(u.spent) AS spent,
           sum(u.bytes_in) AS bytes_in, sum(u.bytes_out) AS bytes_out
      FROM used u
      JOIN ledger.account a ON a.id = u.account_id
      JOIN catalog.publisher p ON p.id = a.publisher_id
     GROUP BY u.day, p.id, p.slug, a.asset_id
     ORDER BY u.day, p.slug, a.asset_id
    """,
    Use,
)


@dataclass(frozen=True, slots=True)
class Sold:
    """What was called of one publisher on one day, in one ledger asset. Refunds are taken off."""

    day: date
    publisher_id: UUID
    slug: str
    asset_id: UUID
    calls: int
    spent: int

    def __post_init__(self) -> None:
        for name in ("calls", "spent"):
            object.__setattr__(self, name, int(getattr(self, name)))


SOLD = Statement(
    """
    WITH mine AS MATERIALIZED (
        SELECT id, asset_id, publisher_id, slug FROM analytics.accounts_of_project($1)
    ), sold AS (
        SELECT d.account_id, d.day, d.calls, d.spent
          FROM mine JOIN analytics.day d ON d.account_id = mine.id AND d.day BETWEEN $2 AND $3
        UNION ALL
        SELECT b.account_id, b.day, b.calls, b.spent
          FROM analytics.mark m
          CROSS JOIN LATERAL analytics.booked(m.upto, m.never, ARRAY(SELECT id FROM mine)) b
         WHERE b.day BETWEEN $2 AND $3
    )
    SELECT s.day, mine.publisher_id, mine.slug, mine.asset_id, sum(s.calls) AS calls, sum(s.spent) AS spent
      FROM sold s JOIN mine ON mine.id = s.account_id
     GROUP BY s.day, mine.publisher_id, mine.slug, mine.asset_id
     ORDER BY s.day, mine.slug, mine.asset_id
    """,
    Sold,
)


async def sold(connection: Connection, project_id: UUID, first: date, last: date) -> list[Sold]:
    """Return what was called of a project's publishers from one day to another, both included."""
    return await SOLD.all(connection, project_id, first, last)


@dataclass(frozen=True, slots=True)
class Project:
    """A project that computes could belong to."""

    id: UUID
    name: str
    region: str


PROJECTS = Statement(
    """
    SELECT id, name, region FROM project.project
     WHERE organization_id = $1 AND deleted_at IS NULL ORDER BY name, id
    """,
    Project,
)


async def used(connection: Connection, organization_id: UUID, first: date, last: date) -> list[Use]:
    """Return what an organization has used from one day to another, both included."""
    return await USED.all(connection, organization_id, first, last)
