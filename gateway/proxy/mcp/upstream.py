"""Requests to a publisher's MCP server: its address as it stands, its credentials, and of the caller's fields few."""

from __future__ import annotations

from dataclasses import replace

from gateway.catalog.snapshot import Route
from gateway.proxy.destination import Destination
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.forward import let_in, request_headers, target
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.http.response import UpstreamResponse

# Said by us, or of a body that is another one now. A caller's own Last-Event-ID would have what was sold sent again.
REPLACED = frozenset(
    b"accept accept-encoding accept-charset content-type content-encoding content-length content-range content-md5"
    b" digest want-digest range if-range if-match if-none-match if-modified-since if-unmodified-since last-event-id"
    b" idempotency-key mcp-session-id mcp-protocol-version mcp-method mcp-name".split()
)
ACCEPT = {b"POST": b"application/json, text/event-stream", b"GET": b"text/event-stream"}


def target_of(route: Route) -> bytes:
    """Return the request target of an MCP server: its address as it stands, query included."""
    path, _, query = route.base_path.partition(b"?")
    return target(replace(route, base_path=path), b"", query)


class McpServer:
    """The server that one exchange is with."""

    def __init__(self, exchange: Exchange, client: UpstreamClient, to: Destination) -> None:
        self._exchange, self._client, self.to = exchange, client, to
        exchange.to = to
        self._target = target_of(to.route)

    async def send(self, method: bytes, body: bytes | None, fields: HeaderPairs) -> UpstreamResponse:
        """Send one request and return its answer once the head is there. Raises UpstreamError.

        A token that the server takes no more is replaced, once: 401 says that nothing was done.
        """
        auth = self.to.auth
        headers = self._headers(method, body, fields)
        if auth is None:
            return await self._send(method, body, headers)
        token = await auth.token(str(self._exchange.id))
        answer = await self._send(method, body, [*headers, let_in(self._exchange, token)])
        if answer.status != 401 or not auth.reject(token):
            return answer
        await answer.aclose()
        return await self._send(
            method, body, [*headers, let_in(self._exchange, await auth.token(str(self._exchange.id)))]
        )

    def _headers(self, method: bytes, body: bytes | None, fields: HeaderPairs) -> HeaderPairs:
        to = self.to
        headers = request_headers(self._exchange, to.publisher, to.route, to.origin, has_body=False)
        kept = [pair for pair in headers if pair[0].lower() not in REPLACED and not pair[0].startswith(b"mcp-param-")]
        kept.append((b"accept-encoding", b"identity"))
        if method in ACCEPT:
            kept.append((b"accept", ACCEPT[method]))
        if body is not None:
            kept.append((b"content-type", b"application/json"))
        return [*kept, *fields]

    async def _send(self, method: bytes, body: bytes | None, headers: HeaderPairs) -> UpstreamResponse:
        to = self.to
        return await self._client.send(to.lane, method, self._target, headers, body, to.timeouts)
