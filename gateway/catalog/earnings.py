"""What publishers have earned, exactly as the ledger has it: what is there, on its way out, gone, and held back.

A publisher's accounts are kept in the ledger asset: USDC of every network is one purse. Nothing is rolled up here, so
that a payout is decided by what is true at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class _Account:
    asset_id: UUID
    purpose: str
    balance: int
    young: int
    oldest: datetime | None
    newest: datetime | None

    def __post_init__(self) -> None:
        for name in ("balance", "young"):
            object.__setattr__(self, name, int(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class _Gone:
    asset_id: UUID
    amount: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


# Young is what a cause has brought since $2, less what was given back of it: one look at what was booked since then. No
# cause before $3 can have brought it, which spares the months before. Fees are left out as in the view ledger.posting.
# A payout takes what is old, so what comes back of one is as old as it was.
ACCOUNTS = Statement(
    """
    SELECT a.asset_id, a.purpose::text AS purpose, b.amount AS balance, coalesce(y.amount, 0) AS young,
           y.oldest, y.newest
      FROM ledger.account a
      CROSS JOIN LATERAL (SELECT coalesce(sum(s.credits - s.debits), 0) AS amount FROM ledger.shard s
                           WHERE s.account_id = a.id) b
      LEFT JOIN LATERAL (
          SELECT sum(c.amount) AS amount, min(c.moment) AS oldest, max(c.moment) AS newest
            FROM (SELECT sum(CASE
                             WHEN t.credit_account = a.id AND t.kind IN ('charge', 'capture', 'payment')
                             THEN t.amount - t.fee
                             WHEN t.credit_account = a.id THEN t.amount
                             WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN t.fee - t.amount
                             ELSE -t.amount END) AS amount,
                         max(t.created_at) FILTER (WHERE t.credit_account = a.id) AS moment
                    FROM ledger.transfer t
                   WHERE t.created_at > $2 AND t.cause_id >= $3 AND a.id IN (t.credit_account, t.debit_account)
                     AND t.kind <> 'payout_back'
                   GROUP BY t.cause_id) c
           WHERE c.moment IS NOT NULL AND c.amount > 0) y ON a.purpose <> 'paying_out'
     WHERE a.publisher_id = $1 AND a.purpose IN ('earnings', 'penalties', 'paying_out')
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
    """Return a publisher's earnings by ledger asset; what is younger than `holdback` is held back."""
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
    none = _Account(asset_id, "", 0, 0, None, None)
    earned, penalties, paying = (
        found.get((asset_id, name), none) for name in ("earnings", "penalties", "paying_out")
    )  # fmt: skip
    oldest = [one.oldest for one in (earned, penalties) if one.oldest is not None]
    newest = [one.newest for one in (earned, penalties) if one.newest is not None]
    return Earnings(
        asset_id,
        revenue=earned.balance + penalties.balance + paying.balance + gone,
        paying_out=paying.balance,
        withdrawn=gone,
        holdings=Holdings(Purse(earned.balance, earned.young), Purse(penalties.balance, penalties.young)),
        frees_at=min(oldest) + holdback if oldest else None,
        all_free_at=max(newest) + holdback if newest else None,
    )
