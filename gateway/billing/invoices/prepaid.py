"""The first source: what was paid from prepaid wallets, as the ledger has booked it in a month.

Whose it is: the ledger knows which wallet paid, and a wallet has one owner, so it belongs to the owner's personal
organization, by whichever key it was spent; nothing is invoiced twice. Wallets on a chain are nobody's organization:
what they pay by x402 has its receipts (GET /receipts/{request_id}).

When it was: the moment of booking. Money that goes back later is a line of the month in which it did, so that no month
changes once it is over. What is archived is still known by month (migration of what was bought).
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


# In the default asset ($2), or in others. Named to the statements below by value, so that these read their rows only.
WALLETS = Statement(
    """
    SELECT w.id FROM ledger.wallet w
      JOIN identity.organization o ON o.created_by = w.owner_id AND o.is_personal
     WHERE o.id = $1 AND (w.asset_id = (SELECT ledger_asset_id FROM catalog.asset WHERE is_default)) = $2
    """,
    int,
    scalar=True,
)
BOOKED = Statement(
    """
    SELECT b.kind, p.slug, p.name, sum(b.number)::bigint AS number, sum(b.amount) AS amount
      FROM ledger.bought b JOIN catalog.publisher p ON p.id = b.publisher_id
     WHERE b.month = $2 AND b.wallet_id = ANY ($1::bigint[])
     GROUP BY 1, 2, 3 HAVING sum(b.number) > 0 OR sum(b.amount) <> 0 ORDER BY 1 DESC, 2
    """,
    Booked,
)
OTHERS = Statement(
    """
    SELECT a.symbol AS asset, a.decimals::integer AS decimals,
           coalesce(sum(b.number) FILTER (WHERE b.kind <> 'refund'), 0)::bigint AS calls, sum(b.amount) AS amount
      FROM ledger.bought b
      JOIN ledger.wallet w ON w.id = b.wallet_id
      JOIN catalog.asset a ON a.id = w.asset_id
     WHERE b.month = $2 AND b.wallet_id = ANY ($1::bigint[])
     GROUP BY a.id HAVING sum(b.number) > 0 OR sum(b.amount) <> 0 ORDER BY 1
    """,
    OtherAsset,
)
# Read once for all, whole: it is a month's job, and an index would cost every call.
ORGANIZATIONS = Statement(
    """
    SELECT DISTINCT o.id::text
      FROM (SELECT t.wallet_id FROM ledger.transfer t
             WHERE t.wallet_id IS NOT NULL AND t.created_at >= $1 AND t.created_at < $2
               AND t.kind IN ('charge', 'capture', 'refund', 'penalty')
             UNION
            SELECT wallet_id FROM ledger.carried_bought WHERE month = $3) t
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
    wallets = await WALLETS.all(connection, organization_id, True)
    rows = await BOOKED.all(connection, wallets, month.first)
    return [
        Line(
            row.kind, WORDS[row.kind].format(name=row.name, slug=row.slug), Decimal(row.number), row.amount,
            paid=True, reference=row.slug,
        )
        for row in rows
    ]  # fmt: skip


async def others_of(connection: Connection, organization_id: UUID, month: Month) -> list[OtherAsset]:
    """Return what an organization's wallets in other assets paid."""
    wallets = await WALLETS.all(connection, organization_id, False)
    return await OTHERS.all(connection, wallets, month.first)


async def organizations(connection: Connection, month: Month) -> set[UUID]:
    """Return whose wallets paid or got something back, also where all of it came back at once."""
    return set(await ORGANIZATIONS.all(connection, month.start, month.end, month.first))
