"""Repayments on a chain: a payment that was settled before its call failed goes back to its payer.

They are owed until they are sent: none is ever given up. What does not live here: how none is ever sent twice
(transfers.py).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.payments.evm.transfers import Transfer, Transfers

log = logging.getLogger(__name__)

State = Literal["pending", "broadcast", "confirmed"]
SHORT = "the key has {short} (atomic) too little of the token"
REFUSED = "the token refuses it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repayment(Transfer):
    """One repayment as the relayer sees it; its `id` is that of the payment. `trouble`: why it is not sent."""

    state: State
    trouble: str | None


_REPAYMENT = """
    SELECT p.id, p.network, p.asset AS token, p.payer AS destination, p.amount, r.state::text AS state, r.trouble,
           r.sending_id, s.status AS sending_status, s.sender, s.nonce, s.mined_transaction, s.block_hash
      FROM chain.repayment r
      JOIN chain.payment p ON p.id = r.payment_id
      LEFT JOIN chain.sending s ON s.id = r.sending_id
"""
# One waits until the payment that it returns cannot be undone any more.
REPAYABLE = Statement(
    _REPAYMENT
    + """
     WHERE p.network = $1 AND p.payee = $2 AND r.state = 'pending' AND p.final AND r.check_at <= now()
     ORDER BY r.made_at LIMIT $3
    """,
    Repayment,
)
FIND_REPAYMENT = Statement(_REPAYMENT + " WHERE r.payment_id = $1", Repayment)
OPEN_REPAYMENTS = Statement(_REPAYMENT + " WHERE r.state <> 'confirmed' ORDER BY r.made_at LIMIT $1", Repayment)
CARRY_REPAYMENT = Command(
    """
    UPDATE chain.repayment SET state = 'broadcast', sending_id = $2, trouble = NULL
     WHERE payment_id = $1 AND state = 'pending'
    """
)
WAIT = Command(
    """
    UPDATE chain.repayment SET trouble = $2, check_at = now() + $3::interval WHERE payment_id = $1 AND state = 'pending'
    """
)
ENDING = Statement(
    _REPAYMENT + " WHERE p.network = $1 AND r.state = 'broadcast' AND s.status IN ('final', 'lost') ORDER BY r.made_at",
    Repayment,
)
REPAID = Command("SELECT chain.repaid($1)")
SEND_AGAIN = Command(
    """
    UPDATE chain.repayment SET state = 'pending', sending_id = NULL, trouble = $3, check_at = now()
     WHERE payment_id = $1 AND state = 'broadcast' AND sending_id = $2
    """
)


class Repayments(Transfers[Repayment]):
    """The repayments of one key on one network."""

    what = "repayment"

    async def _ending(self, connection: Connection) -> list[Repayment]:
        return await ENDING.all(connection, self._network)

    async def _book(self, connection: Connection, one: Repayment, transaction: bytes) -> None:
        await REPAID.run(connection, one.id)

    async def _again(self, connection: Connection, one: Repayment, reason: str) -> None:
        await SEND_AGAIN.run(connection, one.id, one.sending_id, reason)

    async def _put_off(self, connection: Connection, one: Repayment, short: int) -> None:
        await self._wait(connection, one, SHORT.format(short=short))

    async def _refused(self, connection: Connection, one: Repayment) -> None:
        await self._wait(connection, one, REFUSED)

    async def _wait(self, connection: Connection, one: Repayment, why: str) -> None:
        """Leave it alone for a while, and say once why."""
        if one.trouble != why:
            log.error("payment %s on %s cannot be returned: %s", one.id, self._network, why)
        await WAIT.run(connection, one.id, why, timedelta(seconds=self._policy.payout_seconds))
