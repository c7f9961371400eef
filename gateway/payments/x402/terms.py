"""What a payment says was signed, whichever way the token moves: EIP-3009, or Permit2 through one of the x402 proxies.

Read, not believed: verify.py makes evm's Terms of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.payments.evm.terms import Method
from gateway.payments.x402.wire import Fields, address, as_object, malformed, octets, only, uint256, word

_PAYLOAD_3009 = frozenset(("authorization", "signature"))
_PAYLOAD_PERMIT2 = frozenset(("permit2Authorization", "signature"))
_AUTHORIZATION = frozenset(("from", "to", "value", "validAfter", "validBefore", "nonce"))
_PERMIT = frozenset(("from", "permitted", "spender", "nonce", "deadline", "witness"))
_PERMITTED = frozenset(("token", "amount"))
_EXACT_WITNESS = frozenset(("to", "validAfter"))
_UPTO_WITNESS = frozenset(("to", "facilitator", "validAfter"))


@dataclass(frozen=True, slots=True)
class SignedTerms:
    """An authorization as it was signed. Addresses are 20 bytes, `nonce` 32, `value` atomic units, times Unix seconds.

    `token` and `spender` are signed by Permit2 only (EIP-3009 has the token in its domain), `facilitator` by `upto`.
    """

    method: Method
    payer: bytes
    payee: bytes
    value: int
    valid_after: int
    valid_before: int
    nonce: bytes
    signature: bytes
    token: bytes = b""
    spender: bytes = b""
    facilitator: bytes = b""


def read_terms(payload: Fields) -> SignedTerms:
    """Return what the `payload` of a payment says. Raises PaymentRefused naming the field."""
    if "authorization" in payload:
        only(payload, "payload", _PAYLOAD_3009)
        return _eip3009(as_object(payload["authorization"], "authorization"), _signature(payload))
    if "permit2Authorization" in payload:
        only(payload, "payload", _PAYLOAD_PERMIT2)
        return _permit2(as_object(payload["permit2Authorization"], "permit2Authorization"), _signature(payload))
    raise malformed("payload has neither authorization nor permit2Authorization")


def _signature(payload: Fields) -> bytes:
    signature = octets(payload["signature"], "signature")
    if not signature:
        raise malformed("signature is empty")
    return signature


def _eip3009(fields: Fields, signature: bytes) -> SignedTerms:
    only(fields, "authorization", _AUTHORIZATION)
    return SignedTerms(
        "eip3009",
        address(fields["from"], "authorization.from"),
        address(fields["to"], "authorization.to"),
        uint256(fields["value"], "authorization.value"),
        uint256(fields["validAfter"], "authorization.validAfter"),
        uint256(fields["validBefore"], "authorization.validBefore"),
        word(fields["nonce"], "authorization.nonce"),
        signature,
    )


def _permit2(fields: Fields, signature: bytes) -> SignedTerms:
    only(fields, "permit2Authorization", _PERMIT)
    permitted = as_object(fields["permitted"], "permitted")
    only(permitted, "permitted", _PERMITTED)
    witness = as_object(fields["witness"], "witness")
    upto = "facilitator" in witness
    only(witness, "witness", _UPTO_WITNESS if upto else _EXACT_WITNESS)
    return SignedTerms(
        "permit2_upto" if upto else "permit2_exact",
        address(fields["from"], "permit2Authorization.from"),
        address(witness["to"], "witness.to"),
        uint256(permitted["amount"], "permitted.amount"),
        uint256(witness["validAfter"], "witness.validAfter"),
        uint256(fields["deadline"], "permit2Authorization.deadline"),
        uint256(fields["nonce"], "permit2Authorization.nonce").to_bytes(32, "big"),
        signature,
        address(permitted["token"], "permitted.token"),
        address(fields["spender"], "permit2Authorization.spender"),
        address(witness["facilitator"], "witness.facilitator") if upto else b"",
    )
