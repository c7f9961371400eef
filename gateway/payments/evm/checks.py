"""What the chain says of an authorization before anything is promised on it: funds, use, and a trial run.

One round trip, which payments that wait at the same time share. The balance comes with the number of the block it was
read at, so that the outbox can count what the payer has spent since (settlements.py, `reserve`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.database.together import Together
from gateway.payments.evm import reasons
from gateway.payments.evm.chains import Chain
from gateway.payments.evm.encoding import call_data, selector
from gateway.payments.evm.instructions import Terms, aggregate, execute, is_used, use_question
from gateway.payments.evm.node import BALANCE_OF
from gateway.payments.evm.rpc import NoAnswer, NodeRefused, RpcError

BLOCK_NUMBER = selector("getBlockNumber()")
MOST = 50  # payments in one call: each takes about 70,000 gas, of which nodes allow a call some millions


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an authorization is worth now. `balance` in atomic units at `block`; `refusal` is a protocol reason code."""

    balance: int
    block: int
    refusal: str | None


class Inspector:
    """Inspects payments on one chain: plain ones that wait at the same time in one call, the others by themselves.

    Plain are EIP-3009 authorizations with the signature of a key: trying those costs little and needs no certain
    caller. What such a call does not pass is inspected again alone: another payment may have taken its money in the
    trial, or its gas.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._together = Together(self._inspect, limit=MOST)

    async def inspect(self, terms: Terms) -> Inspection:
        """Look at payer and authorization, and try the transfer. Raises NoAnswer when the node is silent."""
        found = await self._together.ask(terms) if plain(terms) else None
        return found or await inspect(self._chain, terms)

    async def _inspect(self, many: Sequence[Terms]) -> list[Inspection | None]:
        """Return what all payments are worth; None for those that have to be looked at alone."""
        contracts = self._chain.contracts
        views = [(contracts.multicall3, call_data(BLOCK_NUMBER))]
        for terms in many:
            views += [(terms.asset, call_data(BALANCE_OF, terms.payer)), use_question(terms, contracts)]
        trials = [execute(terms, terms.authorized, self._chain.signer.address, contracts) for terms in many]
        data = aggregate([*views, *trials], all_or_nothing=False)
        try:
            answer = await self._chain.node.view(contracts.multicall3, data)
        except NodeRefused:
            return [None] * len(many)
        block, *parts = outcomes(answer, len(views) + len(trials))
        tried = parts[2 * len(many) :]
        return [
            _passed(terms, int.from_bytes(block or b"", "big"), parts[2 * place], parts[2 * place + 1], tried[place])
            for place, terms in enumerate(many)
        ]


def plain(terms: Terms) -> bool:
    """Say whether anybody can execute an authorization, at about the same cost as others."""
    return terms.method == "eip3009" and terms.deploy_target is None and len(terms.signature) == 65


def _passed(terms: Terms, block: int, funds: bytes | None, use: bytes | None, trial: bytes | None) -> Inspection | None:
    if funds is None or use is None or trial is None or len(funds) != 32 or len(use) != 32:
        return None
    balance = int.from_bytes(funds, "big")
    if is_used(terms, use) or balance < terms.authorized:
        return None
    return Inspection(balance, block, None)


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
        code = reasons.reason_of(trial)
        # Permit2 says of money that it may not take what it says of money that is not there; it is there.
        short = code == reasons.INSUFFICIENT_FUNDS and terms.method != "eip3009"
        return reasons.ALLOWANCE_REQUIRED if short else code
    if isinstance(trial, RpcError):
        raise NoAnswer(str(trial))
    return None


def _results(data: bytes, count: int) -> list[bytes]:
    """Return the return data of each call of an all-or-nothing aggregate3 answer. Raises NoAnswer."""
    return [part or b"" for part in outcomes(data, count)]


def outcomes(data: bytes, count: int) -> list[bytes | None]:
    """Return the return data (64 bytes at most) of each call of an aggregate3 answer, None of those that reverted.

    Raises NoAnswer when it has another shape.
    """
    start = 32
    if len(data) < 64 + 32 * count or int.from_bytes(data[start : start + 32], "big") != count:
        raise NoAnswer("the multicall's answer has the wrong shape")
    base = start + 32
    parts: list[bytes | None] = []
    for index in range(count):
        place = base + int.from_bytes(data[base + 32 * index : base + 32 * index + 32], "big")
        length = int.from_bytes(data[place + 64 : place + 96], "big")
        passed = any(data[place : place + 32])
        parts.append(data[place + 96 : place + 96 + min(length, 64)] if passed else None)
    return parts
