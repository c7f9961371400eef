"""Step 7, forward: the call as the upstream sees it.

The agent's credentials and payment fields never go on; of its other fields only those that the publisher allows do,
with their bytes and order. Path and query are the bytes that came in, below the publisher's base path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache
from typing import TypeAlias

from gateway.billing.x402_passthrough import RELAYED
from gateway.catalog.snapshot import Publisher, Route
from gateway.errors import Problem
from gateway.proxy.body import request_body
from gateway.proxy.destination import Destination
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.identify import holds_key, peer_address
from gateway.proxy.judge import judges
from gateway.proxy.locations import names_parameter
from gateway.proxy.meter import NOT_ASKED
from gateway.upstreams.auth.authenticator import Authenticator
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.http.upload import KeptBody
from gateway.upstreams.origin import Origin

# RFC 9110 section 7.6.1, and what older intermediaries used.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding"
    b" upgrade http2-settings".split()
)
# Never forwarded, whatever the publisher allows: what the agent shows us alone; what lets servers read another method,
# target, address or file than the one that was priced; and what we write ourselves.
OURS_ALONE = frozenset(
    b"authorization cookie host via forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port"
    b" x-forwarded-scheme x-forwarded-ssl x-forwarded-server x-forwarded-prefix x-forwarded-path x-forwarded-uri"
    b" x-forwarded-method x-real-ip true-client-ip cf-connecting-ip fastly-client-ip x-client-ip x-cluster-client-ip"
    b" payment-signature payment-required x-payment x-agent-wallet sign-in-with-x x-http-method x-http-method-override"
    b" x-method-override x-original-method x-original-url x-original-uri x-rewrite-url proxy x-sendfile-type"
    b" x-accel-mapping x-request-id expect".split()
)
VIA = (b"via", b"1.1 tollway")
LONGEST_HOST = 255

NOTHING: frozenset[bytes] = frozenset()
NO_FIELDS: HeaderPairs = []

Body: TypeAlias = bytes | AsyncIterator[bytes] | None


async def forward(
    exchange: Exchange, client: UpstreamClient, to: Destination, payment: HeaderPairs = NO_FIELDS
) -> UpstreamResponse:
    """Send the call on and return the upstream's answer once its head is there. Raises UpstreamError.

    `payment` is what the gateway pays for it with.
    """
    exchange.to = to
    body = await request_body(exchange)
    headers = request_headers(exchange, to.publisher, to.route, to.origin, has_body=bool(body)) + payment
    auth = exchange.own or to.auth
    if auth is not None:
        return await _forward_authenticated(exchange, client, to, auth, headers, body)
    return await _send(exchange, client, to, headers, body)


async def _forward_authenticated(
    exchange: Exchange, client: UpstreamClient, to: Destination, auth: Authenticator, headers: HeaderPairs, body: Body
) -> UpstreamResponse:
    """Send with a token. One that the server no longer takes is replaced, once: 401 says that nothing was done."""
    kept = None if body is None or isinstance(body, bytes) else KeptBody(body)
    token = await auth.token(str(exchange.id))
    answer = await _send(
        exchange, client, to, [*headers, let_in(exchange, token)], body if kept is None else kept.pass_on()
    )
    if answer.status != 401 or not auth.reject(token) or (kept is not None and not kept.whole):
        return answer
    try:
        fresh = await auth.token(str(exchange.id))
    except Problem:  # the caller has to connect again, which the next call is told: this one has its answer
        return answer
    except UpstreamError:
        await answer.aclose()
        raise
    if fresh == token:
        return answer
    await answer.aclose()
    return await _send(
        exchange, client, to, [*headers, let_in(exchange, fresh)], body if kept is None else kept.content
    )


def let_in(exchange: Exchange, token: bytes) -> tuple[bytes, bytes]:
    """Return the field that carries a token to a publisher's server, and note which: no answer may show it."""
    exchange.token = token
    return bearer(token)


def bearer(token: bytes) -> tuple[bytes, bytes]:
    """Return the field that carries a token."""
    return (b"authorization", b"Bearer " + token)


async def _send(
    exchange: Exchange, client: UpstreamClient, to: Destination, headers: HeaderPairs, body: Body
) -> UpstreamResponse:
    method = exchange.method.encode("ascii")
    return await client.send(
        to.lane, method, target(to.route, exchange.path, exchange.query), headers, body, to.timeouts
    )


def target(route: Route, path: bytes, query: bytes) -> bytes:
    """Return the upstream request target: base path, the caller's bytes, and the publisher's key if it goes there."""
    if route.query is not None:
        name, key = route.query
        # The caller's parameter of this name is dropped: an upstream that reads the first would take theirs.
        kept = [part for part in query.split(b"&") if not names_parameter(part, name)] if query else []
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
    own, everything = publisher.route_names, publisher.passthrough_all
    dropped = connection_options(exchange.scope["headers"])
    typed, reads = False, (exchange.meter is not None and exchange.meter.reads) or judges(exchange)
    if reads:
        dropped |= NOT_ASKED
    allowed = _allowed(publisher.passthrough, own)
    relayed = _allowed(RELAYED, own, ours_too=True) if exchange.purse.relays else NOTHING
    for pair in exchange.scope["headers"]:
        name = pair[0]
        if name not in allowed and not (everything and _passes(name, own)) and name not in relayed:
            continue
        if dropped and (name in dropped or name.replace(b"_", b"-") in dropped):
            continue
        if b"seren_" in pair[1] and holds_key(pair[1]):  # a credential of ours in another field than its own
            continue
        if name == b"content-type":
            typed = True
        headers.append(pair)
    if has_body and not typed and b"content-type" not in own:
        headers.append((b"content-type", publisher.content_type))
    if reads:
        headers.append((b"accept-encoding", b"identity"))
    headers.extend(route.headers)
    headers.extend(said_by_us(exchange))
    return headers


@lru_cache(maxsize=4096)
def _allowed(names: frozenset[bytes], own: frozenset[bytes], *, ours_too: bool = False) -> frozenset[bytes]:
    """Return which of the listed fields are forwarded; `own` are the publisher's, which replace a caller's."""
    return frozenset(name for name in names if _passes(name, own, ours_too=ours_too))


def _passes(name: bytes, own: frozenset[bytes], *, ours_too: bool = False) -> bool:
    """Return whether a field may be forwarded at all. CGI-like servers cannot tell `_` in a name from `-`."""
    name = name.replace(b"_", b"-")
    return not (name in HOP_BY_HOP or name in own or (name in OURS_ALONE and not ours_too))


def said_by_us(exchange: Exchange) -> HeaderPairs:
    """Return the fields about the caller. What it says of itself counts only when it is a trusted proxy."""
    address, scheme = peer_address(exchange), str(exchange.scope.get("scheme", "http"))
    host, via = caller_host(exchange), exchange.fields.get(b"via")
    if exchange.by_trusted_proxy:
        chain, said = exchange.fields.get(b"x-forwarded-for"), exchange.fields.get(b"x-forwarded-proto")
        about = _about_caller(address, chain, scheme, said, host, via)
    elif via is None and (host is None or len(host) <= LONGEST_HOST):
        about = _about_known_caller(address, scheme, host)
    else:
        about = _about_caller(address, None, scheme, None, host, via)
    return [*about, (b"x-request-id", str(exchange.id).encode())]


@lru_cache(maxsize=4096)
def _about_known_caller(address: str, scheme: str, host: bytes | None) -> HeaderPairs:
    """Return the same for calls over one connection. All that is cached is short."""
    return _about_caller(address, None, scheme, None, host, None)


def _about_caller(
    address: str, chain: bytes | None, scheme: str, said: bytes | None, host: bytes | None, via: bytes | None
) -> HeaderPairs:
    """Return the fields about the caller less the request's id; `chain` and `said` are a trusted proxy's words."""
    whole = address.encode("latin-1")
    said = said.lower() if said is not None else None
    headers = [
        (b"via", via + b", 1.1 tollway") if via else VIA,
        (b"x-forwarded-for", chain + b", " + whole if chain else whole),
        (b"x-forwarded-proto", said if said in (b"http", b"https") else scheme.encode()),
    ]
    return [*headers, (b"x-forwarded-host", host)] if host else headers


def caller_host(exchange: Exchange) -> bytes | None:
    """Return the host that the caller has named, or a trusted proxy for it."""
    host = exchange.fields.get(b"host")
    return exchange.fields.get(b"x-forwarded-host", host) if exchange.by_trusted_proxy else host


def connection_options(headers: HeaderPairs) -> frozenset[bytes]:
    """Return the lower-case field names that Connection lists as hop-by-hop."""
    for name, _ in headers:
        if len(name) == 10 and name.lower() == b"connection":
            break
    else:
        return frozenset()
    return frozenset(
        option.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for option in value.split(b",")
    )
