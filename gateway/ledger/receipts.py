"""What the ledger knows of one paid call: the facts of its receipt. Signing is billing/receipts.py's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement


@dataclass(frozen=True, slots=True)
class ReceiptFacts:
    """One exchange whose money moved. Amounts are atomic units of the asset; hashes are sha256.

    `owner_id` paid, `organization_id` owns the publisher: these two may see the receipt. Of a payment on a chain the
    owner is the wallet `payer` (20 bytes) on `network`, and `owner_id` is None.
    """

    exchange_id: UUID
    owner_id: UUID | None
    organization_id: UUID
    publisher_id: UUID
    publisher_slug: str
    asset_id: UUID
    asset_symbol: str
    asset_decimals: int
    amount: int
    fee: int
    refunded: int
    legs: list[str]
    charged_at: datetime
    outcome: str
    reason: str | None
    status: int | None
    bytes_in: int
    bytes_out: int
    method: str | None
    target_hash: bytes | None
    body_hash: bytes | None
    ended_at: datetime | None
    network: str | None = None
    payer: bytes | None = None
    payee: bytes | None = None
    transaction: bytes | None = None

    def __post_init__(self) -> None:
        for name in ("amount", "fee", "refunded"):
            object.__setattr__(self, name, int(getattr(self, name)))


FIND_RECEIPT = Statement(
    """
    SELECT t.cause_id AS exchange_id, w.owner_id, p.organization_id, p.id AS publisher_id, p.slug AS publisher_slug,
           a.id AS asset_id, a.symbol AS asset_symbol, a.decimals::integer AS asset_decimals,
           t.amount, t.fee, coalesce(r.amount, 0) AS refunded, t.legs, t.charged_at,
           coalesce(s.outcome::text, 'open') AS outcome, s.reason, s.status, coalesce(s.bytes_in, 0) AS bytes_in,
           coalesce(s.bytes_out, 0) AS bytes_out, s.method, s.target_hash, s.body_hash, s.ended_at
      FROM (SELECT cause_id, sum(amount) AS amount, sum(fee) AS fee, min(wallet_id) AS wallet_id,
                   min(credit_account) AS credit_account, min(created_at) AS charged_at,
                   array_agg(format('%s/%s/%s', cause_id, kind, leg) ORDER BY leg) AS legs
              FROM ledger.transfer WHERE cause_id = $1 AND kind IN ('charge', 'capture') GROUP BY cause_id) t
      JOIN ledger.wallet w ON w.id = t.wallet_id
      JOIN ledger.account e ON e.id = t.credit_account
      JOIN catalog.publisher p ON p.id = e.publisher_id
      JOIN catalog.asset a ON a.id = e.asset_id
      LEFT JOIN ledger.settlement s ON s.exchange_id = t.cause_id
      LEFT JOIN LATERAL (SELECT sum(amount) AS amount FROM ledger.transfer
                          WHERE cause_id = t.cause_id AND kind = 'refund') r ON true
    """,
    ReceiptFacts,
)


FIND_ONCHAIN_RECEIPT = Statement(
    """
    SELECT m.id AS exchange_id, NULL::uuid AS owner_id, p.organization_id, p.id AS publisher_id,
           p.slug AS publisher_slug, a.id AS asset_id, a.symbol AS asset_symbol, a.decimals::integer AS asset_decimals,
           m.amount, m.fee, CASE WHEN r.payment_id IS NULL THEN 0 ELSE m.amount END AS refunded, t.legs, t.charged_at,
           coalesce(s.outcome::text, 'open') AS outcome, s.reason, s.status, coalesce(s.bytes_in, 0) AS bytes_in,
           coalesce(s.bytes_out, 0) AS bytes_out, s.method, s.target_hash, s.body_hash, s.ended_at,
           m.network, m.payer, m.payee, m.mined_transaction AS transaction
      FROM chain.payment m
      JOIN ledger.account e ON e.id = m.account_id
      JOIN catalog.publisher p ON p.id = e.publisher_id
      JOIN catalog.asset a ON a.id = e.asset_id
      CROSS JOIN LATERAL (SELECT min(created_at) AS charged_at,
                                 array_agg(format('%s/%s/%s', cause_id, kind, leg) ORDER BY kind, leg) AS legs
                            FROM ledger.transfer WHERE cause_id = m.id) t
      LEFT JOIN ledger.settlement s ON s.exchange_id = m.id
      LEFT JOIN chain.repayment r ON r.payment_id = m.id
     WHERE m.id = $1 AND m.state = 'confirmed'
    """,
    ReceiptFacts,
)


IS_ARCHIVED = Statement("SELECT $1 < upto FROM ledger.archived", bool, scalar=True)


async def is_archived(connection: Connection, exchange_id: UUID) -> bool:
    """Return whether a call with this id would be of a month whose rows are in an archive."""
    return await IS_ARCHIVED.one(connection, exchange_id)


async def find_receipt(connection: Connection, exchange_id: UUID) -> ReceiptFacts | None:
    """Return the facts of a paid exchange, or None when no money moved for this id."""
    prepaid = await FIND_RECEIPT.first(connection, exchange_id)
    return prepaid or await FIND_ONCHAIN_RECEIPT.first(connection, exchange_id)
