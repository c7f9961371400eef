"""Receipts: signed statements of what a call asked for, what was delivered and what it cost.

A receipt is a compact JWS (RFC 7515) signed with Ed25519 (RFC 8037). It is made when it is asked for, from what the
ledger recorded with the call's settlement, so the hot path pays only for the hashes. The signing key is derived from
the installation's secret keys: all workers agree on it without storing it, and receipts of a rotated key verify as
long as that key stays configured. Pure: no I/O.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.identity.wallets import caip10
from gateway.ledger.receipts import ReceiptFacts
from pricing.money import format_amount

TYPE = "tollway-receipt+jwt"


class ReceiptError(ValueError):
    """A text is not a receipt that one of the given keys signed. The message says why."""


class ReceiptSigner:
    """Signs with the first secret key and publishes the public keys of all."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = {_key_id(name): _derive(secret) for name, secret in keys.items()}

    @property
    def ready(self) -> bool:
        """Return whether there is a key to sign with."""
        return bool(self._keys)

    def sign(self, payload: Mapping[str, object]) -> str:
        """Return the compact JWS of a payload."""
        key_id, key = next(iter(self._keys.items()))
        header = {"alg": "EdDSA", "kid": key_id, "typ": TYPE}
        signed = f"{_encode(orjson.dumps(header))}.{_encode(orjson.dumps(payload))}"
        return f"{signed}.{_encode(key.sign(signed.encode()))}"

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JWK set (RFC 7517)."""
        return {"keys": [_jwk(key_id, key.public_key()) for key_id, key in self._keys.items()]}


def payload_of(facts: ReceiptFacts, issuer: str) -> dict[str, Any]:
    """Return a receipt's claims. Amounts are exact decimal strings and atomic strings; hashes are hexadecimal."""
    net = facts.amount - facts.refunded
    decimals = facts.asset_decimals
    return {
        "iss": issuer,
        "jti": str(facts.exchange_id),
        "iat": int(facts.charged_at.timestamp()),
        "sub": _payer(facts),
        "request": {
            "publisher": facts.publisher_slug,
            "publisher_id": str(facts.publisher_id),
            "method": facts.method,
            "target_sha256": facts.target_hash.hex() if facts.target_hash else None,
            "body_bytes": facts.bytes_in,
        },
        "delivered": {
            "outcome": facts.outcome,
            "reason": facts.reason,
            "status": facts.status,
            "body_bytes": facts.bytes_out,
            "body_sha256": facts.body_hash.hex() if facts.body_hash else None,
            "ended_at": _moment(facts.ended_at),
        },
        "price": {
            "rail": "prepaid_balance" if facts.payer is None else "x402",
            "asset": facts.asset_symbol,
            "asset_id": str(facts.asset_id),
            "charged": format_amount(net, decimals),
            "charged_atomic": str(net),
            "refunded": format_amount(facts.refunded, decimals),
            "platform_fee": format_amount(facts.fee if net else 0, decimals),
        },
        "ledger": facts.legs,
    } | _on_chain(facts)


def _payer(facts: ReceiptFacts) -> str:
    """Return who paid: an account's id, or a wallet's (CAIP-10)."""
    if facts.payer is None or facts.network is None:
        return str(facts.owner_id)
    return caip10(facts.network, facts.payer)


def _on_chain(facts: ReceiptFacts) -> dict[str, Any]:
    """Return where on its chain a payment can be found."""
    if facts.payee is None or facts.network is None:
        return {}
    transaction = None if facts.transaction is None else "0x" + facts.transaction.hex()
    return {"payment": {"network": facts.network, "pay_to": caip10(facts.network, facts.payee),
                        "transaction": transaction}}  # fmt: skip


def verify(receipt: str, jwks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims of a receipt that a key of the set signed. Raises ReceiptError."""
    parts = receipt.strip().split(".")
    if len(parts) != 3:
        raise ReceiptError("it does not have three parts")
    try:
        header: dict[str, Any] = orjson.loads(_decode(parts[0]))
        payload: dict[str, Any] = orjson.loads(_decode(parts[1]))
        signature = _decode(parts[2])
    except ValueError:
        raise ReceiptError("it is not base64url-encoded JSON") from None
    if header.get("alg") != "EdDSA" or header.get("typ") != TYPE:
        raise ReceiptError("it is not a receipt (alg EdDSA, typ tollway-receipt+jwt)")
    keys = cast("list[dict[str, str]]", jwks.get("keys") or [])
    known = next((key for key in keys if key.get("kid") == header.get("kid") and key.get("crv") == "Ed25519"), None)
    if known is None:
        raise ReceiptError("no key of the set has its key id")
    try:
        Ed25519PublicKey.from_public_bytes(_decode(known["x"])).verify(signature, f"{parts[0]}.{parts[1]}".encode())
    except (InvalidSignature, ValueError, KeyError):
        raise ReceiptError("its signature is wrong: it was changed, or signed by somebody else") from None
    return payload


def _derive(secret: bytes) -> Ed25519PrivateKey:
    seed = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"tollway receipt signing key 1").derive(secret)
    return Ed25519PrivateKey.from_private_bytes(seed)


def _key_id(name: str) -> str:
    return f"receipt-{name}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _jwk(key_id: str, key: Ed25519PublicKey) -> dict[str, str]:
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key_id, "x": _encode(raw)}


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _moment(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")
