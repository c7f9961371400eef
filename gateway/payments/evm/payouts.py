"""Payouts on a chain: their rows, their bookings, and how long one that cannot be sent is tried.

What does not live here: how none is ever paid twice (transfers.py); who may ask for one, and for how much
(gateway/billing/payouts.py).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

from gateway.audit.entries import record
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.transfers import Transfer, Transfers
from pricing.money import format_amount

log = logging.getLogger(__name__)

State = Literal["queued", "processing", "completed", "failed", "cancelled"]
RETRIES = 5  # transfers that the token refuses, before the money goes back to the earnings
SHORT = "The treasury on {network} has {short} {symbol} too little for this payout. It is sent when there is enough."
REFUSED = "The token refuses the transfer to this address. It is tried {times} times, then the money goes back."
GIVEN_UP = "The token has refused the transfer to this address {times} times. The money is back in the earnings."


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout(Transfer):
    """One payout as the relayer sees it. The treasury had `short` too little for it at the last look."""

    organization_id: UUID
    publisher_id: UUID
    symbol: str
    decimals: int
    state: State
    reason: str | None
    short: int | None
    unapproved: bool
    tries: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many payouts are `queued`, `delayed`, `short` of money or wait for an `approval`; the age of the oldest."""

    state: str
    number: int
    oldest: int


_PAYOUT = """
    SELECT p.id, p.organization_id, p.publisher_id, p.network, p.token, a.symbol, a.decimals, p.destination, p.amount,
           p.state, CASE WHEN p.state = 'queued' AND NOT chain.may_pay_out(p.publisher_id, p.destination)
                         THEN 'suspended' ELSE p.reason END AS reason,
           p.short, p.state = 'queued' AND p.needs_approval AND p.approved_by IS NULL AS unapproved,
           p.tries, p.sending_id, s.status AS sending_status, s.sender, s.nonce, s.mined_transaction, s.block_hash
      FROM chain.payout p JOIN catalog.asset a ON a.id = p.asset_id LEFT JOIN chain.sending s ON s.id = p.sending_id
"""
FIND_PAYOUT = Statement(_PAYOUT + " WHERE p.id = $1", Payout)
OPEN_PAYOUTS = Statement(_PAYOUT + " WHERE p.state IN ('queued', 'processing') ORDER BY p.id LIMIT $1", Payout)
COUNTS = Statement(
    """
    SELECT state, count(*) AS number, extract(epoch FROM now() - min(since))::bigint AS oldest FROM (
        SELECT CASE WHEN p.state = 'processing' THEN 'processing'
                    WHEN p.needs_approval AND p.approved_by IS NULL THEN 'approval'
                    WHEN p.free_at > now() THEN 'delayed'
                    WHEN p.short IS NOT NULL THEN 'short' ELSE 'queued' END AS state,
               greatest(coalesce(p.approved_at, p.requested_at), p.free_at) AS since
          FROM chain.payout p WHERE p.network = $1 AND p.state IN ('queued', 'processing')) o
     GROUP BY state
    """,
    Waiting,
)
PAYABLE = Statement(
    _PAYOUT
    + """
     WHERE p.network = $1 AND p.state = 'queued' AND (NOT p.needs_approval OR p.approved_by IS NOT NULL)
       AND p.check_at <= now() AND p.free_at <= now() AND chain.may_pay_out(p.publisher_id, p.destination)
     ORDER BY p.id LIMIT $2
    """,
    Payout,
)
CARRY_PAYOUT = Command(
    """
    UPDATE chain.payout SET state = 'processing', sending_id = $2, reason = NULL, short = NULL
     WHERE id = $1 AND state = 'queued' AND (NOT needs_approval OR approved_by IS NOT NULL) AND free_at <= now()
       AND chain.may_pay_out(publisher_id, destination)
    """
)
WAIT = Command(
    """
    UPDATE chain.payout
       SET reason = $2, short = $3::text::numeric, tries = tries + $4::integer, check_at = now() + $5::interval
     WHERE id = $1 AND state = 'queued'
    """
)
RETRY = Command("UPDATE chain.payout SET tries = 0, check_at = now() WHERE id = $1 AND state = 'queued'")
ENDING = Statement(
    _PAYOUT + " WHERE p.network = $1 AND p.state = 'processing' AND s.status IN ('final', 'lost') ORDER BY p.id",
    Payout,
)
COMPLETE = Statement("SELECT chain.complete_payout($1, $2)", bool, scalar=True)
RETURN = Statement("SELECT chain.return_payout($1, $2, $3)", bool, scalar=True)
SEND_AGAIN = Command(
    """
    UPDATE chain.payout SET state = 'queued', sending_id = NULL, reason = $3, tries = tries + 1, check_at = now()
     WHERE id = $1 AND state = 'processing' AND sending_id = $2
    """
)


class Payouts(Transfers[Payout]):
    """The payouts of one key on one network."""

    what = "payout"

    async def _ending(self, connection: Connection) -> list[Payout]:
        return await ENDING.all(connection, self._network)

    async def _book(self, connection: Connection, one: Payout, transaction: bytes) -> None:
        details = told(one, transaction="0x" + transaction.hex())
        async with connection.transaction():
            if await COMPLETE.one(connection, one.id, transaction):
                await record(connection, "payout.complete", one.organization_id, one.id, details=details)

    async def _again(self, connection: Connection, one: Payout, reason: str) -> None:
        await SEND_AGAIN.run(connection, one.id, one.sending_id, reason)

    async def _put_off(self, connection: Connection, one: Payout, short: int) -> None:
        reason = SHORT.format(network=self._network, short=format_amount(short, one.decimals), symbol=one.symbol)
        await WAIT.run(connection, one.id, reason, str(short), 0, self._pause(0))

    async def _refused(self, connection: Connection, one: Payout) -> None:
        """Ask a token that refuses (a blocked address, a pause) some more times; nothing was sent, so it may end."""
        if one.tries + 1 < RETRIES:
            await WAIT.run(connection, one.id, REFUSED.format(times=RETRIES), None, 1, self._pause(one.tries))
            return
        reason = GIVEN_UP.format(times=RETRIES)
        async with connection.transaction():
            if await RETURN.one(connection, one.id, "failed", reason):
                await record(connection, "payout.fail", one.organization_id, one.id, details=told(one, reason=reason))
        log.warning("payout %s on %s has failed: %s", one.id, self._network, reason)

    def _pause(self, tries: int) -> timedelta:
        return timedelta(seconds=self._policy.payout_seconds * (1 << min(tries, 6)))


def told(one: Payout, **more: str) -> dict[str, object]:
    """Return what the audit log and webhooks say of a payout."""
    return {
        "publisher_id": str(one.publisher_id), "amount_atomic": str(one.amount), "network": one.network,
        "token": show_address(one.token), "destination_wallet": show_address(one.destination), **more,
    }  # fmt: skip
