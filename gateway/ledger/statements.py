"""Statements: the lines of a wallet, or of a publisher's money in one asset, in the order in which they were booked.

All of one is read in one snapshot and by a cursor, on a connection of its own, so that it is consistent however long it
is and costs the same memory. Who does not take its lines for a minute loses the connection: an old snapshot keeps the
database from tidying up.

A line is what one cause did by one kind of transfer. What only moves within the wallet or within the publisher's
accounts (a hold, a payout that is on its way) is no line; the balance includes it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.database.pool import Connection, connect
from gateway.database.statement import Command, Statement
from gateway.settings import DatabaseSettings

LONGEST = 900  # seconds a statement of the cursor may take: it may have to sort a year
BATCH = 500


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `change` is what came to the balance, negative for what left it."""

    at: datetime
    cause_id: UUID
    kind: str
    counterparty: str | None
    description: str | None
    change: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "change", int(self.change))


@dataclass(frozen=True, slots=True)
class Opening:
    """The balance before the first line. `archived`: calls before this moment have no lines any more.

    What they moved later (a late refund, a payout that took its time) is archived with them, so it is told of every
    window that begins before they were. None: nothing of the window is missing.
    """

    balance: int
    archived: datetime | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "balance", int(self.balance))


OWN_PACE = Command("SET LOCAL idle_in_transaction_session_timeout = '60s'")
# A month of everybody's bookings is found by the index of their times; a small ledger would be read whole.
BY_INDEX = Command("SET LOCAL enable_seqscan = off")
NO_JIT = Command("SET LOCAL jit = off")

WALLET_OPENING = Statement(
    """
    SELECT (SELECT coalesce(sum(a.balance), 0) FROM ledger.account a WHERE a.wallet_id = $1)
           - coalesce(sum(CASE WHEN c.wallet_id = $1 THEN t.amount ELSE 0 END
                          - CASE WHEN d.wallet_id = $1 THEN t.amount ELSE 0 END), 0) AS balance,
           (SELECT ledger.moment_of(r.upto) FROM ledger.archive r WHERE r.carried_at > $2
             ORDER BY r.upto DESC LIMIT 1) AS archived
      FROM ledger.transfer t
      JOIN ledger.account d ON d.id = t.debit_account
      JOIN ledger.account c ON c.id = t.credit_account
     WHERE t.wallet_id = $1 AND t.created_at >= $2
    """,
    Opening,
)
WALLET_LINES = Statement(
    """
    SELECT t.created_at AS at, t.cause_id, t.kind::text AS kind, max(p.slug) AS counterparty,
           coalesce(max(c.description) FILTER (WHERE t.kind = 'grant'), max(n.reason)) AS description,
           sum(CASE WHEN c.wallet_id = $1 THEN t.amount ELSE 0 END
               - CASE WHEN d.wallet_id = $1 THEN t.amount ELSE 0 END) AS change
      FROM ledger.transfer t
      JOIN ledger.account d ON d.id = t.debit_account
      JOIN ledger.account c ON c.id = t.credit_account
      LEFT JOIN catalog.publisher p ON p.id = coalesce(c.publisher_id, d.publisher_id)
      LEFT JOIN ledger.correction n ON n.cause_id = t.cause_id
     WHERE t.wallet_id = $1 AND t.created_at >= $2 AND t.created_at < $3
     GROUP BY t.created_at, t.cause_id, t.kind
    HAVING sum(CASE WHEN c.wallet_id = $1 THEN t.amount ELSE 0 END
               - CASE WHEN d.wallet_id = $1 THEN t.amount ELSE 0 END) <> 0
     ORDER BY t.created_at, t.cause_id, t.kind
    """,
    Line,
)
# A publisher's side of a charge is without the platform's fee, and so is that of what undoes it (ledger.posting).
PUBLISHER_ACCOUNTS = Statement(
    """
    SELECT id FROM ledger.account
     WHERE publisher_id = $1 AND asset_id = $2 AND purpose IN ('earnings', 'paying_out', 'penalties')
    """,
    int,
    scalar=True,
)
PUBLISHER_OPENING = Statement(
    """
    SELECT (SELECT coalesce(sum(s.credits - s.debits), 0) FROM ledger.shard s WHERE s.account_id = ANY ($1::bigint[]))
           - coalesce(sum(
                 CASE WHEN t.credit_account <> ALL ($1) THEN 0
                      WHEN t.kind IN ('charge', 'capture', 'payment') THEN t.amount - t.fee ELSE t.amount END
                 - CASE WHEN t.debit_account <> ALL ($1) THEN 0
                        WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN t.amount - t.fee
                        ELSE t.amount END), 0) AS balance,
           (SELECT ledger.moment_of(r.upto) FROM ledger.archive r WHERE r.carried_at > $2
             ORDER BY r.upto DESC LIMIT 1) AS archived
      FROM ledger.transfer t
     WHERE t.created_at >= $2 AND (t.debit_account = ANY ($1) OR t.credit_account = ANY ($1))
    """,
    Opening,
)
PUBLISHER_LINES = Statement(
    """
    WITH line AS (
        SELECT t.created_at, t.cause_id, t.kind, coalesce(w.address, '0x' || encode(x.payer, 'hex')) AS payer,
               CASE WHEN t.credit_account <> ALL ($1::bigint[]) THEN 0
                    WHEN t.kind IN ('charge', 'capture', 'payment') THEN t.amount - t.fee ELSE t.amount END
               - CASE WHEN t.debit_account <> ALL ($1) THEN 0
                      WHEN t.kind IN ('refund', 'reversal', 'repayment') THEN t.amount - t.fee
                      ELSE t.amount END AS change
          FROM ledger.transfer t
          LEFT JOIN ledger.wallet w ON w.id = t.wallet_id
          LEFT JOIN chain.payment x ON x.id = t.cause_id
         WHERE t.created_at >= $2 AND t.created_at < $3
           AND (t.debit_account = ANY ($1) OR t.credit_account = ANY ($1))
    )
    SELECT l.created_at AS at, l.cause_id, l.kind::text AS kind, max(l.payer) AS counterparty, NULL AS description,
           sum(l.change) AS change
      FROM line l
     GROUP BY l.created_at, l.cause_id, l.kind HAVING sum(l.change) <> 0
     ORDER BY l.created_at, l.cause_id, l.kind
    """,
    Line,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose statement it is, by the number of a wallet or those of a publisher's accounts in one asset."""

    key: int | list[int]
    opening: Statement[Opening]
    lines: Statement[Line]


def of_wallet(wallet_id: int) -> Subject:
    """Return a wallet: its lots, what is held of them, and what a dispute has frozen."""
    return Subject(wallet_id, WALLET_OPENING, WALLET_LINES)


async def of_publisher(connection: Connection, publisher_id: UUID, asset_id: UUID) -> Subject:
    """Return a publisher's money in a ledger asset: what it has earned, and what is on its way to it."""
    accounts = await PUBLISHER_ACCOUNTS.all(connection, publisher_id, asset_id)
    return Subject(accounts, PUBLISHER_OPENING, PUBLISHER_LINES)


async def read(
    settings: DatabaseSettings, subject: Subject, since: datetime, until: datetime
) -> AsyncGenerator[Opening | list[Line]]:
    """Yield the opening balance, then all lines of the window, in batches. Raises one of LOST."""
    connection = await connect(settings.model_copy(update={"command_timeout": LONGEST}))
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for setting in (OWN_PACE, BY_INDEX, NO_JIT):
                await setting.run(connection)
            yield await subject.opening.one(connection, subject.key, since)
            async for lines in subject.lines.batches(connection, BATCH, subject.key, since, until):
                yield lines
    finally:
        await connection.close(timeout=5)
