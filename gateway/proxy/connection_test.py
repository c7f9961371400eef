"""Trying a publisher's server as its calls would reach it: same URL, fields and credentials, checked the same way.

What does not live here: the try itself (upstreams/probe.py) and who may ask for it (admin_api, cli).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Literal

from gateway.catalog.authentication import compile_authentication
from gateway.catalog.delivery import compile_delivery
from gateway.catalog.refusals import refused
from gateway.catalog.snapshot import route_of
from gateway.ids import uuid7
from gateway.proxy.destination import Authenticate, origin_of, timeouts_of
from gateway.proxy.exchange import HeaderPairs
from gateway.proxy.forward import VIA, bearer, target
from gateway.settings import ProxySettings
from gateway.upstreams.auth.errors import TokenUnavailable
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.probe import Finding, probe

# Somebody waits for the result, and a gateway must not be made to wait for hours.
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 15.0
AGENT = (b"user-agent", b"tollway-connection-test")

Method = Literal["GET", "HEAD"]


async def try_connection(
    guard: EgressGuard,
    settings: ProxySettings,
    authenticate: Authenticate,
    document: Mapping[str, Any],
    secrets: Mapping[str, Any],
    *,
    method: Method = "GET",
    path: str = "/",
    tls: ssl.SSLContext | None = None,
) -> Finding:
    """Send one request to where `document` leads and return what came of it. Raises InvalidRequest without a URL."""
    route = route_of(document, secrets)
    if route is None:
        raise refused("api_url", "is required: only publishers with an api_url can be tested")
    origin = origin_of(route)
    try:
        let_in = await _token(document, secrets, authenticate)
    except TokenUnavailable as error:
        return Finding("unauthorized", f"There is no token to call with: {error}.")
    headers = [(b"host", origin.authority), AGENT, (b"accept", b"*/*"), *route.headers, *let_in, VIA]
    name, _, query = path.partition("?")
    return await probe(
        guard,
        origin,
        method.encode(),
        target(route, name.encode(), query.encode()),
        headers,
        _bounded(timeouts_of(compile_delivery(document), settings)),
        tls,
    )


async def _token(document: Mapping[str, Any], secrets: Mapping[str, Any], authenticate: Authenticate) -> HeaderPairs:
    plan = compile_authentication(document, secrets)
    if plan is None:
        return []
    return [bearer(await authenticate(plan, str(document.get("slug") or "")).token(str(uuid7())))]


def _bounded(own: Timeouts) -> Timeouts:
    return Timeouts(
        connect=min(own.connect, CONNECT_SECONDS),
        first_byte=min(own.first_byte, ANSWER_SECONDS),
        idle=min(own.idle, ANSWER_SECONDS),
        total=min(own.total, ANSWER_SECONDS),
    )
