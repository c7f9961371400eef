"""x402 version 1 on the wire: offers in the 402's JSON body, X-PAYMENT, X-PAYMENT-RESPONSE.

Clients of version 1 read the whole list of offers with closed enumerations: one scheme or network name that they do
not know makes them give up. So only `exact` by EIP-3009, on networks with a name of version 1, is offered here.
"""

from __future__ import annotations

from typing import Any

from gateway.payments.x402.answers import Resource, Settlement
from gateway.payments.x402.offer import Offer, Taken
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.terms import SignedTerms, read_terms
from gateway.payments.x402.wire import Fields, as_object, decode, encode, malformed, only, text

VERSION = 1

_FIELDS = frozenset(("x402Version", "scheme", "network", "payload"))


def read_payment(header: bytes) -> tuple[Taken, SignedTerms]:
    """Return what an X-PAYMENT header says. Raises PaymentRefused."""
    return payment_of(decode(header))


def payment_of(fields: Fields) -> tuple[Taken, SignedTerms]:
    """Return what a version 1 PaymentPayload object says. Raises PaymentRefused."""
    version = fields.get("x402Version")
    if type(version) is not int or version != VERSION:
        raise PaymentRefused(Reason.VERSION, "X-PAYMENT carries x402Version 1; PAYMENT-SIGNATURE is for version 2")
    only(fields, "the payment", _FIELDS)
    taken = Taken(VERSION, text(fields["scheme"], "scheme"), text(fields["network"], "network"))
    terms = read_terms(as_object(fields["payload"], "payload"))
    if terms.method != "eip3009":
        raise malformed("version 1 pays by EIP-3009 only: payload needs authorization")
    return taken, terms


def offered(offer: Offer) -> bool:
    """Say whether clients of version 1 can take up an offer."""
    return offer.kind.method == "eip3009" and offer.kind.network.x402_name is not None


def requirements(offer: Offer, resource: Resource) -> dict[str, Any]:
    """Return an offer as a version 1 PaymentRequirements object, with version 2's `amount` beside its own."""
    kind = offer.kind
    return {
        "scheme": kind.scheme,
        "network": kind.network.x402_name,
        "maxAmountRequired": str(offer.amount),
        "amount": str(offer.amount),
        "resource": resource.url,
        "description": resource.description,
        "mimeType": resource.mime_type,
        "payTo": offer.pay_to,
        "maxTimeoutSeconds": offer.timeout,
        "asset": kind.asset_text,
        "extra": kind.extra,
    }


def response(settlement: Settlement) -> dict[str, Any]:
    """Return the version 1 SettleResponse object."""
    document: dict[str, Any] = {
        "success": settlement.reason is None,
        "transaction": settlement.transaction_text,
        "network": settlement.network.x402_name,
        "payer": settlement.payer_text,
    }
    if settlement.reason is not None:
        document["errorReason"] = settlement.reason
    return document


def response_header(settlement: Settlement) -> bytes:
    """Return X-PAYMENT-RESPONSE."""
    return encode(response(settlement))
