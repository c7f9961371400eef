"""Plain token transfers of our own key, payouts and repayments: which can be sent now, and what became of the others.

Nothing but our own books keeps such a transfer from being made twice. Two rules do: it takes a nonce once, and while
that nonce's transaction could still be mined it is never given another. Whether it was made is read from the receipt of
a block that is final, so no fork can undo what is booked.

What does not live here: the rows and bookings of each kind (payouts.py, repayments.py).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar
from uuid import UUID

from gateway.database.pool import LOST as LOST_CONNECTION
from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.faults import ARMED, act
from gateway.payments.evm.encoding import call_data, word
from gateway.payments.evm.fees import RelayPolicy, gas_limit
from gateway.payments.evm.instructions import TRANSFER, TRANSFERRED, Instruction
from gateway.payments.evm.node import Block, Log, Node, Receipt
from gateway.payments.evm.reasons import reverted
from gateway.payments.evm.rpc import NoAnswer, NodeRefused, RpcError
from gateway.payments.evm.transaction import Call

log = logging.getLogger(__name__)

LOOKS = 3  # at a nonce that was lost, each with another newest block, before nobody of ours can have used it
REVERTED = "Its transaction failed on the chain and moved nothing. It is sent again."
LOST = "Its place was taken by a transaction that is not ours. Nothing was moved; it is sent again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One transfer as the relayer sees it. Amounts are atomic units; addresses and hashes are bytes.

    The key that has signed it is `sender`, which is not ours any more when that was changed meanwhile.
    """

    id: UUID
    network: str
    token: bytes
    destination: bytes
    amount: int
    sending_id: int | None
    sending_status: str | None
    sender: bytes | None
    nonce: int | None
    mined_transaction: bytes | None
    block_hash: bytes | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))

    @property
    def call(self) -> Instruction:
        """Return the call that makes it, from whoever sends it."""
        return self.token, call_data(TRANSFER, self.destination, self.amount)

    def made_by(self, logs: Sequence[Log]) -> bool:
        """Say whether a successful transaction of its sender has made it. Raises ValueError when it did something else.

        A token that says nothing has moved nothing. One that took a fee, say, has moved something: that is neither.
        """
        sent = [one for one in logs if one.address == self.token and one.topics[:2] == (TRANSFERRED, word(self.signer))]
        if not sent:
            return False
        if [(one.topics[2:], one.data) for one in sent] != [((word(self.destination),), word(self.amount))]:
            raise ValueError("the token moved something else than it was told: look at the transaction")
        return True

    @property
    def signer(self) -> bytes:
        """Return whose nonce it has. Raises LookupError while it has none."""
        if self.sender is None:
            raise LookupError("it has no nonce")
        return self.sender


@dataclass(frozen=True, slots=True)
class _UnderWay:
    token: bytes
    amount: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))


# What our own transactions that are not in a block yet will take from the key's tokens.
UNDER_WAY = Statement(
    """
    SELECT w.token, sum(w.amount) AS amount FROM (
        SELECT p.token, p.amount, p.sending_id FROM chain.payout p WHERE p.network = $1 AND p.state = 'processing'
        UNION ALL
        SELECT p.asset, p.amount, r.sending_id FROM chain.repayment r JOIN chain.payment p ON p.id = r.payment_id
         WHERE p.network = $1 AND r.state = 'broadcast') w
      JOIN chain.sending s ON s.id = w.sending_id
     WHERE s.sender = $2 AND s.status IN ('open', 'lost')
     GROUP BY w.token
    """,
    _UnderWay,
)
HASHES = Statement("SELECT hash FROM chain.attempt WHERE sending_id = $1", bytes, scalar=True)


async def funds(
    connection: Connection, node: Node, network: str, key: bytes, tokens: set[bytes]
) -> dict[bytes, int]:  # fmt: skip
    """Return how much of each token a key can still send, beside what it is sending already. Raises NoAnswer."""
    left: dict[bytes, int] = {}
    for token in tokens:
        try:
            left[token] = await node.token_balance(token, key)
        except NodeRefused:  # no token, or none that works: nothing else waits for it
            left[token] = 0
    for one in await UNDER_WAY.all(connection, network, key):
        if one.token in left:
            left[one.token] -= one.amount
    return left


Kind = TypeVar("Kind", bound=Transfer)


class Transfers(ABC, Generic[Kind]):
    """One kind of transfer on one network. Called by the relayer's round, over the connection that holds its lock."""

    what: ClassVar[str]

    def __init__(self, network: str, node: Node, sender: bytes, policy: RelayPolicy) -> None:
        self._network = network
        self._node = node
        self._sender = sender
        self._policy = policy
        self._looks: dict[UUID, set[bytes]] = {}

    async def plan(
        self, connection: Connection, waiting: Sequence[Kind], left: dict[bytes, int]
    ) -> list[tuple[UUID, Call]]:
        """Return those of these that can be sent now, in their order, and take them from what is `left` of each token.

        What there is too little for waits, and does not hold up smaller ones behind it.
        """
        covered: list[Kind] = []
        for one in waiting:
            if left[one.token] < one.amount:
                await self._put_off(connection, one, one.amount - max(left[one.token], 0))
            else:
                left[one.token] -= one.amount
                covered.append(one)
        calls: list[tuple[UUID, Call]] = []
        estimates = await self._node.estimate(self._sender, [one.call for one in covered])
        for one, estimate in zip(covered, estimates, strict=True):
            if isinstance(estimate, int) and gas_limit(estimate) <= self._policy.max_gas:
                calls.append((one.id, Call(*one.call, gas_limit(estimate))))
            elif isinstance(estimate, int) or (isinstance(estimate, NodeRefused) and reverted(estimate)):
                await self._refused(connection, one)
        return calls

    async def follow(self, connection: Connection, head: Block) -> None:
        """End those whose transaction is final, and send those again whose nonce something else has taken for good.

        One that cannot be ended now is looked at again with the next block, and holds up nothing else.
        """
        for one in await self._ending(connection):
            try:
                if one.sending_status == "final":
                    await self._end(connection, one)
                else:
                    await self._end_lost(connection, head, one)
            except LOST_CONNECTION:
                raise
            except RpcError as silent:
                log.info("%s %s is looked at again later: %s", self.what, one.id, silent)
            except Exception:
                log.exception("%s %s on %s cannot be dealt with", self.what, one.id, self._network)

    @abstractmethod
    async def _ending(self, connection: Connection) -> list[Kind]:
        """Return those whose transaction is final or lost."""

    @abstractmethod
    async def _book(self, connection: Connection, one: Kind, transaction: bytes) -> None:
        """Book one that was made, unless it is booked."""

    @abstractmethod
    async def _again(self, connection: Connection, one: Kind, reason: str) -> None:
        """Let it take another nonce: the one that it had can never make it."""

    @abstractmethod
    async def _put_off(self, connection: Connection, one: Kind, short: int) -> None:
        """Let one wait that the key has `short` too little for."""

    @abstractmethod
    async def _refused(self, connection: Connection, one: Kind) -> None:
        """Deal with one that its token refuses; nothing was sent."""

    async def _end(self, connection: Connection, one: Kind) -> None:
        if f"{self.what}.final" == ARMED:
            await act()
        if one.mined_transaction is None:
            raise LookupError(f"the transaction of {self.what} {one.id} is final and has no hash")
        receipt = (await self._node.receipts([one.mined_transaction]))[0]
        if not isinstance(receipt, Receipt) or receipt.block_hash != one.block_hash:
            raise NoAnswer(f"no receipt for the final transaction of {self.what} {one.id}")
        await self._judge(connection, one, receipt)

    async def _end_lost(self, connection: Connection, head: Block, one: Kind) -> None:
        """Send it again once something else has used our nonce for good: no fork gives it back, after several looks."""
        deep = head.number - self._policy.finality
        if one.nonce is None or deep < 0:
            return
        if await self._node.nonce_at(one.signer, deep) <= one.nonce:
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
                await self._send_again(connection, one, LOST)

    async def _judge(self, connection: Connection, one: Kind, receipt: Receipt) -> None:
        """Book what a transaction in a final block has made, or have it sent again when that was nothing."""
        if not (receipt.succeeded and one.made_by(receipt.logs)):
            await self._send_again(connection, one, REVERTED)
            return
        await self._book(connection, one, receipt.transaction)
        if f"{self.what}.completed" == ARMED:
            await act()

    async def _send_again(self, connection: Connection, one: Kind, reason: str) -> None:
        log.error("%s %s on %s is sent again: %s", self.what, one.id, self._network, reason)
        await self._again(connection, one, reason)
