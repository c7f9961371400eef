"""How an authorization was used: the log of the transaction that executed or cancelled it, whoever sent that."""

from __future__ import annotations

from gateway.payments.evm.encoding import word
from gateway.payments.evm.instructions import CANCELED, TRANSFERRED, USED
from gateway.payments.evm.node import Block, Log, LogQuery, Node
from gateway.payments.evm.outbox import Payment
from gateway.payments.evm.rpc import NodeRefused

LOG_RANGE = 2_000  # blocks in one question for logs; halved where a node refuses so many


class Evidence:
    """Searches one network's logs. `lookback` is how many blocks back, where a payment does not say since when."""

    def __init__(self, node: Node, lookback: int) -> None:
        self._node = node
        self._lookback = lookback
        self._range = LOG_RANGE

    async def find(self, payment: Payment, head: Block) -> Log | None:
        """Return the log of the use or cancellation, searching back from the newest block; None where there is none.

        Raises NodeRefused and NoAnswer.
        """
        since = payment.since_block if payment.since_block is not None else head.number - self._lookback
        first, last = max(since, 0), head.number
        while last >= first:
            start = max(first, last - self._range + 1)
            try:
                found = await self._logs(payment, start, last)
            except NodeRefused:
                if self._range == 1:
                    raise
                self._range //= 2
                continue
            if found:
                return found[0]
            last = start - 1
        return None

    async def _logs(self, payment: Payment, first: int, last: int) -> list[Log]:
        if payment.method == "eip3009":
            topics = (None, word(payment.payer), payment.nonce)
            found = await self._node.logs(LogQuery(payment.asset, topics, first, last))
            return [one for one in found if one.topics[0] in (USED, CANCELED)]
        # Permit2 marks a nonce without a log: take the transfer whose transaction carries this nonce.
        topics = (TRANSFERRED, word(payment.payer), word(payment.payee))
        found = await self._node.logs(LogQuery(payment.asset, topics, first, last))
        inputs = await self._node.inputs([one.transaction for one in found])
        pairs = zip(found, inputs, strict=True)
        return [one for one, data in pairs if isinstance(data, bytes) and payment.nonce in data]
