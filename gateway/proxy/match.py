"""Step 2, match: the slug's publisher and the documented endpoints that the path may name."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from gateway.catalog.endpoints import UNDOCUMENTED, Candidates
from gateway.catalog.readings import AmbiguousPath, is_plain, read_path
from gateway.catalog.snapshot import Catalog, Publisher
from gateway.errors import EndpointNotOffered, EndpointProtected, InvalidTarget, KindNotServed, UnknownPublisher
from gateway.proxy.exchange import Exchange
from gateway.proxy.query_request import check_target
from gateway.proxy.requirements import require

METHOD_PARAMETERS = frozenset({"_method", "_httpmethod", "x-http-method-override"})


def match(exchange: Exchange, catalog: Catalog) -> Candidates:
    """Set the publisher and return the endpoints whose prices may apply (see catalog.endpoints).

    Raises UnknownPublisher, KindNotServed, InvalidTarget, EndpointProtected or EndpointNotOffered.
    """
    publisher = catalog.find(exchange.slug)
    if publisher is None:
        raise UnknownPublisher("No publisher has this slug. GET /publishers lists those that there are.")
    exchange.publisher = publisher
    if publisher.not_served is not None:
        raise KindNotServed(f"{publisher.slug} {publisher.not_served}; this gateway cannot call it yet.")
    if publisher.mcp:  # its paths name tools, which are read in one way only (proxy/mcp/request.py)
        return UNDOCUMENTED
    if publisher.sale is not None:
        check_target(exchange)
        return UNDOCUMENTED
    if exchange.query and publisher.prices_by_method:
        _refuse_other_method(exchange)
    if not publisher.endpoints and not publisher.default_deny and is_plain(exchange.path):
        return UNDOCUMENTED
    return _documented(exchange, publisher)


def _documented(exchange: Exchange, publisher: Publisher) -> Candidates:
    """Return the endpoints that any reading of the path names. Raises as `match`."""
    try:
        reading = read_path(exchange.path)
    except AmbiguousPath as error:
        raise InvalidTarget(f"The path cannot be forwarded: {error}.") from None
    candidates = publisher.endpoints.match(exchange.method, reading) if publisher.endpoints else UNDOCUMENTED
    for endpoint in candidates:
        if endpoint is not None and endpoint.is_protected:
            raise EndpointProtected(endpoint.protection_reason or "The publisher has protected this endpoint.")
    if publisher.default_deny and None in candidates:
        raise EndpointNotOffered(
            f"{publisher.slug} sells only documented endpoints, and some servers would read another one in this path;"
            f" GET /publishers/{publisher.slug} lists them."
            if any(endpoint is not None for endpoint in candidates)
            else f"{publisher.slug} sells only documented endpoints; GET /publishers/{publisher.slug} lists them."
        )
    named = candidates[0]
    if named is not None and named.requires:
        require(exchange, named)
    return candidates


def _refuse_other_method(exchange: Exchange) -> None:
    """Refuse a query that makes frameworks (Symfony, Express) run another method than the one that is priced."""
    for part in re.split(rb"[&;]", exchange.query):
        name, _, value = part.partition(b"=")
        if unquote_plus(name.decode("latin-1")).strip().casefold() in METHOD_PARAMETERS:
            meant = unquote_plus(value.decode("latin-1")).strip().upper()
            if meant != exchange.method:
                raise InvalidTarget("The query names another method than the request: send that method itself.")
