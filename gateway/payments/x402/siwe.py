"""Sign-In with Ethereum (EIP-4361): the claims in a SIGN-IN-WITH-X header, and the text that a wallet signed over them.

Every claim is one printable line: a line break in one would forge the next. What does not live here: whether the claims
hold for this gateway now (wallet_proof.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from gateway.eip55 import keccak_256
from gateway.payments.x402.wire import Fields, address, decode, malformed, octets, only, text

MAX_RESOURCES = 16

_REQUIRED = frozenset(("domain", "address", "uri", "version", "chainId", "type", "nonce", "issuedAt", "signature"))
_OPTIONAL = frozenset(("statement", "expirationTime", "notBefore", "requestId", "resources", "signatureScheme"))
_LINE = re.compile(r"[\x20-\x7e]{1,512}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a wallet says of itself, as written; `wallet` is the address (20 bytes), `network` a CAIP-2 id."""

    domain: str
    address: str
    wallet: bytes
    uri: str
    version: str
    network: str
    type: str
    nonce: str
    issued_at: str
    statement: str | None
    expiration_time: str | None
    not_before: str | None
    request_id: str | None
    resources: tuple[str, ...] | None
    signature: bytes


def read_claims(header: bytes) -> Claims:
    """Return what a SIGN-IN-WITH-X header says: base64 JSON, as payments are. Raises PaymentRefused."""
    fields = decode(header)
    only(fields, "the proof", _REQUIRED, _OPTIONAL)
    return Claims(
        domain=_line(fields["domain"], "domain"),
        address=_line(fields["address"], "address"),
        wallet=address(fields["address"], "address"),
        uri=_line(fields["uri"], "uri"),
        version=_line(fields["version"], "version"),
        network=_line(fields["chainId"], "chainId"),
        type=_line(fields["type"], "type"),
        nonce=_line(fields["nonce"], "nonce"),
        issued_at=_line(fields["issuedAt"], "issuedAt"),
        statement=_optional(fields, "statement"),
        expiration_time=_optional(fields, "expirationTime"),
        not_before=_optional(fields, "notBefore"),
        request_id=_optional(fields, "requestId"),
        resources=_resources(fields.get("resources")),
        signature=octets(fields["signature"], "signature"),
    )


def signed_text(claims: Claims) -> str:
    """Return the message that the wallet showed and signed."""
    lines = [
        f"{claims.domain} wants you to sign in with your Ethereum account:",
        claims.address,
        "",
        *((claims.statement, "") if claims.statement is not None else ("",)),
        f"URI: {claims.uri}",
        f"Version: {claims.version}",
        f"Chain ID: {claims.network.removeprefix('eip155:')}",
        f"Nonce: {claims.nonce}",
        f"Issued At: {claims.issued_at}",
    ]
    for label, claim in (
        ("Expiration Time", claims.expiration_time),
        ("Not Before", claims.not_before),
        ("Request ID", claims.request_id),
    ):
        if claim is not None:
            lines.append(f"{label}: {claim}")
    if claims.resources is not None:
        lines += ["Resources:", *(f"- {resource}" for resource in claims.resources)]
    return "\n".join(lines)


def text_digest(message: str) -> bytes:
    """Return what a wallet really signs for a text (EIP-191, "personal sign")."""
    data = message.encode()
    return keccak_256(b"\x19Ethereum Signed Message:\n" + str(len(data)).encode() + data)


def _line(value: object, what: str) -> str:
    line = text(value, what)
    if not _LINE.fullmatch(line):
        raise malformed(f"{what} must be one line of at most 512 printable ASCII characters")
    return line


def _optional(fields: Fields, name: str) -> str | None:
    value = fields.get(name)
    return None if value is None else _line(value, name)


def _resources(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    entries = cast("list[object]", value) if isinstance(value, list) else None
    if entries is None or len(entries) > MAX_RESOURCES:
        raise malformed(f"resources must be a list of at most {MAX_RESOURCES}")
    return tuple(_line(entry, "resources") for entry in entries)
