"""Which fields of a publisher's answer reach the caller: one look-up per field, by its name.

Most pass as they came. What is said by the gateway on every answer, and what concerns one connection, does not; nor do
orders to servers in front of the gateway and what browsers would hold for the whole host (docs/publishers.md lists
them). Fields that hold a URL are shown as the caller may follow it (locations.py).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TypeAlias

from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.forward import HOP_BY_HOP, caller_host
from gateway.proxy.locations import Asked, PublicPlace, links, location, refresh
from gateway.proxy.own_secrets import shows, spellings

# Said by us on every answer, so an upstream's own of these names are dropped: it cannot claim a cost.
OURS = frozenset(
    b"x-cost x-cost-max x-cost-asset x-cost-drawn x-balance x-balance-low x-budget-left x-request-id ratelimit"
    b" ratelimit-policy idempotency-replayed payment-response x-payment-response payment-required".split()
)
# Orders to a server in front of us: which file to send, where to ask again, what to keep for how long.
TO_SERVERS = frozenset(
    b"x-sendfile x-lighttpd-send-file x-send-file x-reproxy-url x-reproxy-file x-location-sendfile surrogate-control"
    b" surrogate-key cdn-cache-control cloudflare-cdn-cache-control edge-control x-litespeed-cache-control".split()
)
# What holds in a browser for the whole host, which is the gateway's and every other publisher's as well.
OF_THE_HOST = frozenset(
    b"alt-svc strict-transport-security clear-site-data nel report-to reporting-endpoints service-worker-allowed"
    b" expect-ct public-key-pins public-key-pins-report-only origin-agent-cluster set-login speculation-rules"
    b" accept-ch accept-ch-lifetime critical-ch origin-trial use-as-dictionary observe-browsing-topics"
    b" sec-session-registration sec-session-challenge secure-session-registration"
    b" activate-storage-access".split()
)
PREFIXES = (b"x-accel-", b"x-litespeed-", b"surrogate-", b"x-cost-", b"x-balance-", b"x-budget-", b"x-tollway-")
DROPPED = HOP_BY_HOP | OURS | TO_SERVERS | OF_THE_HOST

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
    plain = name.replace(b"_", b"-")  # some servers do not tell these names apart
    if plain in DROPPED or plain.startswith(PREFIXES):
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


def without_secrets(exchange: Exchange, headers: HeaderPairs) -> HeaderPairs:
    """Return an answer's fields without those in which the publisher's own credential stands."""
    secrets = exchange.to.secrets if exchange.to is not None else ()
    if exchange.token is not None:
        secrets += spellings(exchange.token)
    if not secrets or not shows(b"\n".join([value for _, value in headers]), secrets):
        return headers
    return [pair for pair in headers if not shows(pair[1], secrets)]
