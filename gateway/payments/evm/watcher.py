"""The watching half of the relayer: what became of transactions and authorizations, and what follows for the money.

The chain is the only witness. A payment is confirmed by the logs of a mined transaction, ours or anybody's; it has
failed for good only when its authorization is unused in a block that is final and past its validity. Until then it is
looked at again, because whoever has seen the authorization may still execute it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from gateway.database.pool import LOST, Connection
from gateway.faults import ARMED, act
from gateway.payments.evm import reasons
from gateway.payments.evm.evidence import Evidence
from gateway.payments.evm.fees import RelayPolicy
from gateway.payments.evm.instructions import (
    CANCELED,
    Contracts,
    execute,
    is_used,
    proves,
    use_question,
)
from gateway.payments.evm.node import Block, Node, Receipt
from gateway.payments.evm.outbox import (
    BOOK,
    CANCEL_ORPHANS,
    CONFIRM,
    DUE,
    FAIL,
    FINAL_PAYMENTS,
    FINAL_SENDINGS,
    FORKED_PAYMENTS,
    FORKED_SENDINGS,
    LIVE_BLOCKS,
    LOST_NONCE,
    MINED,
    OF_SENDING,
    PUT_OFF,
    RETRY,
    Payment,
    Sending,
)
from gateway.payments.evm.rpc import NoAnswer, NodeRefused, RpcError

log = logging.getLogger(__name__)

MISSES = 3  # looks at a spent nonce without a receipt, before it counts as spent by somebody else
UNEXPLAINED = 4  # looks at a used authorization without its log, before it counts as used before our time
RETRIES = 5


class Watcher:
    """Watches one key's transactions and all payments of one network. Called by the relayer's round."""

    def __init__(self, network: str, node: Node, sender: bytes, contracts: Contracts, policy: RelayPolicy) -> None:
        self._network = network
        self._node = node
        self._sender = sender
        self._contracts = contracts
        self._policy = policy
        self._misses: dict[int, int] = {}
        self._absent: dict[bytes, int] = {}
        self._evidence = Evidence(node, policy.lookback_blocks)

    async def look(self, connection: Connection, head: Block, sendings: Sequence[Sending]) -> None:
        """Find open transactions in blocks and book what they did. Raises NoAnswer."""
        spent = await self._node.next_nonce(self._sender) if sendings else 0
        found = await self._receipts(sendings)
        for sending in sendings:
            receipt = found.get(sending.id)
            if receipt is not None:
                self._misses.pop(sending.id, None)
                if head.number - receipt.block_number + 1 >= self._policy.confirmations:
                    await self._settle(connection, head, sending, receipt)
            elif sending.nonce < spent:
                await self._miss(connection, sending)

    async def follow_forks(self, connection: Connection, head: Block) -> bool:
        """Check every block that bookings rest on: final ones are done, vanished ones undone. True after a fork."""
        blocks = await LIVE_BLOCKS.all(connection, self._network)
        numbers = sorted({number for number, _ in blocks})
        answers = dict(zip(numbers, await self._node.blocks(numbers), strict=True))
        final: list[bytes] = []
        gone: list[bytes] = []
        for number, digest in blocks:
            there = answers[number]
            if isinstance(there, RpcError):
                continue
            if there is None:  # the chain is shorter now; or this answer came from a node that lags behind
                self._absent[digest] = self._absent.get(digest, 0) + 1
            if there.hash != digest if there else self._absent[digest] >= MISSES:
                gone.append(digest)
            elif there is None:
                continue
            elif head.number - number >= self._policy.finality:
                final.append(digest)
        self._absent = {digest: count for digest, count in self._absent.items() if digest not in gone}
        if final:
            await FINAL_PAYMENTS.run(connection, self._network, final)
            await FINAL_SENDINGS.run(connection, self._network, final)
        if gone:
            log.warning("a fork of %s took %d blocks with payments away", self._network, len(gone))
            async with connection.transaction():
                await FORKED_SENDINGS.run(connection, self._network, gone)
                await FORKED_PAYMENTS.run(connection, self._network, gone)
        return bool(gone)

    async def check_due(self, connection: Connection, head: Block) -> None:
        """Look at payments that no open transaction explains: silent, failed for now, expired."""
        payments = await DUE.all(connection, self._network, head.timestamp)
        answers = await self._node.views([use_question(payment, self._contracts) for payment in payments])
        if answers and all(isinstance(answer, NoAnswer) for answer in answers):
            raise NoAnswer("no authorization state was answered")
        for payment, answer in zip(payments, answers, strict=True):
            await self._act_alone(connection, head, payment, answer, None)
        await CANCEL_ORPHANS.one(connection, self._network, head.timestamp)

    async def investigate(
        self, connection: Connection, head: Block, payment: Payment, error: NodeRefused | None = None
    ) -> None:
        """Ask the chain about one authorization and act on the answer. `error`: how its execution would revert now."""
        answer = (await self._node.views([use_question(payment, self._contracts)]))[0]
        await self._act_alone(connection, head, payment, answer, error)

    async def _act_alone(
        self, connection: Connection, head: Block, payment: Payment, answer: bytes | RpcError, error: NodeRefused | None
    ) -> None:
        """Act on one payment so that nothing about it can hold up the others."""
        try:
            await self._act(connection, head, payment, answer, error)
        except LOST:
            raise
        except RpcError as silent:
            log.info("payment %s is looked at again later: %s", payment.id, silent)
            await self._put_off(connection, head, payment)
        except Exception:
            log.exception("payment %s on %s cannot be dealt with", payment.id, self._network)
            await self._put_off(connection, head, payment)

    async def _act(
        self, connection: Connection, head: Block, payment: Payment, answer: bytes | RpcError, error: NodeRefused | None
    ) -> None:
        """Act on whether an authorization is used. A contract that answers nonsense fails its own payment alone."""
        if isinstance(answer, NodeRefused) and reasons.reverted(answer):
            answer = b""
        if isinstance(answer, RpcError):
            await self._put_off(connection, head, payment)
            return
        try:
            used = is_used(payment, answer)
        except ValueError:
            await self._fail(
                connection, payment, reasons.TRANSACTION_FAILED, final=head.timestamp >= payment.valid_before
            )
            return
        if used:
            await self._explain(connection, head, payment)
        elif head.timestamp >= payment.valid_before:
            await self._expire(connection, head, payment)
        elif payment.sending_status == "open" or payment.state == "failed":
            await self._put_off(connection, head, payment)  # on its way; or its caller was told no: only watched
        else:
            await self._try(connection, head, payment, error)

    async def _receipts(self, sendings: Sequence[Sending]) -> dict[int, Receipt]:
        pairs = [(sending.id, digest) for sending in sendings for digest in sending.hashes]
        answers = await self._node.receipts([digest for _, digest in pairs])
        if answers and all(isinstance(answer, NoAnswer) for answer in answers):
            raise NoAnswer("no receipt was answered")
        return {number: one for (number, _), one in zip(pairs, answers, strict=True) if isinstance(one, Receipt)}

    async def _settle(self, connection: Connection, head: Block, sending: Sending, receipt: Receipt) -> None:
        """Book what a mined transaction proves; ask about what it was meant to do and did not."""
        if ARMED == "chain.mined":
            await act()
        payments = await OF_SENDING.all(connection, sending.id)
        proven = [payment for payment in payments if receipt.succeeded and proves(payment, receipt.logs)]
        booked = {payment.id for payment in proven}
        unproven = [one for one in payments if one.id not in booked and not one.final and one.state != "confirmed"]
        if not await self._booked(connection, sending, proven, receipt):
            async with connection.transaction():
                await MINED.run(connection, sending.id, receipt.transaction, receipt.block_number, receipt.block_hash)
                for payment in proven:
                    await self._confirm(connection, payment, receipt)
        if ARMED == "chain.booked":
            await act()
        # One that ran and moved nothing would do so again: there is no token, or none that keeps its word.
        empty = NodeRefused(3, "reverted: it moved nothing") if receipt.succeeded and len(payments) == 1 else None
        for payment in unproven:
            await self.investigate(connection, head, replace(payment, sending_status="mined"), empty)

    async def _booked(
        self, connection: Connection, sending: Sending, payments: Sequence[Payment], receipt: Receipt
    ) -> bool:
        """Book what one transaction has paid, all at once; False when the ledger refuses one of them."""
        place = (receipt.transaction, receipt.block_number, receipt.block_hash)
        try:
            await BOOK.run(connection, sending.id, [payment.id for payment in payments], *place)
        except LOST:
            raise
        except Exception:
            log.warning("payments of one transaction on %s are booked one by one", self._network, exc_info=True)
            return False
        return True

    async def _confirm(self, connection: Connection, payment: Payment, receipt: Receipt) -> None:
        """Book one payment. A booking that the ledger refuses is for the operator; the others go on."""
        place = (receipt.transaction, receipt.block_number, receipt.block_hash)
        try:
            async with connection.transaction():
                await CONFIRM.one(connection, payment.id, *place)
        except LOST:
            raise
        except Exception:
            log.exception("payment %s is on %s and cannot be booked", payment.id, self._network)

    async def _miss(self, connection: Connection, sending: Sending) -> None:
        """A nonce is spent and none of our transactions with it is in a block: somebody else has the key."""
        self._misses[sending.id] = self._misses.get(sending.id, 0) + 1
        if self._misses[sending.id] >= MISSES:
            del self._misses[sending.id]
            log.error("nonce %d on %s was spent by a transaction that is not ours", sending.nonce, self._network)
            await LOST_NONCE.run(connection, sending.id)

    async def _explain(self, connection: Connection, head: Block, payment: Payment) -> None:
        """An authorization is used: by what, and did the money reach its payee?"""
        found = await self._evidence.find(payment, head)
        if found is None:
            if payment.tries >= UNEXPLAINED:
                await self._fail(connection, payment, reasons.NONCE_USED, final=True)
            else:
                await self._put_off(connection, head, payment, tried=1)
        elif found.topics[:1] == (CANCELED,):
            await self._fail(connection, payment, reasons.NONCE_USED, final=self._deep(head, found.block_number))
        elif head.number - found.block_number + 1 < self._policy.confirmations:
            await self._put_off(connection, head, payment)
        else:
            receipt = (await self._node.receipts([found.transaction]))[0]
            if not isinstance(receipt, Receipt):
                await self._put_off(connection, head, payment)
            elif receipt.succeeded and proves(payment, receipt.logs):
                log.info("payment %s was executed by transaction %s", payment.id, found.transaction.hex())
                await self._confirm(connection, payment, receipt)
            else:  # the payer signed this nonce twice, and the other one was executed
                await self._fail(connection, payment, reasons.NONCE_USED, final=self._deep(head, found.block_number))

    def _deep(self, head: Block, number: int) -> bool:
        return head.number - number >= self._policy.finality

    async def _expire(self, connection: Connection, head: Block, payment: Payment) -> None:
        """Unused and too late. For good when that holds in a block which no fork will take away."""
        number = max(head.number - self._policy.finality, 0)
        block = (await self._node.blocks([number]))[0]
        sure = False
        if isinstance(block, Block) and block.timestamp >= payment.valid_before:
            sure = not is_used(payment, await self._node.view(*use_question(payment, self._contracts), number))
        await self._fail(connection, payment, payment.reason or reasons.EXPIRED, final=sure)

    async def _try(self, connection: Connection, head: Block, payment: Payment, error: NodeRefused | None) -> None:
        """Unused, valid, and not on its way: see whether it could be executed now."""
        outcome: int | RpcError = error or 0
        if error is None:
            call = execute(payment, payment.amount, self._sender, self._contracts)
            outcome = (await self._node.estimate(self._sender, [call]))[0]
        if isinstance(outcome, NodeRefused) and reasons.reverted(outcome):
            await self._fail(connection, payment, reasons.reason_of(outcome), final=False)
        elif isinstance(outcome, RpcError):
            await self._put_off(connection, head, payment)
        elif payment.tries >= RETRIES:
            await self._fail(connection, payment, reasons.TRANSACTION_FAILED, final=False)
        else:
            await RETRY.run(connection, payment.id)

    async def _fail(self, connection: Connection, payment: Payment, reason: str, *, final: bool) -> None:
        await FAIL.one(connection, payment.id, reason, final, timedelta(seconds=self._policy.check_seconds))

    async def _put_off(self, connection: Connection, head: Block, payment: Payment, tried: int = 0) -> None:
        since = max(head.number - self._policy.lookback_blocks, 0)
        await PUT_OFF.run(connection, payment.id, timedelta(seconds=self._policy.check_seconds), since, tried)
