"""Proof that a caller holds a wallet, without paying: x402's `sign-in-with-x`, in the header SIGN-IN-WITH-X.

A claimed address (X-AGENT-WALLET) alone opens nothing. A proof counts here and now only: its domain and URI are this
gateway's, its nonce was made by this gateway a few minutes ago, its own times bound it further. Refusing a nonce that
was used is the caller's business. Pure: the nonces' secret, the clock and randomness come in as parameters.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.payments.x402.reasons import PaymentRefused
from gateway.payments.x402.signatures import as_contracts_want, question, read_signature, recover
from gateway.payments.x402.siwe import Claims, read_claims, signed_text, text_digest

LIFETIME = 300
"""Seconds for which a nonce is good."""

CLOCK_SKEW = 60
STATEMENT = "Show this gateway that you hold this wallet. This moves no money."

_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


class ProofRefused(Exception):
    """A wallet proof does not hold. The message says why and what to do, for the caller."""


@dataclass(frozen=True, slots=True)
class WalletProof:
    """A wallet (20 bytes) that is proven, unless `question` is set: then ask that contract (signatures.affirms).

    `nonce` is good until `expires` (Unix seconds): who remembers it that long sees a proof used twice.
    """

    wallet: bytes
    network: str
    nonce: str
    expires: int
    question: bytes | None


def make_nonce(secret: bytes, domain: str, now: int, entropy: bytes) -> str:
    """Return a nonce for a challenge, 32 hexadecimal digits: the moment, 4 bytes of `entropy`, and our seal on both."""
    body = now.to_bytes(4, "big") + entropy[:4]
    return (body + _seal(secret, domain, body)).hex()


def challenge(domain: str, uri: str, networks: Sequence[str], nonce: str, now: int) -> dict[str, Any]:
    """Return what a client signs, in the extension's form: official clients complete it and send it back."""
    return {
        "info": {
            "domain": domain,
            "uri": uri,
            "version": "1",
            "nonce": nonce,
            "issuedAt": _moment(now),
            "expirationTime": _moment(now + LIFETIME),
            "statement": STATEMENT,
        },
        "supportedChains": [{"chainId": network, "type": "eip191"} for network in networks],
    }


def verify_proof(header: bytes, secret: bytes, origin: str, networks: Collection[str], now: int) -> WalletProof:
    """Return the wallet that a SIGN-IN-WITH-X header proves for this gateway's origin, such as https://api.example.

    Raises ProofRefused.
    """
    try:
        claims = read_claims(header)
    except PaymentRefused as refused:
        raise ProofRefused(refused.detail) from None
    _check_place(claims, origin, networks)
    expires = _check_nonce(claims.nonce, secret, claims.domain, now)
    _check_times(claims, now)
    signature = read_signature(claims.signature)
    if signature is None:
        raise ProofRefused("the signature ends as ERC-6492's do, but is not laid out like one")
    signed = text_digest(signed_text(claims))
    by_key = signature.deployment is None and recover(signed, as_contracts_want(signature.data)) == claims.wallet
    asked = None if by_key else question(signed, signature.data)
    return WalletProof(claims.wallet, claims.network, claims.nonce, expires, asked)


def _check_place(claims: Claims, origin: str, networks: Collection[str]) -> None:
    if claims.domain != origin.partition("://")[2] or not (claims.uri + "/").startswith(origin + "/"):
        raise ProofRefused(f"the proof is for another place: domain and uri must be those of {origin}")
    if claims.version != "1" or claims.type != "eip191":
        raise ProofRefused('version must be "1" and type "eip191"')
    if claims.network not in networks:
        raise ProofRefused(f"chainId must be one of {', '.join(sorted(networks))}")


def _check_nonce(nonce: str, secret: bytes, domain: str, now: int) -> int:
    """Return when a nonce ends, in Unix seconds."""
    data = bytes.fromhex(nonce) if _NONCE.fullmatch(nonce) else b""
    if not hmac.compare_digest(data[8:], _seal(secret, domain, data[:8])):
        raise ProofRefused("the nonce is not one of this gateway's; ask for a new challenge")
    made = int.from_bytes(data[:4], "big")
    if not made - CLOCK_SKEW <= now < made + LIFETIME:
        raise ProofRefused("the challenge is too old; ask for a new one")
    return made + LIFETIME


def _check_times(claims: Claims, now: int) -> None:
    if _seconds(claims.issued_at, "issuedAt") > now + CLOCK_SKEW:
        raise ProofRefused("issuedAt is in the future")
    if claims.not_before is not None and _seconds(claims.not_before, "notBefore") > now:
        raise ProofRefused("the proof is not valid before its notBefore")
    if claims.expiration_time is not None and _seconds(claims.expiration_time, "expirationTime") <= now:
        raise ProofRefused("the proof has expired; sign a new challenge")


def _seconds(moment: str, what: str) -> float:
    """Return a moment (RFC 3339) as Unix seconds."""
    if not _MOMENT.fullmatch(moment):
        raise ProofRefused(f"{what} must be a moment such as 2026-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (ValueError, OverflowError):
        raise ProofRefused(f"{what} is not a moment that exists") from None


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seal(secret: bytes, domain: str, body: bytes) -> bytes:
    return hmac.digest(secret, b"wallet-proof\0" + domain.encode() + b"\0" + body, "sha256")[:8]
