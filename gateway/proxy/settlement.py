"""What the ledger records of a call that was delivered, and its receipt says."""

from __future__ import annotations

import hashlib

from gateway.ledger.entries import Settlement
from gateway.proxy.exchange import Exchange


def settlement_of(exchange: Exchange, reason: str) -> Settlement:
    """Return what the ledger records of a delivered call, and its receipt says."""
    target = b"/publishers/" + exchange.slug.encode("latin-1") + exchange.path
    if exchange.query:
        target += b"?" + exchange.query
    return Settlement(
        exchange.id,
        reason,
        exchange.status,
        exchange.bytes_in,
        exchange.bytes_out,
        exchange.method,
        hashlib.sha256(target).digest(),
        exchange.body_hasher.digest() if exchange.body_hasher is not None else None,
        _endpoint_of(exchange),
        exchange.rows.count if exchange.rows is not None else None,
    )


def _endpoint_of(exchange: Exchange) -> str | None:
    """Return what was called by the name that its publisher knows it by; None when it has none."""
    if exchange.named is not None:
        return exchange.named
    return next((one.path for one in exchange.candidates if one is not None), None)
