"""httpx over our upstream client, for libraries that speak by httpx: the same egress guard, pools and bounds.

Redirects stay with the library; each of them passes the guard like every other request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

from gateway.upstreams.egress import EgressGuard, EgressRefused
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.http.timeouts import Timeouts

# Framing is our client's; what it adds itself must not stand there twice.
FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"accept-encoding"))


class TooLong(httpx.RequestError):
    """The answer is longer than its reader takes."""


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends what httpx asks for. `most` bounds an answer's bytes (None: streams may be as long as they like)."""

    def __init__(self, client: UpstreamClient, guard: EgressGuard, timeouts: Timeouts, most: int | None) -> None:
        self._client, self._guard, self._timeouts, self._most = client, guard, timeouts, most

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises httpx.RequestError, whose message names the host at most."""
        body = await request.aread()
        path, _, _query = request.url.raw_path.partition(b"?")
        try:
            base = self._guard.check_url(f"{request.url.scheme}://{request.url.netloc.decode('ascii')}/")
            headers = [(name.lower(), value) for name, value in request.headers.raw if name.lower() not in FRAMING]
            headers.append((b"accept-encoding", b"identity"))
            answer = await self._client.send(
                base.origin, request.method.encode("ascii"), request.url.raw_path if path else b"/", headers,
                body or (b"" if request.method in ("POST", "PUT", "PATCH") else None), self._timeouts,
            )  # fmt: skip
        except (EgressRefused, UpstreamError) as error:
            raise httpx.ConnectError(str(error), request=request) from error
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer, self._most), request=request)


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: UpstreamResponse, most: int | None) -> None:
        self._answer, self._most = answer, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = 0
        try:
            while piece := await self._answer.read():
                taken += len(piece)
                if self._most is not None and taken > self._most:
                    raise TooLong("the answer is too long")
                yield piece
        except UpstreamError as error:
            raise httpx.ReadError(str(error)) from error

    async def aclose(self) -> None:
        await self._answer.aclose()
