"""The first source: what was paid from prepaid wallets, as the ledger has booked it in a month.

Whose it is: the ledger knows which wallet paid, and a wallet has one owner, so it belongs to the owner's personal
organization, by whichever key it was spent; nothing is invoiced twice. Wallets on a chain are nobody's organization:
what they pay by x402 has its receipts (GET /receipts/{request_id}).

When it was: the moment of booking. Money that goes back later is a line of the month in which it did, so that no month
changes once it is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal
from uuid import UUID

from gateway.billing.invoices.line import Line, OtherAsset
from gateway.billing.invoices.month import Month
from gateway.database.pool import Connection
from gateway.database.statement import Statement


@dataclass(frozen=True, slots=True)
class Booked:
    """What an organization's wallets paid to one publisher in a month, and got back."""

    kind: Literal["usage", "charge", "penalty", "refund"]
    slug: str
    name: str
    number: int
    amount: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


# Bounds on the ids keep to the partitions that may hold what was booked; the moment of booking decides. Calls of the
# month itself are net of what came back for them, and count if anything is left; what came back for earlier ones is
# a line of its own.
BOOKED = Statement(
    """
    WITH mine AS (
        SELECT w.id FROM ledger.wallet w
          JOIN identity.organization o ON o.created_by = w.owner_id AND o.is_personal
         WHERE o.id = $1 AND w.asset_id = (SELECT ledger_asset_id FROM catalog.asset WHERE is_default)
    ), moved AS (
        SELECT t.cause_id,
               CASE WHEN 'penalties' IN (d.purpose, c.purpose) THEN 'penalty'
                    WHEN f.id IS NULL THEN 'usage' ELSE 'charge' END AS kind,
               CASE WHEN t.kind = 'refund' THEN d.publisher_id ELSE c.publisher_id END AS publisher_id,
               bool_or(t.kind <> 'refund') AS fresh,
               sum(CASE WHEN t.kind = 'refund' THEN -t.amount ELSE t.amount END) AS amount
          FROM mine
          JOIN ledger.transfer t ON t.wallet_id = mine.id
          JOIN ledger.account d ON d.id = t.debit_account
          JOIN ledger.account c ON c.id = t.credit_account
          LEFT JOIN ledger.direct_charge f ON f.id = t.cause_id
         WHERE t.cause_id < $4 AND t.created_at >= $2 AND t.created_at < $3
           AND t.kind IN ('charge', 'capture', 'refund', 'penalty')
         GROUP BY 1, 2, 3
    )
    SELECT CASE WHEN m.fresh THEN m.kind ELSE 'refund' END AS kind, p.slug, p.name,
           count(*) FILTER (WHERE m.amount <> 0 OR NOT m.fresh) AS number, sum(m.amount) AS amount
      FROM moved m JOIN catalog.publisher p ON p.id = m.publisher_id
     GROUP BY 1, 2, 3 ORDER BY 1 DESC, 2
    """,
    Booked,
)
OTHERS = Statement(
    """
    SELECT a.symbol AS asset, a.decimals::integer AS decimals,
           count(DISTINCT t.cause_id) FILTER (WHERE t.kind <> 'refund') AS calls,
           sum(CASE WHEN t.kind = 'refund' THEN -t.amount ELSE t.amount END) AS amount
      FROM ledger.wallet w
      JOIN identity.organization o ON o.created_by = w.owner_id AND o.is_personal
      JOIN catalog.asset a ON a.id = w.asset_id
      JOIN ledger.transfer t ON t.wallet_id = w.id
     WHERE o.id = $1 AND w.asset_id <> (SELECT ledger_asset_id FROM catalog.asset WHERE is_default)
       AND t.cause_id < $4 AND t.created_at >= $2 AND t.created_at < $3
       AND t.kind IN ('charge', 'capture', 'refund', 'penalty')
     GROUP BY a.id ORDER BY 1
    """,
    OtherAsset,
)
# Read once for all, whole: it is a month's job, and an index would cost every call.
ORGANIZATIONS = Statement(
    """
    SELECT DISTINCT o.id::text
      FROM (SELECT DISTINCT t.wallet_id FROM ledger.transfer t
             WHERE t.wallet_id IS NOT NULL AND t.cause_id < $3 AND t.created_at >= $1 AND t.created_at < $2
               AND t.kind IN ('charge', 'capture', 'refund', 'penalty')) t
      JOIN ledger.wallet w ON w.id = t.wallet_id
      JOIN identity.organization o ON o.created_by = w.owner_id AND o.is_personal
    """,
    UUID,
    scalar=True,
)

WORDS = {
    "usage": "Calls to {name} ({slug})",
    "charge": "Charges by {name} ({slug})",
    "penalty": "Penalties by {name} ({slug})",
    "refund": "Refunds by {name} ({slug}) of what was bought earlier",
}


async def lines_of(connection: Connection, organization_id: UUID, month: Month) -> list[Line]:
    """Return what an organization's wallets paid, one line per publisher. All of it is paid already."""
    rows = await BOOKED.all(connection, organization_id, month.start, month.end, month.high)
    return [
        Line(
            row.kind, WORDS[row.kind].format(name=row.name, slug=row.slug), Decimal(row.number), row.amount,
            paid=True, reference=row.slug,
        )
        for row in rows
        if row.number or row.amount
    ]  # fmt: skip


async def others_of(connection: Connection, organization_id: UUID, month: Month) -> list[OtherAsset]:
    """Return what an organization's wallets in other assets paid."""
    return await OTHERS.all(connection, organization_id, month.start, month.end, month.high)


async def organizations(connection: Connection, month: Month) -> set[UUID]:
    """Return whose wallets paid or got something back."""
    return set(await ORGANIZATIONS.all(connection, month.start, month.end, month.high))
