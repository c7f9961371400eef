"""Corrections of a wallet's balance as the ledger has them: credit or debit, of paid or of promotional money.

Who may correct, and who has to be asked before, is gateway/operators/'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.ids import uuid7

Direction = Literal["credit", "debit"]
Money = Literal["paid", "promotional"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `ledger.correct` did; `available` is what a debit could have taken."""

    verdict: Literal["corrected", "repeated", "differs", "short"]
    cause_id: UUID | None
    available: int | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "available", None if self.available is None else int(self.available))


@dataclass(frozen=True, slots=True)
class Correction:
    """A correction that was booked. `amount` is atomic units."""

    id: UUID
    wallet: str
    reference: str
    direction: Direction
    money: Money
    amount: int
    expires_at: datetime | None
    reason: str
    corrected_by: str
    approved_by: str | None
    created_at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


CORRECT = Statement(
    "SELECT verdict, cause_id, available FROM ledger.correct($1, $2, $3, $4, $5, $6::text::numeric, $7, $8, $9, $10)",
    Outcome,
)
_CORRECTION = """
    SELECT c.cause_id AS id, w.address AS wallet, c.reference, c.direction, c.money, c.amount, c.expires_at, c.reason,
           c.corrected_by, c.approved_by, c.created_at
      FROM ledger.correction c JOIN ledger.wallet w ON w.id = c.wallet_id
"""
FIND_CORRECTION = Statement(_CORRECTION + " WHERE c.cause_id = $1", Correction)
FIND_BY_REFERENCE = Statement(_CORRECTION + " WHERE c.wallet_id = $1 AND c.reference = $2", Correction)
LIST_CORRECTIONS = Statement(
    _CORRECTION + " WHERE c.wallet_id = $1 ORDER BY c.created_at DESC, c.cause_id DESC LIMIT $2 OFFSET $3", Correction
)


async def correct(
    connection: Connection,
    wallet_id: int,
    *,
    reference: str,
    direction: Direction,
    money: Money,
    amount: int,
    expires_at: datetime | None,
    reason: str,
    operator: str,
    approved_by: str | None = None,
) -> Outcome:
    """Credit or debit a wallet once per reference; `amount` > 0 in atomic units. A debit takes all of it or nothing."""
    return await CORRECT.one(
        connection, uuid7(), wallet_id, reference, direction, money, str(amount), expires_at, reason, operator,
        approved_by,
    )  # fmt: skip
