"""The 402 answer: every rail at once, for clients of version 2, of version 1, and for holders of an API key.

Version 2 reads the header PAYMENT-REQUIRED and ignores the body, version 1 reads only the body: so one answer serves
both. The body is in version 1's form when somebody can read it (a caller without an API key, an offer that version 1
knows), with `offers` beside its list where that does not hold them all; otherwise it is version 2's with the contract's
prepaid offer first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.payments.x402 import v1, v2
from gateway.payments.x402.answers import Resource
from gateway.payments.x402.offer import Offer


def required_body(
    offers: Sequence[Offer],
    resource: Resource,
    error: str,
    *,
    seren: Mapping[str, Any],
    prepaid: Mapping[str, Any] | None,
    bearer: bool,
) -> dict[str, Any]:
    """Return the JSON body of a 402.

    `prepaid` is the contract's prepaid offer, if the publisher takes it; `bearer` says that the caller sent an API key.
    """
    readable = [] if bearer else [offer for offer in offers if v1.offered(offer)]
    if readable:
        body_of_v2 = v2.required(offers, resource, error)
        body = body_of_v2 | {
            "x402Version": v1.VERSION,
            "accepts": [v1.requirements(offer, resource) for offer in readable],
        }
        # Beside the list: a client of version 1 that finds a scheme which it does not know in it gives up.
        beside = {"offers": body_of_v2["accepts"]} if len(readable) < len(offers) else {}
        return body | beside | {"seren": seren} | ({"prepaid": prepaid} if prepaid else {})
    body = v2.required(offers, resource, error)
    return body | {"accepts": [*([prepaid] if prepaid else []), *body["accepts"]], "seren": seren}


def typed_data(offer: Offer, payer: str, nonce: bytes, now: int) -> dict[str, Any] | None:
    """Return what a wallet signs to take up an offer, ready for eth_signTypedData_v4; None unless it is EIP-3009."""
    kind = offer.kind
    if kind.method != "eip3009":
        return None
    return {
        "domain": {**kind.extra, "chainId": kind.network.chain_id, "verifyingContract": kind.asset_text},
        "types": _TYPES,
        "primaryType": "TransferWithAuthorization",
        "message": {
            "from": payer,
            "to": offer.pay_to,
            "value": str(offer.amount),
            "validAfter": "0",
            "validBefore": str(now + offer.timeout),
            "nonce": "0x" + nonce.hex(),
        },
    }


def _fields(*pairs: str) -> list[dict[str, str]]:
    return [dict(zip(("type", "name"), pair.split(), strict=True)) for pair in pairs]


_TYPES = {
    "EIP712Domain": _fields("string name", "string version", "uint256 chainId", "address verifyingContract"),
    "TransferWithAuthorization": _fields(
        "address from", "address to", "uint256 value", "uint256 validAfter", "uint256 validBefore", "bytes32 nonce"
    ),
}
