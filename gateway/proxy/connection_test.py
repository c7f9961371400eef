"""Trying a publisher's server as its calls would reach it: same URL, fields and credentials, checked the same way.

What does not live here: the try itself (upstreams/probe.py, and mcp/connection_test.py for MCP servers) and who may ask
for it (admin_api, cli).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Literal
from uuid import UUID

from gateway.catalog.assets import LIST_ASSETS
from gateway.catalog.authentication import compile_authentication
from gateway.catalog.delivery import compile_delivery
from gateway.catalog.refusals import refused
from gateway.catalog.snapshot import LOAD_ONE, Publisher, compile_publisher, route_of
from gateway.catalog.tools import KEEP_SEEN
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.proxy.destination import Authenticate, origin_of, timeouts_of
from gateway.proxy.exchange import HeaderPairs
from gateway.proxy.forward import VIA, bearer, target
from gateway.proxy.mcp.connection_test import try_mcp
from gateway.proxy.mcp.upstream import target_of
from gateway.settings import Settings
from gateway.upstreams.auth.errors import TokenUnavailable
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.probe import Finding, Prober, probe

# Somebody waits for the result, and a gateway must not be made to wait for hours.
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 15.0
AGENT = (b"user-agent", b"tollway-connection-test")

Method = Literal["GET", "HEAD"]


async def stored(
    connection: Connection, publisher_id: UUID, unseal: Callable[[bytes, bytes], bytes]
) -> Publisher | None:
    """Return a publisher as calls would find it, active or not; None when it cannot be read."""
    row = await LOAD_ONE.first(connection, publisher_id)
    assets = {asset.id: asset for asset in await LIST_ASSETS.all(connection)}
    try:
        return None if row is None else compile_publisher(row, assets, unseal)
    except (ValueError, LookupError):
        return None


async def keep_seen(connection: Connection, publisher_id: UUID, endpoint: object, found: Finding) -> None:
    """Keep what a publisher's MCP server at `endpoint` was seen to have; what is no such server changes nothing."""
    if found.seen is not None:
        await KEEP_SEEN.run(connection, publisher_id, endpoint, found.seen)


async def try_connection(
    guard: EgressGuard,
    settings: Settings,
    authenticate: Authenticate,
    document: Mapping[str, Any],
    secrets: Mapping[str, Any],
    *,
    publisher: Publisher | None = None,
    method: Method = "GET",
    path: str = "/",
    tls: ssl.SSLContext | None = None,
) -> Finding:
    """Send what `document` has to where it leads and return what came of it. Raises InvalidRequest without a URL.

    An MCP server is asked for its tools, everything else for a path. `publisher` tells which of the tools are sold.
    """
    mcp = document.get("integration_type") == "mcp"
    route = route_of(document, secrets, "mcp_endpoint" if mcp else "api_url")
    if route is None:
        raise refused("api_url", "is required, or mcp_endpoint: other publishers cannot be tested")
    if mcp and path != "/":
        raise refused("path", "is not for MCP servers: they are tried at their mcp_endpoint as it stands")
    origin = origin_of(route)
    try:
        let_in = await _token(document, secrets, authenticate)
    except TokenUnavailable as error:
        return Finding("unauthorized", f"There is no token to call with: {error}.")
    headers = [(b"host", origin.authority), AGENT, *route.headers, *let_in, VIA]
    prober = Prober(guard, origin, _bounded(timeouts_of(compile_delivery(document), settings.proxy)), tls)
    if mcp:
        return await try_mcp(prober, target_of(route), headers, settings.mcp.max_answer, publisher)
    name, _, query = path.partition("?")
    return await probe(
        prober, method.encode(), target(route, name.encode(), query.encode()), [*headers, (b"accept", b"*/*")]
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
