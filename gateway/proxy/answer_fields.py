"""Which fields of a publisher's answer reach the caller: one look-up per field, by its name.

Most pass as they came. What is said by the gateway on every answer, and what concerns one connection, does not; fields
that hold a URL are shown as the caller may follow it (locations.py).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TypeAlias

from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.forward import HOP_BY_HOP, caller_host
from gateway.proxy.locations import Asked, PublicPlace, links, location, refresh

# Said by us on every answer, so an upstream's own of these names are dropped: it cannot claim a cost.
OURS = frozenset(
    b"x-cost x-cost-max x-cost-asset x-cost-drawn x-balance x-balance-low x-budget-left x-request-id ratelimit"
    b" ratelimit-policy idempotency-replayed payment-response x-payment-response".split()
)

Rewrite: TypeAlias = Callable[[bytes, PublicPlace, Asked], bytes | None]
URLS: dict[bytes, Rewrite] = {
    b"location": location,
    b"content-location": location,
    b"operation-location": location,
    b"azure-asyncoperation": location,
    b"sourcemap": location,
    b"x-sourcemap": location,
    b"refresh": refresh,
    b"link": links,
}
"""Fields that hold URLs. Of each but Link an answer has one; of several, readers take different ones."""


class Kind(IntEnum):
    """What becomes of a field."""

    PASSED = 0
    DROPPED = 1
    DATE = 2
    URL = 3


Classified: TypeAlias = tuple[bytes, Kind]
# By the name as it stood on the wire, which saves its small letters as well. Bounded: names are the upstream's.
_known: dict[bytes, Classified] = {}
_KNOWN_MAX = 4096


def classify(raw_name: bytes) -> Classified:
    """Return a field's name in small letters and what becomes of it."""
    known = _known.get(raw_name)
    return _classified(raw_name) if known is None else known


def _classified(raw_name: bytes) -> Classified:
    name = raw_name.lower()
    if name in HOP_BY_HOP or name in OURS:
        kind = Kind.DROPPED
    elif name in URLS:
        kind = Kind.URL
    else:
        kind = Kind.DATE if name == b"date" else Kind.PASSED
    if len(_known) < _KNOWN_MAX:
        _known[raw_name] = name, kind
    return name, kind


def with_public_urls(exchange: Exchange, headers: HeaderPairs) -> HeaderPairs:
    """Return an answer's fields with the URLs in them as the caller may follow them."""
    if exchange.to is None:
        raise RuntimeError("the call has not been forwarded")
    place = exchange.to.public
    asked = Asked(exchange.path, caller_host(exchange))
    shown: HeaderPairs = []
    seen: set[bytes] = set()
    for name, value in headers:
        rewrite = URLS.get(name)
        if rewrite is None:
            shown.append((name, value))
            continue
        if name in seen and name != b"link":
            continue
        seen.add(name)
        public = rewrite(value, place, asked)
        if public is not None:
            shown.append((name, public))
    return shown
