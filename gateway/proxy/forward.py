"""Step 7, forward: the call as the upstream sees it.

The agent's credentials and payment fields never go on; of its other fields only those that the publisher allows do,
with their bytes and order. Path and query are the bytes that came in, below the publisher's base path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache
from urllib.parse import unquote_plus

from gateway.catalog.snapshot import Publisher, Route
from gateway.proxy.destination import Destination
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.identify import peer_address
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.origin import Origin

# RFC 9110 section 7.6.1, and what older intermediaries used.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding"
    b" upgrade http2-settings".split()
)
# Never forwarded, whatever the publisher allows: what the agent shows us alone, what would let a request mean another
# method than the one it was priced as, and what we write ourselves.
OURS_ALONE = frozenset(
    b"authorization cookie host via forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port"
    b" x-real-ip payment-signature payment-required x-payment x-agent-wallet x-http-method"
    b" x-http-method-override x-method-override x-request-id expect".split()
)
VIA = (b"via", b"1.1 tollway")
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})


async def forward(exchange: Exchange, client: UpstreamClient, to: Destination) -> UpstreamResponse:
    """Send the call on and return the upstream's answer once its head is there. Raises UpstreamError."""
    body = await request_body(exchange)
    return await client.send(
        to.lane,
        exchange.method.encode("ascii"),
        target(to.route, exchange.path, exchange.query),
        request_headers(exchange, to.publisher, to.route, to.origin, has_body=bool(body)),
        body,
        to.timeouts,
    )


def target(route: Route, path: bytes, query: bytes) -> bytes:
    """Return the upstream request target: base path, the caller's bytes, and the publisher's key if it goes there."""
    if route.query is not None:
        name, key = route.query
        # The caller's parameter of this name is dropped: an upstream that reads the first would take theirs.
        kept = [
            part
            for part in query.split(b"&")
            if part and unquote_plus(part.partition(b"=")[0].decode("latin-1")) != name
        ]
        query = b"&".join([*kept, _query_pair(name, key)])
    full = route.base_path + path or b"/"
    return full + b"?" + query if query else full


@lru_cache(maxsize=8192)
def _query_pair(name: str, key: bytes) -> bytes:
    from urllib.parse import quote_plus

    return f"{quote_plus(name)}={quote_plus(key)}".encode()


def request_headers(
    exchange: Exchange, publisher: Publisher, route: Route, origin: Origin, *, has_body: bool
) -> HeaderPairs:
    """Return the fields of the upstream request: Host, the caller's allowed ones in order, the publisher's, ours."""
    headers: HeaderPairs = [(b"host", origin.authority)]
    listed = connection_options(exchange.scope["headers"])
    allowed, everything, own = publisher.passthrough, publisher.passthrough_all, publisher.route_names
    typed = False
    for pair in exchange.scope["headers"]:
        name = pair[0]
        if name not in allowed and not everything:
            continue
        if name in HOP_BY_HOP or name in OURS_ALONE or name in own or name in listed:
            continue
        if name == b"content-type":
            typed = True
        headers.append(pair)
    if has_body and not typed and b"content-type" not in own:
        headers.append((b"content-type", publisher.content_type))
    headers.extend(route.headers)
    headers.append(VIA)
    headers.append((b"x-forwarded-for", peer_address(exchange).encode("latin-1")))
    headers.append((b"x-forwarded-proto", str(exchange.scope.get("scheme", "http")).encode()))
    host = exchange.fields.get(b"host")
    if host is not None:
        headers.append((b"x-forwarded-host", host))
    headers.append((b"x-request-id", str(exchange.id).encode()))
    return headers


def connection_options(headers: HeaderPairs) -> frozenset[bytes]:
    """Return the lower-case field names that Connection lists as hop-by-hop."""
    for name, _ in headers:
        if name == b"connection" or name == b"Connection":
            break
    else:
        return frozenset()
    return frozenset(
        option.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for option in value.split(b",")
    )


async def request_body(exchange: Exchange) -> bytes | AsyncIterator[bytes] | None:
    """Return the request body: None without one, bytes when it is here whole, else a stream with backpressure."""
    fields = exchange.fields
    announced = fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in fields
    if not announced and exchange.scope.get("http_version", "1.1")[0] == "1":
        return b"" if exchange.method in BODY_METHODS else None
    message = await exchange.receive()
    first: bytes = message.get("body", b"")
    exchange.took_in(first)
    if message["type"] == "http.disconnect":
        raise ClientGone
    if not message.get("more_body"):
        return first if first or exchange.method in BODY_METHODS else None
    return _stream(exchange, first)


class ClientGone(Exception):
    """The caller left before its request was complete."""


async def _stream(exchange: Exchange, first: bytes) -> AsyncIterator[bytes]:
    if first:
        yield first
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        if piece:
            exchange.took_in(piece)
            yield piece
        if not message.get("more_body"):
            return
