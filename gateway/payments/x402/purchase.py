"""The other side of x402: what an upstream asks for, whether the gateway's own wallet may pay that, and how it does.

Pure. Everything in an upstream's 402 is its word alone: an offer is taken only when every part of it is one that we
allow, and what is signed is made of our own kinds (asset, domain), never of its `extra`. What does not live here: the
signature and its row (evm/purchases.py), and the agent's money (proxy/buying.py).
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import orjson

from gateway.payments.evm.encoding import show_address
from gateway.payments.x402.offer import PaymentKind
from gateway.payments.x402.reasons import PaymentRefused
from gateway.payments.x402.terms import SignedTerms
from gateway.payments.x402.wire import Fields, address, encode, uint256

MAX_REQUIRED = 65_536
"""Bytes of an upstream's offers, in its header or its body."""

MAX_OFFERS = 64
FLOWS = (None, "authorization", "upfront")
"""Ways of x402 to take an authorization, after or before the answer is made; of others we know nothing."""

LEAST_SECONDS = 5
"""An authorization that lives shorter than this cannot be settled."""

Why = Literal["no_offer", "kind", "payee", "resource", "expiry", "price"]
"""What keeps an offer from being taken, the nearer to taking it the later in the list."""

WHYS: tuple[Why, ...] = ("no_offer", "kind", "payee", "resource", "expiry", "price")
HEADERS = {1: b"x-payment", 2: b"payment-signature"}
ANSWERS = (b"payment-response", b"x-payment-response")


@dataclass(frozen=True, slots=True)
class Required:
    """An upstream's 402: the entries of `accepts` as it wrote them, and version 2's resource."""

    version: Literal[1, 2]
    accepts: tuple[Fields, ...]
    resource: Fields | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be bought: by which kinds (exact, EIP-3009), from whom (20 bytes each), of which host (lower case), for
    how many atomic units at most, signed for how many seconds at most.
    """

    kinds: Sequence[PaymentKind]
    payees: frozenset[bytes]
    host: str
    most: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The offer that is taken up. `amount` is atomic units, `seconds` how long the authorization shall live."""

    required: Required
    accepted: Fields
    kind: PaymentKind
    amount: int
    payee: bytes
    seconds: int


@dataclass(frozen=True, slots=True)
class NotChosen:
    """Why no offer is taken, of that which came nearest. `asked` is the cheapest price, where the price is why."""

    why: Why
    asked: int | None = None


def read_required(header: bytes | None, body: bytes | None) -> Required | None:
    """Return what a 402 asks for: version 2's header, else the body of either version; None when it is neither."""
    if header is not None and len(header) <= MAX_REQUIRED:
        try:
            found = _required(binascii.a2b_base64(header))
        except binascii.Error:
            found = None
        if found is not None:
            return found
    return _required(body) if body is not None and len(body) <= MAX_REQUIRED else None


def _required(text: bytes) -> Required | None:
    try:
        document = _fields(orjson.loads(text))
    except orjson.JSONDecodeError:
        return None
    version, listed = document.get("x402Version"), document.get("accepts")
    if type(version) is not int or version not in (1, 2) or not isinstance(listed, list):
        return None
    entries = [_fields(one) for one in cast("list[object]", listed)[:MAX_OFFERS]]
    return Required(version, tuple(entries), _fields(document.get("resource")) or None)


def _fields(value: object) -> Fields:
    """Return a JSON object as it is, nothing of any other value."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def choose(required: Required | None, allowed: Allowed) -> Chosen | NotChosen:
    """Return the cheapest offer that may be taken, the first of equals; or why there is none."""
    if required is None:
        return NotChosen("no_offer")
    judged = [_judge(required, entry, allowed) for entry in required.accepts]
    taken = [one for one in judged if isinstance(one, Chosen)]
    if taken:
        return min(taken, key=lambda one: one.amount)
    missed = [one for one in judged if isinstance(one, NotChosen)]
    nearest = max(missed, key=lambda one: (WHYS.index(one.why), -(one.asked or 0)), default=None)
    return nearest or NotChosen("no_offer")


def _judge(required: Required, entry: Fields, allowed: Allowed) -> Chosen | NotChosen:
    kind = next((kind for kind in allowed.kinds if _is_of(required.version, entry, kind)), None)
    if kind is None:
        return NotChosen("kind")
    try:
        payee = address(entry.get("payTo"), "payTo")
        amount = uint256(entry.get("maxAmountRequired" if required.version == 1 else "amount"), "amount")
    except PaymentRefused:
        return NotChosen("kind")
    if payee not in allowed.payees:
        return NotChosen("payee")
    if not _is_here(_url(required, entry), allowed.host):
        return NotChosen("resource")
    timeout = entry.get("maxTimeoutSeconds")
    if not isinstance(timeout, int) or timeout < LEAST_SECONDS:
        return NotChosen("expiry")
    if not 0 < amount <= allowed.most:
        return NotChosen("price", amount)
    return Chosen(required, entry, kind, amount, payee, min(timeout, allowed.seconds))


def _is_of(version: int, entry: Fields, kind: PaymentKind) -> bool:
    """Say whether an entry asks for this kind, under the very domain that we sign for."""
    network = kind.network.x402_name if version == 1 else kind.network.id
    said = _fields(entry.get("extra"))
    try:
        token = address(entry.get("asset"), "asset")
    except PaymentRefused:
        return False
    return (
        entry.get("scheme") == "exact"
        and network is not None
        and entry.get("network") == network
        and token == kind.asset
        and said.get("assetTransferMethod") in (None, "eip3009")
        and said.get("paymentFlow") in FLOWS
        and all(said.get(name, kind.extra[name]) == kind.extra[name] for name in ("name", "version"))
    )


def _url(required: Required, entry: Fields) -> object:
    return entry.get("resource") if required.version == 1 else (required.resource or {}).get("url")


def _is_here(url: object, host: str) -> bool:
    """Say whether a resource is of this host; one that names no host is of the server that was asked."""
    if url is None or (isinstance(url, str) and url.startswith("/") and not url.startswith("//")):
        return True
    try:
        return isinstance(url, str) and (urlsplit(url).hostname or "").rstrip(".") == host
    except ValueError:
        return False


def terms_of(chosen: Chosen, payer: bytes, nonce: bytes, now: int, signature: bytes = b"") -> SignedTerms:
    """Return what is signed: this amount to this payee, from now on and for as long as was chosen."""
    return SignedTerms(
        "eip3009", payer, chosen.payee, chosen.amount, 0, now + chosen.seconds, nonce, signature
    )  # fmt: skip


def payment_field(chosen: Chosen, terms: SignedTerms) -> tuple[bytes, bytes]:
    """Return the field of the request that presents a signed payment, in the version of the offer."""
    payload = {
        "signature": "0x" + terms.signature.hex(),
        "authorization": {
            "from": show_address(terms.payer),
            "to": show_address(terms.payee),
            "value": str(terms.value),
            "validAfter": str(terms.valid_after),
            "validBefore": str(terms.valid_before),
            "nonce": "0x" + terms.nonce.hex(),
        },
    }
    required = chosen.required
    document: dict[str, Any] = {"x402Version": required.version, "payload": payload}
    if required.version == 1:
        document |= {"scheme": "exact", "network": chosen.kind.network.x402_name}
    else:
        document["accepted"] = chosen.accepted
        if required.resource is not None:
            document["resource"] = required.resource
    return HEADERS[required.version], encode(document)


@dataclass(frozen=True, slots=True)
class Said:
    """What an upstream's answer says of a payment: whether it was settled (None: nothing), and by which transaction."""

    success: bool | None = None
    transaction: str | None = None


def read_settlement(header: bytes | None) -> Said:
    """Return what PAYMENT-RESPONSE, or version 1's field, says. What cannot be read says nothing."""
    if header is None or len(header) > MAX_REQUIRED:
        return Said()
    try:
        document = _fields(orjson.loads(binascii.a2b_base64(header)))
    except (binascii.Error, orjson.JSONDecodeError):
        return Said()
    success, transaction = document.get("success"), document.get("transaction")
    known = isinstance(transaction, str) and 0 < len(transaction) <= 128
    return Said(success if isinstance(success, bool) else None, transaction if known else None)
