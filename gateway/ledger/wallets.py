"""Wallets and their lots: opening, crediting, reading.

A wallet is one account's money in one asset. Each credit opens a lot with a source and maybe an expiry; charges draw
lots in the documented order. All amounts are atomic units of the wallet's asset.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.ids import uuid7

FUNDED_SOURCES = frozenset({"fiat_purchase", "tier_bonus"})
"""Sources that somebody paid for; every other one is promotional (DECISIONS)."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet's identity. `address` is what the contract calls wallet_address."""

    id: int
    owner_id: UUID
    asset_id: UUID
    address: str


@dataclass(frozen=True, slots=True)
class SourceBalance:
    """Spendable money of one source."""

    source: str
    purpose: Literal["deposit", "promotional", "funded"]
    balance: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "balance", int(self.balance))


@dataclass(frozen=True, slots=True)
class Granted:
    """The outcome of a credit: `repeated` means that this reference was credited before and nothing moved."""

    verdict: Literal["granted", "repeated"]
    lot_id: int


@dataclass(frozen=True, slots=True)
class WalletLine:
    """One line of a wallet's history: a credit (positive) with what is left of it, a charge or refund, or `carried`.

    That is all of an archived month in one, and what it came to; its id is the one that the month ends before.
    """

    id: UUID
    kind: str
    source: str
    amount: int
    remaining: int
    created_at: datetime
    expires_at: datetime | None
    description: str | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))
        object.__setattr__(self, "remaining", int(self.remaining))


OPEN_WALLET = Statement(
    """
    INSERT INTO ledger.wallet (owner_id, asset_id, address) VALUES ($1, $2, $3)
    ON CONFLICT (owner_id, asset_id) DO UPDATE SET address = ledger.wallet.address
    RETURNING id, owner_id, asset_id, address
    """,
    Wallet,
)
FIND_WALLET = Statement(
    "SELECT id, owner_id, asset_id, address FROM ledger.wallet WHERE owner_id = $1 AND asset_id = $2", Wallet
)
FIND_BY_ADDRESS = Statement("SELECT id, owner_id, asset_id, address FROM ledger.wallet WHERE address = $1", Wallet)
GRANT_LOT = Statement(
    """
    SELECT verdict, lot_id
      FROM ledger.grant_lot($1, $2, $3, $4, $5::text::numeric, $6::ledger.purpose, $7, $8, $9, $10)
    """,
    Granted,
)
BALANCES = Statement(
    """
    SELECT source, purpose::text AS purpose, sum(balance) AS balance FROM ledger.account
     WHERE wallet_id = $1 AND NOT spent AND granted IS NOT NULL AND balance > 0
       AND (expires_at IS NULL OR expires_at > now())
     GROUP BY source, purpose ORDER BY purpose, source
    """,
    SourceBalance,
)
SPENDABLE = Statement(
    """
    SELECT coalesce(sum(balance), 0) FROM ledger.account
     WHERE wallet_id = $1 AND NOT spent AND granted IS NOT NULL AND balance > 0
       AND (expires_at IS NULL OR expires_at > now()) AND (publisher_id IS NULL OR publisher_id = $2)
    """,
    int,
    scalar=True,
)
GRANTED_TOTAL = Statement(
    """
    SELECT coalesce(sum(granted), 0) FROM ledger.account
     WHERE wallet_id = $1 AND granted IS NOT NULL AND source = ANY ($2::text[])
    """,
    int,
    scalar=True,
)
# Credits first-class, charges and refunds summed per exchange, archived months in a line each: what they did to the
# lots, as the other lines do, so what a dispute has frozen is gone. Newest first.
HISTORY = Statement(
    """
    SELECT t.cause_id AS id,
           CASE WHEN a.source = 'correction' AND a.purpose = 'funded' THEN 'correction' ELSE 'credit' END AS kind,
           a.source, a.granted AS amount,
           CASE WHEN a.expires_at <= now() THEN 0 ELSE a.balance END AS remaining,
           t.created_at, a.expires_at, a.description
      FROM ledger.transfer t JOIN ledger.account a ON a.id = t.credit_account
     WHERE t.wallet_id = $1 AND t.kind = 'grant'
    UNION ALL
    SELECT t.cause_id, t.kind::text,
           CASE t.kind WHEN 'refund' THEN 'refund' WHEN 'expire' THEN 'expiry' WHEN 'penalty' THEN 'penalty'
                ELSE CASE WHEN max(d.description) IS NULL THEN 'api_call' ELSE 'service_fee' END END,
           sum(CASE WHEN t.kind = 'refund' THEN t.amount ELSE -t.amount END), 0, min(t.created_at), NULL,
           nullif(concat_ws(': ', max(p.slug), coalesce(max(d.description), max(n.reason))), '')
      FROM ledger.transfer t
      LEFT JOIN ledger.account e ON e.id = CASE WHEN t.kind = 'refund' THEN t.debit_account ELSE t.credit_account END
      LEFT JOIN catalog.publisher p ON p.id = e.publisher_id
      LEFT JOIN ledger.direct_charge d ON d.id = t.cause_id
      LEFT JOIN ledger.penalty n ON n.id = t.cause_id
     WHERE t.wallet_id = $1 AND t.kind IN ('charge', 'capture', 'refund', 'expire', 'penalty')
     GROUP BY t.cause_id, t.kind
    UNION ALL
    SELECT t.cause_id, t.kind::text, t.kind::text,
           sum(CASE t.kind WHEN 'dispute_won' THEN t.amount ELSE -t.amount END), 0, min(t.created_at), NULL, NULL
      FROM ledger.transfer t
     WHERE t.wallet_id = $1 AND t.kind IN ('card_refund', 'dispute', 'dispute_won', 'recovery')
     GROUP BY t.cause_id, t.kind
    UNION ALL
    SELECT t.cause_id, 'correction', 'correction', -sum(t.amount), 0, min(t.created_at), NULL, max(c.reason)
      FROM ledger.transfer t LEFT JOIN ledger.correction c ON c.cause_id = t.cause_id
     WHERE t.wallet_id = $1 AND t.kind = 'correction' GROUP BY t.cause_id
    UNION ALL
    SELECT r.upto, 'carried', 'carried_forward', sum(c.credits - c.debits), 0, l.at, NULL,
           format('everything before %s', to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD'))
      FROM ledger.account a
      JOIN ledger.carried c ON c.account_id = a.id
      JOIN ledger.archive r ON r.id = c.archive_id
      CROSS JOIN LATERAL (SELECT ledger.moment_of(r.upto) AS at) l
     WHERE a.wallet_id = $1 AND a.granted IS NOT NULL GROUP BY r.upto, l.at
     ORDER BY created_at DESC, id DESC, kind LIMIT $2 OFFSET $3
    """,
    WalletLine,
)
HISTORY_COUNT = Statement(
    """
    SELECT (SELECT count(*) FROM ledger.transfer WHERE wallet_id = $1 AND kind = 'grant')
         + (SELECT count(DISTINCT (cause_id, kind)) FROM ledger.transfer
             WHERE wallet_id = $1 AND kind IN ('charge', 'capture', 'refund', 'expire', 'penalty'))
         + (SELECT count(DISTINCT (cause_id, kind)) FROM ledger.transfer
             WHERE wallet_id = $1 AND kind IN ('card_refund', 'dispute', 'dispute_won', 'recovery', 'correction'))
         + (SELECT count(DISTINCT c.archive_id) FROM ledger.account a JOIN ledger.carried c ON c.account_id = a.id
             WHERE a.wallet_id = $1 AND a.granted IS NOT NULL)
    """,
    int,
    scalar=True,
)
FROZEN = Statement(
    "SELECT coalesce(sum(balance), 0) FROM ledger.account WHERE wallet_id = $1 AND purpose = 'disputed'",
    int,
    scalar=True,
)
OWED = Statement("SELECT card.owed($1)", int, scalar=True)
EXPIRE_LOTS = Statement("SELECT ledger.expire_lots($1)", int, scalar=True)
LOCK_WALLET = Command("SELECT FROM ledger.wallet WHERE id = $1 FOR UPDATE")


async def open_wallet(connection: Connection, owner_id: UUID, asset_id: UUID, address: str) -> Wallet:
    """Return the owner's wallet in an asset, opening it under `address` if it does not exist."""
    found = await FIND_WALLET.first(connection, owner_id, asset_id)
    return found or await OPEN_WALLET.one(connection, owner_id, asset_id, address)


async def grant(
    connection: Connection,
    wallet_id: int,
    *,
    source: str,
    reference: str,
    amount: int,
    expires_at: datetime | None = None,
    description: str | None = None,
) -> Granted:
    """Credit a wallet once per (source, reference); `amount` > 0 in atomic units.

    Promotional sources are booked against the platform's promotional expense, paid ones against the clearing account
    without a rail: what came by card is credited by schema card, on a chain by `deposit`.
    """
    purpose = "funded" if source in FUNDED_SOURCES else "promotional"
    return await GRANT_LOT.one(
        connection, uuid7(), wallet_id, source, reference, str(amount), purpose, expires_at, description, None, None
    )


async def deposit(
    connection: Connection, wallet_id: int, *, publisher_id: UUID, reference: str, amount: int, rail: str
) -> Granted:
    """Credit a wallet with a deposit that only one publisher's calls can spend. `rail` is a CAIP-2 network."""
    return await GRANT_LOT.one(
        connection,
        uuid7(),
        wallet_id,
        "onchain_deposit",
        reference,
        str(amount),
        "deposit",
        None,
        None,
        publisher_id,
        rail,
    )
