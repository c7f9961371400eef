"""x402 version 2 on the wire: PAYMENT-REQUIRED, PAYMENT-SIGNATURE and PAYMENT-RESPONSE, each base64 JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.payments.x402.answers import MAX_ERROR, Resource, Settlement
from gateway.payments.x402.offer import Offer, Taken
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.terms import SignedTerms, read_terms
from gateway.payments.x402.wire import Fields, address, as_object, decode, encode, malformed, only, text, uint256

VERSION = 2
MAX_OFFER_HEADER = 6_144
"""Bytes of PAYMENT-REQUIRED: with the other fields of an answer it stays below the 8 KiB that stock clients take."""

MAX_REASON = 80
"""Characters of the error where nothing longer fits: every reason code does."""

_REQUIRED = frozenset(("x402Version", "payload", "accepted"))
_OPTIONAL = frozenset(("resource", "extensions"))
_ACCEPTED = frozenset(("scheme", "network", "asset", "amount", "payTo"))


def read_payment(header: bytes) -> tuple[Taken, SignedTerms]:
    """Return what a PAYMENT-SIGNATURE header says. Raises PaymentRefused."""
    return payment_of(decode(header))


def payment_of(fields: Fields) -> tuple[Taken, SignedTerms]:
    """Return what a PaymentPayload object says. Raises PaymentRefused."""
    version = fields.get("x402Version")
    if type(version) is not int or version != VERSION:
        raise PaymentRefused(Reason.VERSION, "PAYMENT-SIGNATURE carries x402Version 2; X-PAYMENT is for version 1")
    only(fields, "the payment", _REQUIRED, _OPTIONAL)
    if fields.get("extensions") is not None:
        as_object(fields["extensions"], "extensions")
    return _taken(as_object(fields["accepted"], "accepted"), fields.get("resource")), read_terms(
        as_object(fields["payload"], "payload")
    )


def _taken(accepted: Fields, resource: object) -> Taken:
    if missing := _ACCEPTED - accepted.keys():
        raise malformed(f"accepted has no {min(missing)}")
    return Taken(
        2,
        text(accepted["scheme"], "accepted.scheme"),
        text(accepted["network"], "accepted.network"),
        address(accepted["asset"], "accepted.asset"),
        uint256(accepted["amount"], "accepted.amount"),
        address(accepted["payTo"], "accepted.payTo"),
        None if resource is None else text(as_object(resource, "resource").get("url"), "resource.url"),
    )


def requirements(offer: Offer) -> dict[str, Any]:
    """Return an offer as a PaymentRequirements object."""
    kind = offer.kind
    return {
        "scheme": kind.scheme,
        "network": kind.network.id,
        "amount": str(offer.amount),
        "asset": kind.asset_text,
        "payTo": offer.pay_to,
        "maxTimeoutSeconds": offer.timeout,
        "extra": kind.extra,
    }


def required(
    offers: Sequence[Offer], resource: Resource, error: str, extensions: Fields | None = None
) -> dict[str, Any]:
    """Return the PaymentRequired object."""
    document: dict[str, Any] = {
        "x402Version": VERSION,
        "error": error[:MAX_ERROR],
        "resource": {"url": resource.url, "description": resource.description, "mimeType": resource.mime_type},
        "accepts": [requirements(offer) for offer in offers],
    }
    return document | {"extensions": extensions} if extensions else document


def required_header(offers: Sequence[Offer], resource: Resource, error: str, extensions: Fields | None = None) -> bytes:
    """Return PAYMENT-REQUIRED, never longer than MAX_OFFER_HEADER.

    What is left out then, in this order: offers beside the first of their network, from the last; other offers but the
    first, from the last; the extensions; the description. The body of the 402 has them all.
    """
    header = encode(required(offers, resource, error, extensions))
    while len(header) > MAX_OFFER_HEADER:
        if len(offers) > 1:
            offers = _without_one(offers)
        elif extensions:
            extensions = None
        else:
            return encode(required(offers, replace(resource, description=""), error[:MAX_REASON]))
        header = encode(required(offers, resource, error, extensions))
    return header


def _without_one(offers: Sequence[Offer]) -> list[Offer]:
    """Return the offers without the one that is missed least."""
    networks = [offer.kind.network.id for offer in offers]
    beside = [place for place, network in enumerate(networks) if network in networks[:place]]
    missed_least = beside[-1] if beside else len(offers) - 1
    return [offer for place, offer in enumerate(offers) if place != missed_least]


def response(settlement: Settlement) -> dict[str, Any]:
    """Return the SettleResponse object."""
    document: dict[str, Any] = {
        "success": settlement.reason is None,
        "transaction": settlement.transaction_text,
        "network": settlement.network.id,
        "payer": settlement.payer_text,
    }
    if settlement.amount is not None:
        document["amount"] = str(settlement.amount)
    if settlement.reason is not None:
        document["errorReason"] = settlement.reason
    return document


def response_header(settlement: Settlement) -> bytes:
    """Return PAYMENT-RESPONSE."""
    return encode(response(settlement))
