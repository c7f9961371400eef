"""What is left of a payment's verification once the signature is checked: the questions to its chain, put and judged.

Whether a smart wallet signed, whether the payer has the money, whether the authorization is unused, and whether the
transfer would go through now. For a network without a node of ours its facilitator is asked instead.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol
from uuid import UUID

from gateway.payments.evm.chains import Chain
from gateway.payments.evm.checks import Inspector
from gateway.payments.evm.node import Node
from gateway.payments.evm.rpc import NodeRefused
from gateway.payments.evm.settlements import Booking, Funds, Order, Settlements, Status
from gateway.payments.evm.terms import Terms
from gateway.payments.x402.offer import PaymentKind
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.signatures import affirms
from gateway.payments.x402.terms import SignedTerms
from gateway.payments.x402.verify import DEFAULT_BOUNDS, Verified

DETAILS = {
    Reason.FUNDS: "the payer's balance does not cover the amount",
    Reason.NONCE_USED: "this authorization is used or cancelled; sign a new one",
    Reason.ALLOWANCE: "the payer has not allowed Permit2 to move this token",
    Reason.PENDING: "this payment is on its way; ask again for what became of it",
}


@dataclass(frozen=True, slots=True)
class Examined:
    """A payment that its chain would execute now. `funds` is what the payer had; None where nobody told."""

    terms: Terms
    funds: Funds | None


class Verifier(Protocol):
    """An external facilitator, as far as it verifies."""

    async def verify(self, terms: Terms) -> None: ...


class Examiner:
    """Puts a verified payment's open questions to its network."""

    def __init__(self, chains: Mapping[str, Chain], others: Mapping[str, Verifier] | None = None) -> None:
        self._chains = chains
        self._inspectors = {name: Inspector(chain) for name, chain in chains.items()}
        self._others = others or {}

    async def examine(self, verified: Verified) -> Examined:
        """Return the payment as it can be settled. Raises PaymentRefused, or NoAnswer when the network is silent."""
        other = self._others.get(verified.network)
        if other is not None:
            await other.verify(verified.terms)
            return Examined(verified.terms, None)
        chain = self._chains[verified.network]
        if verified.question is not None:
            verified = verified.decided(await affirmed(chain.node, verified.terms.payer, verified.question.data))
        found = await self._inspectors[verified.network].inspect(verified.terms)
        if found.refusal is not None:
            raise refused(found.refusal)
        return Examined(verified.terms, Funds(found.balance, found.block))


def order_of(terms: Terms, network: str, payment_id: UUID, booking: Booking, **more: Any) -> Order:
    """Return the order that claims an examined payment."""
    signed: Mapping[str, Any] = {field.name: getattr(terms, field.name) for field in fields(Terms)}
    return Order(**signed, id=payment_id, network=network, booking=booking, **more)


async def recall(settlements: Settlements, kind: PaymentKind, terms: SignedTerms) -> Status | None:
    """Return what became of an authorization that was claimed before; None when it can be claimed."""
    status = await settlements.find(kind.network.id, terms.method, kind.asset, terms.payer, terms.nonce)
    return None if status is None or status.state == "cancelled" else status


def moment(terms: SignedTerms, known: Status | None) -> int:
    """Return when (Unix seconds) an authorization has to be valid: now; one that was claimed, when it still was."""
    now = int(time.time())
    return now if known is None else min(now, max(terms.valid_before - DEFAULT_BOUNDS.margin, 0))


async def affirmed(node: Node, wallet: bytes, question: bytes) -> bool:
    """Return whether a smart wallet affirms a signature (ERC-1271). Raises NoAnswer."""
    try:
        return affirms(await node.view(wallet, question))
    except NodeRefused:
        return False


def refused(code: str | None) -> PaymentRefused:
    """Return the refusal for a reason code that a chain or facilitator gave."""
    try:
        reason = Reason(code or "")
    except ValueError:
        reason = Reason.TRANSACTION_FAILED
    return PaymentRefused(reason, DETAILS.get(reason, "the chain does not execute this payment"))
