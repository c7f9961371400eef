"""What other sellers ask of us as a facilitator: verify or settle this payment against these requirements. Pure.

Here the requirements are another's, so amount, payee and timeout are theirs to say; token, domain, contracts and
networks stay ours. One request and one answer for both versions of the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.payments.evm.encoding import show_address
from gateway.payments.x402 import v1, v2
from gateway.payments.x402.answers import Settlement
from gateway.payments.x402.offer import Offer, PaymentKinds, Taken
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.terms import SignedTerms
from gateway.payments.x402.wire import Fields, address, as_object, only, text, uint256

MAX_TIMEOUT = 3_600
"""The longest maxTimeoutSeconds that a seller may ask for."""

_REQUEST = frozenset(("x402Version", "paymentPayload", "paymentRequirements"))


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: verify `taken` and `terms` against `offer` (resource None), then move `amount` (atomic units)."""

    version: Literal[1, 2]
    taken: Taken
    terms: SignedTerms
    offer: Offer
    amount: int


def read_request(request: Fields, kinds: PaymentKinds, *, settling: bool) -> Asked:
    """Return what a seller asks for. Raises PaymentRefused.

    For `upto` the requirements' amount is the most while verifying, and what was used while settling.
    """
    only(request, "the request", _REQUEST)
    version = _version(request["x402Version"])
    payment = as_object(request["paymentPayload"], "paymentPayload")
    taken, terms = (v1 if version == 1 else v2).payment_of(payment)
    offer = _offer(as_object(request["paymentRequirements"], "paymentRequirements"), terms, kinds, version)
    amount = offer.amount
    if settling and offer.kind.scheme == "upto":
        if amount > terms.value:
            raise PaymentRefused(Reason.UPTO_EXCEEDED, f"at most {terms.value} atomic units are authorized")
        offer = Offer(offer.kind, terms.value, offer.payee, offer.timeout)
    return Asked(version, taken, terms, offer, amount)


def _version(value: object) -> Literal[1, 2]:
    if type(value) is int and value == 1:
        return 1
    if type(value) is int and value == 2:
        return 2
    raise PaymentRefused(Reason.VERSION, "x402Version must be 1 or 2")


def _offer(asked: Fields, terms: SignedTerms, kinds: PaymentKinds, version: Literal[1, 2]) -> Offer:
    try:
        network = kinds.named(text(asked.get("network"), "network"), version)
        asset = address(asked.get("asset"), "asset")
        payee = address(asked.get("payTo"), "payTo")
        amount = uint256(asked.get("maxAmountRequired" if version == 1 else "amount"), "the amount")
        timeout = asked.get("maxTimeoutSeconds")
        if type(timeout) is not int or not 0 < timeout <= MAX_TIMEOUT:
            raise PaymentRefused(Reason.PAYLOAD, f"maxTimeoutSeconds must be an integer from 1 to {MAX_TIMEOUT}")
    except PaymentRefused as refused:
        raise PaymentRefused(Reason.REQUIREMENTS, f"paymentRequirements: {refused.detail}") from None
    if network is None:
        raise PaymentRefused(Reason.NETWORK, "this facilitator does not settle on that network")
    kind = kinds.of_asset(network.id, asset, terms.method)
    if kind is None:
        raise PaymentRefused(Reason.REQUIREMENTS, "this facilitator does not move that asset by that transfer method")
    if kind.scheme != asked.get("scheme"):
        raise PaymentRefused(Reason.SCHEME, f"payments by {terms.method} are of the scheme {kind.scheme}")
    _check_domain(asked.get("extra"), kind.extra)
    return Offer(kind, amount, payee, timeout)


def _check_domain(extra: object, ours: Mapping[str, str]) -> None:
    """A seller's word for the token's domain must be ours: its payers would sign in another one."""
    said: Fields = as_object({} if extra is None else extra, "extra")
    for name, value in ours.items():
        if said.get(name, value) != value:
            raise PaymentRefused(Reason.REQUIREMENTS, f"extra.{name} of that asset is {value!r}")


def supported(kinds: PaymentKinds, signers: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the SupportedResponse object; `signers` has the address that settles (20 bytes) by network id."""
    found: list[dict[str, Any]] = []
    for kind in kinds.all:
        entry: dict[str, Any] = {"x402Version": 2, "scheme": kind.scheme, "network": kind.network.id}
        if kind.scheme == "upto":
            entry["extra"] = {"facilitatorAddress": kind.extra["facilitatorAddress"]}
        found.append(entry)
        if kind.method == "eip3009" and kind.network.x402_name is not None:
            found.append({"x402Version": 1, "scheme": "exact", "network": kind.network.x402_name})
    unlike = [entry for place, entry in enumerate(found) if entry not in found[:place]]
    addresses = sorted({show_address(signer) for signer in signers.values()})
    return {"kinds": unlike, "extensions": [], "signers": {"eip155:*": addresses}}


def verify_answer(payer: bytes | None, refused: PaymentRefused | None) -> dict[str, Any]:
    """Return the VerifyResponse object."""
    answer: dict[str, Any] = {"isValid": refused is None}
    if refused is not None:
        answer |= {"invalidReason": str(refused.reason), "invalidMessage": refused.detail}
    if payer is not None:
        answer["payer"] = show_address(payer)
    return answer


def settle_answer(asked: Asked, settlement: Settlement) -> dict[str, Any]:
    """Return the SettleResponse object in the request's version."""
    return (v1 if asked.version == 1 else v2).response(settlement)
