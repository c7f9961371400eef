"""What the chain says of an authorization before anything is promised on it: funds, use, and a trial run.

One round trip. The balance comes with the number of the block it was read at, so that the outbox can count what the
payer has spent since (settlements.py, `reserve`).
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.payments.evm import reasons
from gateway.payments.evm.chains import Chain
from gateway.payments.evm.encoding import call_data, selector
from gateway.payments.evm.instructions import Terms, aggregate, execute, is_used, use_question
from gateway.payments.evm.node import BALANCE_OF
from gateway.payments.evm.rpc import NoAnswer, NodeRefused, RpcError

BLOCK_NUMBER = selector("getBlockNumber()")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an authorization is worth now. `balance` in atomic units at `block`; `refusal` is a protocol reason code."""

    balance: int
    block: int
    refusal: str | None


async def inspect(chain: Chain, terms: Terms) -> Inspection:
    """Look at payer and authorization, and try the transfer. Raises NoAnswer when the node is silent."""
    contracts = chain.contracts
    views = [
        (contracts.multicall3, call_data(BLOCK_NUMBER)),
        (terms.asset, call_data(BALANCE_OF, terms.payer)),
        use_question(terms, contracts),
    ]
    data = aggregate(views, all_or_nothing=True)
    call = execute(terms, terms.authorized, chain.signer.address, contracts)
    view, trial = await chain.node.look_and_try((contracts.multicall3, data), chain.signer.address, call)
    if isinstance(view, RpcError):
        if not isinstance(view, NodeRefused) or not reasons.reverted(view):
            raise NoAnswer(str(view))
        return Inspection(0, 0, reasons.TRANSACTION_FAILED)  # no token there, or none that answers as one
    parts = _results(view, len(views))
    number = int.from_bytes(parts[0], "big")
    if any(len(part) != 32 for part in parts):
        return Inspection(0, number, reasons.TRANSACTION_FAILED)
    balance = int.from_bytes(parts[1], "big")
    return Inspection(balance, number, _refusal(terms, balance, is_used(terms, parts[2]), trial))


def _refusal(terms: Terms, balance: int, used: bool, trial: int | RpcError) -> str | None:
    if used:
        return reasons.NONCE_USED
    if balance < terms.authorized:
        return reasons.INSUFFICIENT_FUNDS
    if isinstance(trial, NodeRefused) and reasons.reverted(trial):
        return reasons.reason_of(trial)
    if isinstance(trial, RpcError):
        raise NoAnswer(str(trial))
    return None


def _results(data: bytes, count: int) -> list[bytes]:
    """Return the return data of each call of an aggregate3 answer. Raises NoAnswer when it has another shape."""
    start = 32
    if len(data) < 64 + 32 * count or int.from_bytes(data[start : start + 32], "big") != count:
        raise NoAnswer("the multicall's answer has the wrong shape")
    base = start + 32
    parts: list[bytes] = []
    for index in range(count):
        place = base + int.from_bytes(data[base + 32 * index : base + 32 * index + 32], "big")
        length = int.from_bytes(data[place + 64 : place + 96], "big")
        parts.append(data[place + 96 : place + 96 + min(length, 64)])
    return parts
