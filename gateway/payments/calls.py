"""Calls that are paid on a chain, as the books see them: an answer kept with its payment, or the money given back.

Each statement is one transaction of the `chain` schema (migration 0016): a call ends with its payment, or neither does.
What does not live here: when which of them is right (billing/x402_per_request.py, proxy/onchain) and the chain (evm/).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast
from uuid import UUID

from gateway.database.pool import Database
from gateway.database.statement import Command, Statement
from gateway.database.together import Together
from gateway.payments.evm.outbox import State

Delivery = tuple[Any, ...]
"""The arguments of chain.deliver, in their order."""
ANSWER = 6
SMALL = 65_536

GivenBack = Literal["cancelled", "repaid", "kept", "failed", "ended", "waiting"]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a payment and of the call that it was for.

    `outcome` is None while the call has no end; `repayment` is the state of the money's way back, if it is on one.
    `amount` is atomic units; addresses and hashes are bytes.
    """

    id: UUID
    network: str
    asset: bytes
    payer: bytes
    payee: bytes
    signature: bytes
    amount: int
    state: State
    reason: str | None
    final: bool
    deferred: bool
    request_hash: bytes | None
    transaction: bytes | None
    outcome: Literal["settled", "refunded"] | None
    repayment: Literal["pending", "broadcast", "confirmed"] | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A payment whose money is to go back, and why; `status` is what the upstream answered, if it did."""

    payment_id: UUID
    reason: str
    status: int | None


_FATE = """
    SELECT p.id, p.network, p.asset, p.payer, p.payee, p.signature, p.amount, p.state::text AS state, p.reason, p.final,
           p.deferred, p.request_hash, p.mined_transaction AS transaction,
           -- What is archived had its end before.
           CASE WHEN s.outcome IS NULL AND p.id < (SELECT upto FROM ledger.archived)
                THEN CASE WHEN r.payment_id IS NULL THEN 'settled' ELSE 'refunded' END
                ELSE s.outcome::text END AS outcome,
           r.state::text AS repayment
      FROM chain.payment p
      LEFT JOIN ledger.settlement s ON s.exchange_id = p.id
      LEFT JOIN chain.repayment r ON r.payment_id = p.id
"""
FATE = Statement(_FATE + " WHERE p.id = $1", Fate)
# By the authorization: one payer's nonce with one contract on one network is one payment.
FATE_BY_NONCE = Statement(
    _FATE + " WHERE p.network = $1 AND p.verifier = ANY ($2::bytea[]) AND p.payer = $3 AND p.nonce = $4", Fate
)
# Many at once, in the order in which they stand.
DELIVER = Statement(
    """
    SELECT chain.deliver(d.id, d.worker_id, d.owner_id, d.key, d.answered, d.headers, d.answer, d.request, d.reason,
                         d.status, d.bytes_in, d.bytes_out, d.method, d.target, d.body, d.amount::numeric,
                         d.fee::numeric, d.endpoint, d.rows)::text
      FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::smallint[], $6::bytea[], $7::bytea[],
                  $8::bytea[], $9::text[], $10::smallint[], $11::bigint[], $12::bigint[], $13::text[], $14::bytea[],
                  $15::bytea[], $16::text[], $17::text[], $18::text[], $19::bigint[])
           WITH ORDINALITY AS d (id, worker_id, owner_id, key, answered, headers, answer, request, reason, status,
                                 bytes_in, bytes_out, method, target, body, amount, fee, endpoint, rows, place)
     ORDER BY d.place
    """,
    str,
    scalar=True,
)
GIVE_BACK = Statement("SELECT chain.give_back($1, $2, $3)", str, scalar=True)
# What a dead worker left: payments of calls without an end. Ids are in the order of time, so the search is short.
ABANDON = Command(
    """
    INSERT INTO chain.undelivered (payment_id, reason)
    SELECT p.id, 'reconciled' FROM chain.payment p
     WHERE p.id >= $2 AND p.worker_id = $1 AND p.booking IN ('earnings', 'direct') AND p.state <> 'cancelled'
       AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = p.id)
    ON CONFLICT DO NOTHING
    """
)
# Those that can be ended now; the others wait for their chain.
FIND_UNDELIVERED = Statement(
    """
    SELECT u.payment_id, u.reason, u.status FROM chain.undelivered u JOIN chain.payment p ON p.id = u.payment_id
     WHERE p.final OR p.state IN ('reserved', 'pending', 'confirmed', 'cancelled') ORDER BY u.made_at LIMIT $1
    """,
    Undelivered,
)


class Deliveries:
    """Keeps answers with their payments, those that are ready at the same time together. One per worker."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._together = Together(self._keep, lock=lambda row: row[0], limit=32)

    async def keep(self, row: Delivery) -> State:
        """Keep one (chain.deliver) and return the payment's state; `cancelled`: nothing was written. Idempotent.

        Raises Unavailable.
        """
        answer = row[ANSWER]
        if answer is not None and len(answer) > SMALL:  # a batch of large ones would be a large statement
            return (await self._keep([row]))[0]
        return await self._together.ask(row)

    async def _keep(self, rows: Sequence[Delivery]) -> list[State]:
        columns = [list(column) for column in zip(*rows, strict=True)]
        states = await self._database.read(lambda connection: DELIVER.all(connection, *columns))
        return cast("list[State]", states)
