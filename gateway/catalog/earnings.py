"""What publishers have earned, exactly as the ledger has it: what is there, on its way out, gone, and held back.

A publisher's accounts are kept in the ledger asset: USDC of every network is one purse. A payout is decided by what is
true at that moment: the sums of days of what promotional credit has paid are completed by what was booked since.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.ids import floor_at
from pricing.payouts import Holdings, Purse

LONGEST_CALL = timedelta(days=1)
"""Earnings are as old as their booking, which comes so much later than the call's beginning at most."""


NOTHING = Holdings()


@dataclass(frozen=True, slots=True)
class Earnings:
    """A publisher's money in one ledger asset, in atomic units: `revenue` is net of fees and refunds.

    `withdrawn` was paid out, or paid to the publisher's own address at once. `frees_at` is when the first of what is
    held back is free, `all_free_at` the last.
    """

    asset_id: UUID
    revenue: int = 0
    paying_out: int = 0
    withdrawn: int = 0
    holdings: Holdings = NOTHING
    frees_at: datetime | None = None
    all_free_at: datetime | None = None

    @property
    def available(self) -> int:
        """Return what can be paid out now."""
        return self.holdings.available

    def letting_go(self, promotional_left: int) -> Earnings:
        """Return the same where so much of what promotional credit has paid may be paid out."""
        return replace(self, holdings=replace(self.holdings, promotional_left=promotional_left))


@dataclass(frozen=True, slots=True)
class _Account:
    asset_id: UUID
    purpose: str
    balance: int
    young: int
    promotional: int
    young_promotional: int
    oldest: datetime | None
    newest: datetime | None

    def __post_init__(self) -> None:
        for name in ("balance", "young", "promotional", "young_promotional"):
            object.__setattr__(self, name, int(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class _Gone:
    asset_id: UUID
    amount: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


# One statement, so that all of it is of one moment: what promotional credit has paid must not be older than the balance
# that it is a part of. No cause before $3 can have brought what was booked since $2.
ACCOUNTS = Statement(
    """
    WITH account AS MATERIALIZED (
        SELECT a.id, a.asset_id, a.purpose::text AS purpose FROM ledger.account a
         WHERE a.publisher_id = $1 AND a.purpose IN ('earnings', 'penalties', 'paying_out')
    ), earner AS MATERIALIZED (
        SELECT coalesce(array_agg(a.id), '{}') AS ids FROM account a WHERE a.purpose <> 'paying_out'
    )
    SELECT a.asset_id, a.purpose, b.amount AS balance, coalesce(y.amount, 0) AS young,
           CASE a.purpose WHEN 'paying_out' THEN -o.promotional ELSE coalesce(p.amount, 0) END AS promotional,
           coalesce(y.promotional, 0) AS young_promotional, y.oldest, y.newest
      FROM account a
      CROSS JOIN LATERAL (SELECT coalesce(sum(s.credits - s.debits), 0) AS amount FROM ledger.shard s
                           WHERE s.account_id = a.id) b
      LEFT JOIN (SELECT y.* FROM earner e CROSS JOIN LATERAL ledger.young_earnings(e.ids, $2, $3) y) y
             ON y.account_id = a.id
      LEFT JOIN (SELECT p.* FROM earner e CROSS JOIN LATERAL ledger.promotional_earned(e.ids) p) p
             ON p.account_id = a.id
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(o.promotional), 0) AS promotional
            FROM chain.payout o JOIN catalog.asset c ON c.id = o.asset_id
           WHERE a.purpose = 'paying_out' AND o.publisher_id = $1 AND c.ledger_asset_id = a.asset_id
             AND o.state NOT IN ('failed', 'cancelled')) o
    """,
    _Account,
)
GONE = Statement(
    """
    SELECT asset_id, sum(amount) AS amount FROM (
        SELECT a.asset_id, p.amount FROM ledger.account a
          JOIN chain.payment p ON p.account_id = a.id AND p.booking = 'direct' AND p.state = 'confirmed'
         WHERE a.publisher_id = $1 AND a.purpose = 'earnings'
        UNION ALL
        SELECT c.ledger_asset_id, o.amount FROM chain.payout o JOIN catalog.asset c ON c.id = o.asset_id
         WHERE o.publisher_id = $1 AND o.state = 'completed') g
     GROUP BY asset_id
    """,
    _Gone,
)


async def earnings_of(
    connection: Connection, publisher_id: UUID, holdback: timedelta = timedelta(0)
) -> dict[UUID, Earnings]:
    """Return a publisher's earnings by ledger asset; what is younger than `holdback` or has not ended is held back.

    Nothing of what promotional credit has paid can be paid out, unless somebody sets how much is left of its bound.
    """
    now = datetime.now(UTC)
    since = now - holdback
    first = since - LONGEST_CALL if holdback else now + LONGEST_CALL
    rows = await ACCOUNTS.all(connection, publisher_id, since, floor_at(int(first.timestamp() * 1_000)))
    gone = {one.asset_id: one.amount for one in await GONE.all(connection, publisher_id)}
    found = {(row.asset_id, row.purpose): row for row in rows}
    return {
        asset_id: _earnings(asset_id, found, gone.get(asset_id, 0), holdback)
        for asset_id in dict.fromkeys(row.asset_id for row in rows)
    }


def _earnings(asset_id: UUID, found: dict[tuple[UUID, str], _Account], gone: int, holdback: timedelta) -> Earnings:
    none = _Account(asset_id, "", 0, 0, 0, 0, None, None)
    earned, penalties, paying = (
        found.get((asset_id, name), none) for name in ("earnings", "penalties", "paying_out")
    )  # fmt: skip
    oldest = [one.oldest for one in (earned, penalties) if one.oldest is not None]
    newest = [one.newest for one in (earned, penalties) if one.newest is not None]
    promotional = sum(one.promotional - one.young_promotional for one in (earned, penalties, paying))
    return Earnings(
        asset_id,
        revenue=earned.balance + penalties.balance + paying.balance + gone,
        paying_out=paying.balance,
        withdrawn=gone,
        holdings=Holdings(
            Purse(earned.balance, earned.young), Purse(penalties.balance, penalties.young), max(promotional, 0)
        ),
        frees_at=min(oldest) + holdback if oldest else None,
        all_free_at=max(newest) + holdback if newest else None,
    )
