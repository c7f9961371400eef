"""A verified payment as the request that any x402 facilitator reads: built from what we have checked. Pure."""

from __future__ import annotations

from typing import Any

from gateway.payments.evm.encoding import show_address, tail, word
from gateway.payments.evm.terms import Terms
from gateway.payments.x402 import v2
from gateway.payments.x402.offer import Offer, PaymentKind

ERC6492_SUFFIX = bytes.fromhex("6492" * 16)
TIMEOUT_SECONDS = 300  # of the requirements; what counts is what the payer has signed


def request_of(kind: PaymentKind, terms: Terms) -> dict[str, Any]:
    """Return the version 2 body of verify and settle."""
    requirements = v2.requirements(Offer(kind, terms.authorized, terms.payee, TIMEOUT_SECONDS))
    payload = _transfer(terms) if terms.method == "eip3009" else _permit(kind, terms)
    return {
        "x402Version": 2,
        "paymentPayload": {
            "x402Version": 2,
            "payload": {"signature": "0x" + _signature(terms).hex(), **payload},
            "accepted": requirements,
        },
        "paymentRequirements": requirements,
    }


def _transfer(terms: Terms) -> dict[str, Any]:
    authorization = {
        "from": show_address(terms.payer),
        "to": show_address(terms.payee),
        "value": str(terms.authorized),
        "validAfter": str(terms.valid_after),
        "validBefore": str(terms.valid_before),
        "nonce": "0x" + terms.nonce.hex(),
    }
    return {"authorization": authorization}


def _permit(kind: PaymentKind, terms: Terms) -> dict[str, Any]:
    permit = {
        "from": show_address(terms.payer),
        "permitted": {"token": show_address(terms.asset), "amount": str(terms.authorized)},
        "spender": show_address(kind.spender),
        "nonce": str(int.from_bytes(terms.nonce, "big")),
        "deadline": str(terms.valid_before),
        "witness": {"to": show_address(terms.payee), "validAfter": str(terms.valid_after)},
    }
    return {"permit2Authorization": permit}


def _signature(terms: Terms) -> bytes:
    """Return the signature as the payer sent it: with the making of its wallet, if that is part of it (ERC-6492)."""
    if terms.deploy_target is None or terms.deploy_data is None:
        return terms.signature
    first = tail(terms.deploy_data)
    head = word(terms.deploy_target) + word(96) + word(96 + len(first))
    return head + first + tail(terms.signature) + ERC6492_SUFFIX
