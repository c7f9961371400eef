"""What the ledger is asked to write on the hot path: charges and settlements, and the statements that take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.ledger.counters import Counter, counter_columns
from gateway.ledger.exchanges import ChargeVerdict

POST_CHARGES = Statement(
    """
    SELECT verdict, available, deposit, promotional, funded, kind, counted
      FROM ledger.post_charges($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::text[]::numeric[],
                               $6::text[]::numeric[], $7, $8::uuid[], $9::text[], $10::smallint[], $11::bigint[],
                               $12::bigint[], $13::text[], $14::bytea[], $15::bytea[], $18::uuid[], $19::integer[],
                               $20::uuid[], $21::uuid[], $22::text[], $23::date[], $24::text[]::numeric[],
                               $25::boolean[], $26::text[]::numeric[], $27::text[]::numeric[], $16::text[],
                               $17::bigint[])
    """,
    ChargeVerdict,
)
SETTLE = Command(
    """
    SELECT ledger.settle($1::uuid[], $2::text[], $3::smallint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[],
                         $8::bytea[], false, $9::text[], $10::bigint[])
    """
)


@dataclass(frozen=True, slots=True)
class Charge:
    """One fixed-price charge. Amounts are atomic units of the wallet's asset; `fee` is part of `amount`.

    One of nothing (`amount` 0) is only counted, so it must have counters; its wallet is not looked at.
    """

    exchange_id: UUID
    wallet_id: int
    publisher_id: UUID
    account_id: int
    amount: int
    fee: int
    counters: tuple[Counter, ...] = ()

    def __post_init__(self) -> None:
        if not self.amount and not self.counters:
            raise ValueError("a charge of nothing that counts nothing")


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an exchange ended without a refund, and what its receipt will say: sizes are body bytes either way.

    `target_hash` is the sha256 of the request target as sent, `body_hash` that of the response body as delivered.
    `endpoint` is what was called by its documented name, None when it has none; `rows` are those of a database's
    answer.
    """

    exchange_id: UUID
    reason: str
    status: int | None
    bytes_in: int
    bytes_out: int
    method: str | None = None
    target_hash: bytes | None = None
    body_hash: bytes | None = None
    endpoint: str | None = None
    rows: int | None = None


async def post(
    connection: Connection, charges: Sequence[Charge], worker_id: int | None, ends: list[Settlement]
) -> list[ChargeVerdict]:
    """Post charges and ends in one transaction and return a verdict for each charge, in order."""
    paid = [charge for charge in charges if charge.amount]
    free = [charge for charge in charges if not charge.amount]
    verdicts = await POST_CHARGES.all(
        connection,
        [charge.exchange_id for charge in paid],
        [charge.wallet_id for charge in paid],
        [charge.publisher_id for charge in paid],
        [charge.account_id for charge in paid],
        [str(charge.amount) for charge in paid],
        [str(charge.fee) for charge in paid],
        worker_id,
        *settlement_columns(ends),
        [charge.exchange_id for charge in free],
        *counter_columns([(charge.amount, charge.counters) for charge in (*paid, *free)]),
    )
    if not free:
        return verdicts
    of_paid, of_free = iter(verdicts[: len(paid)]), iter(verdicts[len(paid) :])
    return [next(of_paid if charge.amount else of_free) for charge in charges]


def settlement_columns(ends: list[Settlement]) -> tuple[list[Any], ...]:
    """Return settlements as the arrays that the ledger's functions take."""
    return (
        [end.exchange_id for end in ends],
        [end.reason for end in ends],
        [end.status for end in ends],
        [end.bytes_in for end in ends],
        [end.bytes_out for end in ends],
        [end.method for end in ends],
        [end.target_hash for end in ends],
        [end.body_hash for end in ends],
        [end.endpoint for end in ends],
        [end.rows for end in ends],
    )
