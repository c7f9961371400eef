"""What a publisher has earned by calls, in one asset, by day and by agent. Reads sums and the short tail behind them.

`spent` is what agents paid, refunds taken off; of it `fee` is the platform's and the rest is the publisher's revenue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.errors import NotFound

MOST_PERCENT = 2**31 - 1  # what the contract's field can say


@dataclass(frozen=True, slots=True)
class Revenue:
    """Sums of some days. `agents` are those who called and were not given everything back."""

    calls: int
    spent: int
    fee: int
    agents: int

    def __post_init__(self) -> None:
        for name in ("calls", "spent", "fee", "agents"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def earned(self) -> int:
        """Return the publisher's part."""
        return self.spent - self.fee


@dataclass(frozen=True, slots=True)
class DayRevenue(Revenue):
    """The same of one UTC day."""

    day: date = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class TopAgent:
    """An agent by what it has spent at a publisher ever. `balance` is what it could spend there now."""

    payer: int
    wallet: str
    calls: int
    spent: int
    last_at: datetime | None
    balance: int

    def __post_init__(self) -> None:
        for name in ("calls", "spent", "balance"):
            object.__setattr__(self, name, int(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Purse:
    """One of a publisher's earnings accounts. `primary`: of the ledger asset of its primary asset."""

    account_id: int
    asset_id: UUID
    primary: bool


PRIMARY = Statement(
    """
    SELECT a.ledger_asset_id::text FROM catalog.publisher p JOIN catalog.asset a ON a.id = p.primary_asset_id
     WHERE p.organization_id = $1 AND p.id = $2
    """,
    UUID,
    scalar=True,
)
ACCOUNTS = Statement(
    """
    SELECT id AS account_id, asset_id, asset_id = $2 AS primary FROM ledger.account
     WHERE publisher_id = $1 AND purpose = 'earnings' ORDER BY id
    """,
    Purse,
)
# Who called in a window is counted by `reach`; whom the tail touches, by his own days.
WINDOW = Statement(
    """
    WITH tail AS MATERIALIZED (
        SELECT b.payer, b.day, b.calls, b.spent, b.fee
          FROM analytics.mark m
          CROSS JOIN LATERAL analytics.booked(m.upto, m.never, ARRAY[$1::bigint]) b
         WHERE b.day BETWEEN $2::date AND $3::date
    ), touched AS (
        SELECT x.payer, x.day, sum(x.kept) AS before, sum(x.kept + x.fresh) AS after
          FROM (SELECT t.payer, t.day, 0 AS kept, t.calls AS fresh FROM tail t
                UNION ALL
                SELECT d.payer, d.day, d.calls, 0
                  FROM (SELECT DISTINCT payer FROM tail) p
                  JOIN analytics.agent_day d ON d.account_id = $1 AND d.payer = p.payer AND d.day BETWEEN $2 AND $3) x
         GROUP BY x.payer, x.day
    )
    SELECT k.calls + t.calls AS calls, k.spent + t.spent AS spent, k.fee + t.fee AS fee, r.agents + u.agents AS agents
      FROM (SELECT coalesce(sum(calls), 0) AS calls, coalesce(sum(spent), 0) AS spent, coalesce(sum(fee), 0) AS fee
              FROM analytics.day WHERE account_id = $1 AND day BETWEEN $2 AND $3) k
      CROSS JOIN (SELECT coalesce(sum(calls), 0) AS calls, coalesce(sum(spent), 0) AS spent,
                         coalesce(sum(fee), 0) AS fee
                    FROM tail) t
      CROSS JOIN (SELECT coalesce(sum(agents), 0) AS agents
                    FROM analytics.reach WHERE account_id = $1 AND day BETWEEN $2 AND $3 AND gap > day - $2) r
      CROSS JOIN (SELECT count(DISTINCT payer) FILTER (WHERE after > 0)
                         - count(DISTINCT payer) FILTER (WHERE before > 0) AS agents FROM touched) u
    """,
    Revenue,
)
BY_DAY = Statement(
    """
    WITH tail AS MATERIALIZED (
        SELECT b.day, sum(b.calls) AS calls, sum(b.spent) AS spent, sum(b.fee) AS fee,
               sum((coalesce(d.calls, 0) + b.calls > 0)::integer - (coalesce(d.calls, 0) > 0)::integer) AS agents
          FROM analytics.mark m
          CROSS JOIN LATERAL analytics.booked(m.upto, m.never, ARRAY[$1::bigint]) b
          LEFT JOIN analytics.agent_day d ON d.account_id = b.account_id AND d.payer = b.payer AND d.day = b.day
         WHERE b.day BETWEEN $2::date AND $3::date
         GROUP BY b.day
    ), reached AS (
        SELECT day, sum(agents) AS agents FROM analytics.reach
         WHERE account_id = $1 AND day BETWEEN $2 AND $3 GROUP BY day
    )
    SELECT s.day::date AS day, coalesce(k.calls, 0) + coalesce(t.calls, 0) AS calls,
           coalesce(k.spent, 0) + coalesce(t.spent, 0) AS spent, coalesce(k.fee, 0) + coalesce(t.fee, 0) AS fee,
           coalesce(r.agents, 0) + coalesce(t.agents, 0) AS agents
      FROM generate_series($2::date::timestamp, $3::date::timestamp, interval '1 day') AS s (day)
      LEFT JOIN analytics.day k ON k.account_id = $1 AND k.day = s.day::date
      LEFT JOIN reached r ON r.day = s.day::date
      LEFT JOIN tail t ON t.day = s.day::date
     ORDER BY s.day
    """,
    DayRevenue,
)
# Of the sums so many more are taken as the tail has payers: no more of them can have lost their places.
TOP = Statement(
    """
    WITH account AS (
        SELECT id, publisher_id FROM ledger.account WHERE id = $1
    ), tail AS MATERIALIZED (
        SELECT b.payer, b.network, b.address, sum(b.calls) AS calls, sum(b.spent) AS spent, max(b.last_at) AS last_at
          FROM analytics.mark m
          CROSS JOIN LATERAL analytics.booked(m.upto, m.never, ARRAY[$1::bigint]) b
         GROUP BY b.payer, b.network, b.address
    ), candidate AS (
        (SELECT payer FROM analytics.agent WHERE account_id = $1
          ORDER BY spent DESC, payer LIMIT $2::integer + (SELECT count(*) FROM tail))
        UNION
        SELECT payer FROM tail
    ), top AS (
        SELECT c.payer, coalesce(t.network, o.network) AS network, coalesce(t.address, o.address) AS address,
               coalesce(a.calls, 0) + coalesce(t.calls, 0) AS calls,
               coalesce(a.spent, 0) + coalesce(t.spent, 0) AS spent, greatest(a.last_at, t.last_at) AS last_at
          FROM candidate c
          LEFT JOIN analytics.agent a ON a.account_id = $1 AND a.payer = c.payer
          LEFT JOIN tail t ON t.payer = c.payer
          LEFT JOIN analytics.outsider o ON o.payer = c.payer
         WHERE coalesce(a.calls, 0) + coalesce(t.calls, 0) > 0
         ORDER BY spent DESC, payer LIMIT $2
    )
    SELECT t.payer, coalesce(w.address, '0x' || encode(t.address, 'hex')) AS wallet, t.calls, t.spent, t.last_at,
           b.balance
      FROM top t
      CROSS JOIN account a
      LEFT JOIN ledger.wallet w ON w.id = t.payer
      CROSS JOIN LATERAL (SELECT coalesce(sum(l.balance), 0) AS balance FROM ledger.account l
                           WHERE l.wallet_id = t.payer AND NOT l.spent AND l.granted IS NOT NULL
                             AND (l.expires_at IS NULL OR l.expires_at > now())
                             AND (l.purpose <> 'deposit' OR l.publisher_id = a.publisher_id)) b
     ORDER BY t.spent DESC, t.payer
    """,
    TopAgent,
)


async def purses(connection: Connection, organization_id: UUID, publisher_id: UUID) -> list[Purse]:
    """Return the earnings accounts of a publisher of this organization, the primary one first. Raises NotFound.

    What one has earned that was deleted is its organization's still. One without calls has no account yet: number 0,
    which nothing is booked on.
    """
    primary = await PRIMARY.first(connection, organization_id, publisher_id)
    if primary is None:
        raise NotFound("This organization has no such publisher.")
    found = await ACCOUNTS.all(connection, publisher_id, primary)
    if not any(purse.primary for purse in found):
        found.append(Purse(0, primary, True))
    return sorted(found, key=lambda purse: not purse.primary)


def change(now: int, before: int) -> int:
    """Return by how many percent a number has grown, to the nearest whole one; from nothing to anything is 100."""
    if before <= 0:
        return 100 if now > 0 else 0
    tenths = (now - before) * 1000 // before
    return max(-MOST_PERCENT, min((tenths + 5) // 10, MOST_PERCENT))
