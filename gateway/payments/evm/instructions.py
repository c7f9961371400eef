"""What a payment says to the chain, by transfer method: the call that executes it, and how its traces look. Pure.

A payment is proven by the logs of a transaction that succeeded: the token moved exactly the amount from payer to payee,
and (EIP-3009) the token marked exactly this authorization as used. Who sent that transaction does not matter: anybody
may execute an authorization, and the money arrives all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.networks import Network
from gateway.payments.evm.encoding import call_data, parse_address, selector, tail, topic, word
from gateway.payments.evm.node import Log
from gateway.payments.evm.outbox import Payment
from gateway.payments.evm.terms import Method, Terms

TRANSFER_VRS = selector(
    "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"
)
TRANSFER_BYTES = selector("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)")
PERMIT2_EXACT = selector("settle(((address,uint256),uint256,uint256),address,(address,uint256),bytes)")
PERMIT2_UPTO = selector("settle(((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)")
AUTHORIZATION_STATE = selector("authorizationState(address,bytes32)")
NONCE_BITMAP = selector("nonceBitmap(address,uint256)")
TRANSFER = selector("transfer(address,uint256)")
AGGREGATE = selector("aggregate3((address,bool,bytes)[])")

TRANSFERRED = topic("Transfer(address,address,uint256)")
USED = topic("AuthorizationUsed(address,bytes32)")
CANCELED = topic("AuthorizationCanceled(address,bytes32)")


@dataclass(frozen=True, slots=True)
class Contracts:
    """Contracts of a network that have the same address nearly everywhere (20 bytes each)."""

    permit2: bytes
    exact_proxy: bytes
    upto_proxy: bytes
    multicall3: bytes

    @classmethod
    def of(cls, network: Network) -> Contracts:
        """Return those of a configured network."""
        return cls(
            parse_address(network.permit2),
            parse_address(network.exact_permit2_proxy),
            parse_address(network.upto_permit2_proxy),
            parse_address(network.multicall3),
        )

    def verifier(self, method: Method, asset: bytes) -> bytes:
        """Return the contract whose nonce an authorization spends."""
        return asset if method == "eip3009" else self.permit2


Instruction = tuple[bytes, bytes]
"""The contract to call, and the call data."""


def execute(terms: Terms, amount: int, sender: bytes, contracts: Contracts) -> Instruction:
    """Return the call that moves `amount`. `sender` is who will send it (the `upto` proxy checks it)."""
    call = _transfer(terms, amount, sender, contracts)
    if terms.deploy_target is None or terms.deploy_data is None:
        return call
    # ERC-6492: make the payer's wallet first, through the multicall: a factory never sees our key as its caller.
    return contracts.multicall3, aggregate([(terms.deploy_target, terms.deploy_data), call], all_or_nothing=True)


def _transfer(p: Terms, amount: int, sender: bytes, contracts: Contracts) -> Instruction:
    if p.method == "eip3009":
        common = (p.payer, p.payee, amount, p.valid_after, p.valid_before, p.nonce)
        if len(p.signature) != 65:
            return p.asset, call_data(TRANSFER_BYTES, *common, data=p.signature)
        r, s, v = p.signature[:32], p.signature[32:64], p.signature[64]
        return p.asset, call_data(TRANSFER_VRS, *common, v, r, s)
    permit = (p.asset, p.authorized, p.nonce, p.valid_before)
    if p.method == "permit2_exact":
        data = call_data(PERMIT2_EXACT, *permit, p.payer, p.payee, p.valid_after, data=p.signature)
        return contracts.exact_proxy, data
    data = call_data(PERMIT2_UPTO, *permit, amount, p.payer, p.payee, sender, p.valid_after, data=p.signature)
    return contracts.upto_proxy, data


def aggregate(calls: Sequence[Instruction], *, all_or_nothing: bool) -> bytes:
    """Return Multicall3 call data; without `all_or_nothing` a call that reverts fails alone."""
    offsets, tails, place = b"", b"", len(calls) * 32
    for target, data in calls:
        part = word(target) + word(not all_or_nothing) + word(96) + tail(data)
        offsets += word(place)
        tails += part
        place += len(part)
    return AGGREGATE + word(32) + word(len(calls)) + offsets + tails


def use_question(terms: Terms, contracts: Contracts) -> Instruction:
    """Return the view call that says whether the authorization is used (see `is_used`)."""
    verifier = contracts.verifier(terms.method, terms.asset)
    if terms.method == "eip3009":
        return verifier, call_data(AUTHORIZATION_STATE, terms.payer, terms.nonce)
    return verifier, call_data(NONCE_BITMAP, terms.payer, int.from_bytes(terms.nonce, "big") >> 8)


def is_used(terms: Terms, answer: bytes) -> bool:
    """Read the answer to `use_question`: used or cancelled. Raises ValueError when it is not one word."""
    if len(answer) != 32:
        raise ValueError("the contract does not answer as it should")
    number = int.from_bytes(answer, "big")
    return number != 0 if terms.method == "eip3009" else bool(number >> terms.nonce[31] & 1)


def proves(payment: Payment, logs: Sequence[Log]) -> bool:
    """Say whether a successful transaction's logs prove that this payment was made."""
    p = payment
    parties, amount = (TRANSFERRED, word(p.payer), word(p.payee)), word(p.amount)
    moved = any(log.topics[:3] == parties and log.address == p.asset and log.data == amount for log in logs)
    if p.method != "eip3009":
        return moved
    used = (USED, word(p.payer), p.nonce)
    return moved and any(log.topics == used and log.address == p.asset for log in logs)
