"""Payouts on a chain: which can be sent now, and what became of those that were.

A payout is a plain token transfer of our key, so nothing but our own books keeps it from being made twice. Two rules
do: it takes a nonce once, and while that nonce's transaction could still be mined it is never given another. Whether it
was paid is read from the receipt of a block that is final, so no fork can undo what is booked.

What does not live here: who may ask for a payout, and for how much (gateway/billing/payouts.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

from gateway.audit.entries import record
from gateway.database.pool import LOST as LOST_CONNECTION
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.faults import ARMED, act
from gateway.payments.evm.encoding import call_data, show_address, word
from gateway.payments.evm.fees import RelayPolicy, gas_limit
from gateway.payments.evm.instructions import TRANSFER, TRANSFERRED, Instruction
from gateway.payments.evm.node import Block, Log, Node, Receipt
from gateway.payments.evm.reasons import reverted
from gateway.payments.evm.rpc import NoAnswer, NodeRefused, RpcError
from gateway.payments.evm.transaction import Call

log = logging.getLogger(__name__)

State = Literal["queued", "processing", "completed", "failed", "cancelled"]
RETRIES = 5  # transfers that the token refuses, before the money goes back to the earnings
LOOKS = 3  # at a nonce that was lost, each with another newest block, before nobody of ours can have used it
SHORT = "The treasury on {network} has less of the token than this payout needs. It is sent when there is enough."
REFUSED = "The token refuses the transfer to this address. It is tried {times} times, then the money goes back."
GIVEN_UP = "The token has refused the transfer to this address {times} times. The money is back in the earnings."
REVERTED = "Its transaction failed on the chain and moved nothing. It is sent again."
LOST = "Its place was taken by a transaction that is not ours. Nothing was moved; it is sent again."


@dataclass(frozen=True, slots=True)
class Payout:
    """One payout as the relayer sees it. Amounts are atomic units; addresses and hashes are bytes."""

    id: UUID
    organization_id: UUID
    publisher_id: UUID
    network: str
    token: bytes
    destination: bytes
    amount: int
    state: State
    reason: str | None
    unapproved: bool
    tries: int
    sending_id: int | None
    sending_status: str | None
    nonce: int | None
    mined_transaction: bytes | None
    block_hash: bytes | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many payouts are `queued`, `delayed`, `short` of money or wait for an `approval`; the age of the oldest."""

    state: str
    number: int
    oldest: int


@dataclass(frozen=True, slots=True)
class _UnderWay:
    token: bytes
    amount: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


_PAYOUT = """
    SELECT p.id, p.organization_id, p.publisher_id, p.network, p.token, p.destination, p.amount, p.state, p.reason,
           p.state = 'queued' AND p.needs_approval AND p.approved_by IS NULL AS unapproved, p.tries, p.sending_id,
           s.status AS sending_status, s.nonce, s.mined_transaction, s.block_hash
      FROM chain.payout p LEFT JOIN chain.sending s ON s.id = p.sending_id
"""
FIND_PAYOUT = Statement(_PAYOUT + " WHERE p.id = $1", Payout)
OPEN_PAYOUTS = Statement(_PAYOUT + " WHERE p.state IN ('queued', 'processing') ORDER BY p.id LIMIT $1", Payout)
COUNTS = Statement(
    """
    SELECT state, count(*) AS number, extract(epoch FROM now() - min(since))::bigint AS oldest FROM (
        SELECT CASE WHEN p.state = 'processing' THEN 'processing'
                    WHEN p.needs_approval AND p.approved_by IS NULL THEN 'approval'
                    WHEN p.free_at > now() THEN 'delayed'
                    WHEN p.reason = $2 THEN 'short' ELSE 'queued' END AS state,
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
       AND p.check_at <= now() AND p.free_at <= now()
     ORDER BY p.id LIMIT $2
    """,
    Payout,
)
CARRY_PAYOUT = Command(
    """
    UPDATE chain.payout SET state = 'processing', sending_id = $2, reason = NULL
     WHERE id = $1 AND state = 'queued' AND (NOT needs_approval OR approved_by IS NOT NULL) AND free_at <= now()
    """
)
WAIT = Command(
    """
    UPDATE chain.payout SET reason = $2, tries = tries + $3::integer, check_at = now() + $4::interval
     WHERE id = $1 AND state = 'queued'
    """
)
RETRY = Command("UPDATE chain.payout SET tries = 0, check_at = now() WHERE id = $1 AND state = 'queued'")
# What our own transactions that are not in a block yet will take from the key's tokens.
UNDER_WAY = Statement(
    """
    SELECT token, sum(amount) AS amount FROM (
        SELECT p.token, p.amount FROM chain.payout p JOIN chain.sending s ON s.id = p.sending_id
         WHERE p.network = $1 AND p.state = 'processing' AND s.status = 'open'
        UNION ALL
        SELECT p.asset, p.amount FROM chain.repayment r
          JOIN chain.payment p ON p.id = r.payment_id JOIN chain.sending s ON s.id = r.sending_id
         WHERE p.network = $1 AND r.state = 'broadcast' AND s.status = 'open') w
     GROUP BY token
    """,
    _UnderWay,
)
ENDING = Statement(
    _PAYOUT + " WHERE p.network = $1 AND p.state = 'processing' AND s.status IN ('final', 'lost') ORDER BY p.id",
    Payout,
)
HASHES = Statement("SELECT hash FROM chain.attempt WHERE sending_id = $1", bytes, scalar=True)
COMPLETE = Statement("SELECT chain.complete_payout($1, $2)", bool, scalar=True)
RETURN = Statement("SELECT chain.return_payout($1, $2, $3)", bool, scalar=True)
SEND_AGAIN = Command(
    """
    UPDATE chain.payout SET state = 'queued', sending_id = NULL, reason = $3, tries = tries + 1, check_at = now()
     WHERE id = $1 AND state = 'processing' AND sending_id = $2
    """
)


class Payouts:
    """The payouts of one key on one network. Called by the relayer's round, over the connection that holds its lock."""

    def __init__(self, network: str, node: Node, sender: bytes, policy: RelayPolicy) -> None:
        self._network = network
        self._node = node
        self._sender = sender
        self._policy = policy
        self._looks: dict[UUID, set[bytes]] = {}

    async def plan(self, connection: Connection, waiting: Sequence[Payout]) -> list[tuple[UUID, Call]]:
        """Return the transfers of these that can be sent now, the oldest first.

        What the treasury cannot pay waits, and does not hold up smaller ones behind it.
        """
        if not waiting:
            return []
        left = await self._left(connection, {one.token for one in waiting})
        covered: list[Payout] = []
        for one in waiting:
            if left[one.token] < one.amount:
                await self._put_off(connection, one, SHORT.format(network=self._network), tried=0)
            else:
                left[one.token] -= one.amount
                covered.append(one)
        estimates = await self._node.estimate(self._sender, [transfer(one) for one in covered])
        calls: list[tuple[UUID, Call]] = []
        for one, estimate in zip(covered, estimates, strict=True):
            if isinstance(estimate, int) and gas_limit(estimate) <= self._policy.max_gas:
                calls.append((one.id, Call(*transfer(one), gas_limit(estimate))))
            elif isinstance(estimate, int) or (isinstance(estimate, NodeRefused) and reverted(estimate)):
                await self._refused(connection, one)
        return calls

    async def follow(self, connection: Connection, head: Block) -> None:
        """End payouts whose transaction is final, and send those again whose nonce something else has taken for good.

        One that cannot be ended now is looked at again with the next block, and holds up nothing else.
        """
        for one in await ENDING.all(connection, self._network):
            try:
                if one.sending_status == "final":
                    await self._end(connection, one)
                else:
                    await self._end_lost(connection, head, one)
            except LOST_CONNECTION:
                raise
            except RpcError as silent:
                log.info("payout %s is looked at again later: %s", one.id, silent)
            except Exception:
                log.exception("payout %s on %s cannot be dealt with", one.id, self._network)

    async def _left(self, connection: Connection, tokens: set[bytes]) -> dict[bytes, int]:
        """Return how much of each token our key can still pay, beside what it is paying already."""
        left: dict[bytes, int] = {}
        for token in tokens:
            try:
                left[token] = await self._node.token_balance(token, self._sender)
            except NodeRefused:  # no token, or none that works: nothing else waits for it
                left[token] = 0
        for one in await UNDER_WAY.all(connection, self._network):
            if one.token in left:
                left[one.token] -= one.amount
        return left

    async def _put_off(self, connection: Connection, one: Payout, reason: str, *, tried: int) -> None:
        pause = self._policy.payout_seconds * (1 << min(one.tries, 6) if tried else 1)
        await WAIT.run(connection, one.id, reason, tried, timedelta(seconds=pause))

    async def _refused(self, connection: Connection, one: Payout) -> None:
        """Ask a token that refuses (a blocked address, a pause) some more times; nothing was sent, so it may end."""
        if one.tries + 1 < RETRIES:
            await self._put_off(connection, one, REFUSED.format(times=RETRIES), tried=1)
            return
        reason = GIVEN_UP.format(times=RETRIES)
        async with connection.transaction():
            if await RETURN.one(connection, one.id, "failed", reason):
                await record(connection, "payout.fail", one.organization_id, one.id, details=told(one, reason=reason))
        log.warning("payout %s on %s has failed: %s", one.id, self._network, reason)

    async def _end(self, connection: Connection, one: Payout) -> None:
        if ARMED == "payout.final":
            await act()
        if one.mined_transaction is None:
            raise LookupError(f"the transaction of payout {one.id} is final and has no hash")
        receipt = (await self._node.receipts([one.mined_transaction]))[0]
        if not isinstance(receipt, Receipt) or receipt.block_hash != one.block_hash:
            raise NoAnswer(f"no receipt for the final transaction of payout {one.id}")
        await self._judge(connection, one, receipt)

    async def _end_lost(self, connection: Connection, head: Block, one: Payout) -> None:
        """Send it again once something else has used our nonce for good: no fork gives it back, after several looks."""
        deep = head.number - self._policy.finality
        if one.nonce is None or one.sending_id is None or deep < 0:
            return
        if await self._node.nonce_at(self._sender, deep) <= one.nonce:
            return  # by a block that may still be forked away
        receipts = await self._node.receipts(await HASHES.all(connection, one.sending_id))
        ours = next((found for found in receipts if isinstance(found, Receipt)), None)
        if ours is not None:  # a node that lagged behind had not heard of it
            if ours.block_number <= deep:
                await self._judge(connection, one, ours)
        elif not any(isinstance(found, RpcError) for found in receipts):
            seen = self._looks.setdefault(one.id, set())
            seen.add(head.hash)
            if len(seen) >= LOOKS:
                del self._looks[one.id]
                log.error("payout %s on %s is sent again: %s", one.id, self._network, LOST)
                await SEND_AGAIN.run(connection, one.id, one.sending_id, LOST)

    async def _judge(self, connection: Connection, one: Payout, receipt: Receipt) -> None:
        """Book what a transaction in a final block has paid, or have it sent again when that was nothing."""
        if not (receipt.succeeded and paid(one, self._sender, receipt.logs)):
            log.error("payout %s on %s is sent again: %s", one.id, self._network, REVERTED)
            await SEND_AGAIN.run(connection, one.id, one.sending_id, REVERTED)
            return
        details = told(one, transaction="0x" + receipt.transaction.hex())
        async with connection.transaction():
            if await COMPLETE.one(connection, one.id, receipt.transaction):
                await record(connection, "payout.complete", one.organization_id, one.id, details=details)
        if ARMED == "payout.completed":
            await act()


def transfer(one: Payout) -> Instruction:
    """Return the call that pays it, from whoever sends it."""
    return one.token, call_data(TRANSFER, one.destination, one.amount)


def paid(one: Payout, sender: bytes, logs: Sequence[Log]) -> bool:
    """Say whether a successful transaction of `sender` has paid it."""
    topics = (TRANSFERRED, word(sender), word(one.destination))
    return any(log.address == one.token and log.topics == topics and log.data == word(one.amount) for log in logs)


def told(one: Payout, **more: str) -> dict[str, object]:
    """Return what the audit log and webhooks say of a payout."""
    return {
        "publisher_id": str(one.publisher_id), "amount_atomic": str(one.amount), "network": one.network,
        "token": show_address(one.token), "destination_wallet": show_address(one.destination), **more,
    }  # fmt: skip
