"""The upstream HTTP/1.1 client: one `send` per call of the paid path.

Lives here: the order of things (validate, take a connection, write, wait for the head) and the one retry. Not here:
HTTP itself (connection.py) or the egress rules. Prevents a call from being served twice: a request is sent again only
when its kept connection ended before a byte of an answer, and the upstream certainly has not read a byte of it
(kernel.py), or it may be read twice: its method is safe, or it has an Idempotency-Key (RFC 9110 section 9.2.2). A
payment in it buys once, so that it is neither. The end of a new connection is the upstream's answer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

from gateway.upstreams.again import again
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http.connection import Connection
from gateway.upstreams.http.dial import Dialer
from gateway.upstreams.http.errors import AddressRefused, ConnectError, Disconnected, TlsFailed
from gateway.upstreams.http.pool import OriginPool, PoolCounts
from gateway.upstreams.http.request import EncodedRequest, Headers, encode
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.http.upload import KeptBody, require_empty, upload
from gateway.upstreams.origin import Lane, Origin

# Pools without connections are forgotten when there are this many, not at once: churn would cost more than they do.
_MANY_POOLS = 1024
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PROPFIND", b"REPORT", b"SEARCH", b"QUERY"})
_PAYMENTS = frozenset({b"payment-signature", b"x-payment"})


class UpstreamClient:
    """Pools per origin. Belongs to one event loop; close it with `aclose`."""

    def __init__(
        self,
        guard: EgressGuard,
        *,
        max_connections: int,
        max_idle: int,
        idle_seconds: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._dialer = Dialer(guard, tls)
        self._max_connections = max_connections
        self._max_idle = max_idle
        self._idle_seconds = idle_seconds
        self._pools: dict[Origin | Lane, OriginPool] = {}
        self._closed = False

    @property
    def counts(self) -> PoolCounts:
        """Gauges over all origins."""
        return sum((pool.counts for pool in self._pools.values()), PoolCounts())

    async def send(
        self,
        lane: Origin | Lane,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
        timeouts: Timeouts,
    ) -> UpstreamResponse:
        """Send one request and return its response once the head is there. Raises UpstreamError.

        `lane` names the connections to use: those that all callers of an origin share, or a bounded set of its own.
        Headers are written as given plus framing: Content-Length for bytes; for an iterator the caller's
        Content-Length, enforced, or else chunked. Read the response to its end or `aclose` it.
        """
        streamed = None if body is None or isinstance(body, bytes) else body
        keeper = KeptBody(streamed) if streamed is not None and _may_be_read_twice(method, headers) else None
        request = encode(method, target, headers, body if keeper is None else keeper.pass_on())
        if request.stream is not None and request.length == 0:
            await require_empty(request.stream)
            request.stream, request.has_body = None, False
        now = asyncio.get_running_loop().time()
        ends = now + timeouts.total
        pool = self._pools.get(lane) or self._new_pool(lane)
        connection = pool.take(now)
        if connection is None:
            connection = await _connected(pool, timeouts, ends)
            now = asyncio.get_running_loop().time()
        kept = connection.served > 0
        first = connection.begin(request, timeouts, now, ends)
        try:
            return await _answer(connection, request, first)
        except Disconnected as error:
            repeatable = not error.sent or (not error.received and _may_be_read_twice(method, headers))
            whole = streamed is None or (keeper is not None and keeper.whole)
            if not (kept and repeatable and whole):
                raise
        except BaseException:
            _give_up(connection, first)
            raise
        # Encoded anew: of a body that was sent in pieces, some have been taken.
        once_more = encode(method, target, headers, keeper.content if keeper is not None else body)
        return await self._send_again(lane, once_more, timeouts, ends)

    async def aclose(self) -> None:
        """Close all connections, those in use included, and wait for their sockets."""
        self._closed = True
        pools = list(self._pools.values())
        await asyncio.gather(*(pool.aclose() for pool in pools))

    async def _send_again(
        self, lane: Origin | Lane, request: EncodedRequest, timeouts: Timeouts, ends: float
    ) -> UpstreamResponse:
        """Send the request on a new connection, once: this time an early end is the upstream's answer."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(lane) or self._new_pool(lane)
        connection = await pool.acquire(max(min(timeouts.connect, ends - loop.time()), 0.001), fresh=True)
        first = connection.begin(request, timeouts, loop.time(), ends)
        try:
            return await _answer(connection, request, first)
        except BaseException:
            _give_up(connection, first)
            raise

    def _new_pool(self, lane: Origin | Lane) -> OriginPool:
        if self._closed:
            raise ConnectError("the client is closed")
        if len(self._pools) >= _MANY_POOLS:
            self._pools = {key: pool for key, pool in self._pools.items() if not pool.unused}
        origin, limit = (lane.origin, lane.limit) if isinstance(lane, Lane) else (lane, self._max_connections)

        async def dial(pool: OriginPool, timeout: float) -> Connection:
            return await self._dialer.open(origin, lambda: Connection(pool), timeout)

        pool = OriginPool(dial, limit=limit, max_idle=self._max_idle, idle_seconds=self._idle_seconds)
        self._pools[lane] = pool
        return pool


async def _connected(pool: OriginPool, timeouts: Timeouts, ends: float) -> Connection:
    """Return a connection, tried for as often as the timeouts allow. Raises UpstreamError."""
    clock = asyncio.get_running_loop().time

    async def acquire() -> Connection:
        return await pool.acquire(max(min(timeouts.connect, ends - clock()), 0.001))

    return await (again(timeouts.retries, acquire, _may_come_about) if timeouts.retries else acquire())


def _may_come_about(error: Exception) -> bool:
    """Return whether a connection may come about if it is tried again."""
    return isinstance(error, ConnectError) and not isinstance(error, AddressRefused | TlsFailed)


def _may_be_read_twice(method: bytes, headers: Headers) -> bool:
    """Return whether an upstream may get this request twice, as when it may have read one before it closed."""
    names = {name.lower() for name, _ in headers}
    return (method in _SAFE and not names & _PAYMENTS) or b"idempotency-key" in names


async def _answer(
    connection: Connection, request: EncodedRequest, first: asyncio.Future[UpstreamResponse]
) -> UpstreamResponse:
    """Wait for the answer, and upload meanwhile: it may come first. The caller's iterator is at rest on return."""
    if request.stream is None:
        return await first
    task = asyncio.get_running_loop().create_task(upload(connection, request.stream, request.length))
    try:
        return await first
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


def _give_up(connection: Connection, first: asyncio.Future[UpstreamResponse]) -> None:
    """Close what an exception (usually cancellation) leaves behind, unless the connection already serves others."""
    if first.done() and not first.cancelled():
        if first.exception() is None:
            connection.abandon(first.result())
    else:
        connection.give_up(first)
