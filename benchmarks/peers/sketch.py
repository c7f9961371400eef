"""The least that a proxy in Python can be: asyncio Protocols on uvloop, httptools on both sides, pooled connections.

It has no features: no key, price, limit, metric, time limit, log or TLS, and one upstream. It is correct for what the
load generator sends (one request at a time, bodies with a Content-Length) and what the upstream answers (a length or
chunks): it parses heads and writes them anew without hop-by-hop fields, passes bodies on as they come, and stops
reading from one side while the other does not take what it sent. The report compares the gateway's unpriced calls with
it.
Run it: python -m benchmarks.peers.sketch PORT UPSTREAM_PORT
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import cast

import httptools
import uvloop

from benchmarks.plain_http import HOST

HOP = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"host"))
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Side(asyncio.Protocol):
    """What both sides have. `out` is what the other side is sent once all that came has been read."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.chunked = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are none by class

    def on_message_begin(self) -> None:
        """Forget the last message."""
        self.chunked = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field unless it is of one hop."""
        lower = name.lower()
        if lower not in HOP:
            self.out.append(b"%b: %b\r\n" % (name, value))
        elif lower == b"transfer-encoding":
            self.chunked = True


class Caller(Side):
    """A caller's connection; one request at a time."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self.upstream: Upstream | None = None
        self.answered = False  # at least in part
        self._opening: asyncio.Task[None] | None = None
        self._waiting: list[bytes] | None = None  # of a request whose connection is being opened

    def data_received(self, data: bytes) -> None:
        """Read on, then pass on at once all that came."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()
            return
        if self._waiting is not None:
            self._waiting += self.out
        elif self.out and self.upstream:
            self.upstream.transport.write(b"".join(self.out))
        self.out = []

    def on_message_begin(self) -> None:
        """Forget the last request."""
        super().on_message_begin()
        self._target, self.answered = b"", False

    def on_url(self, url: bytes) -> None:
        """Keep the target, of which a part may come later."""
        self._target += url

    def on_headers_complete(self) -> None:
        """Take a connection to the upstream, or open one."""
        line = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (self._parser.get_method(), self._target, self._pool.host)
        self.out.insert(0, line)
        self.out.append(b"\r\n")
        self.upstream = self._pool.take(self)
        if self.upstream is None:
            self._waiting = []
            self._opening = asyncio.get_running_loop().create_task(self._pool.open(self))

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on."""
        self.out.append(body)

    def opened(self, upstream: Upstream) -> None:
        """Send what has waited for this connection."""
        waiting, self._waiting, self._opening = self._waiting or [], None, None
        if self.transport.is_closing():
            upstream.caller = None
            upstream.transport.close()
            return
        self.upstream = upstream
        upstream.transport.write(b"".join(waiting))

    def failed(self) -> None:
        """Say that the upstream did not answer, or end an answer of which a part is there."""
        self.upstream = self._waiting = self._opening = None
        if not self.transport.is_closing():
            if not self.answered:
                self.transport.write(BAD_GATEWAY)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the call on the other side too."""
        if self.upstream:
            self.upstream.caller = None
            self.upstream.transport.close()

    def pause_writing(self) -> None:
        """Stop reading the answer while the caller does not take it."""
        if self.upstream:
            self.upstream.paused = True
            self.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read the answer on."""
        if self.upstream:
            self.upstream.resume()


class Upstream(Side):
    """A connection to the upstream, which serves one caller at a time."""

    def __init__(self, pool: Pool, caller: Caller) -> None:
        super().__init__()
        self._pool = pool
        self.caller: Caller | None = caller
        self.paused = False
        self._parser = httptools.HttpResponseParser(self)
        self._reason = b""
        self._complete = self._keep = False

    def data_received(self, data: bytes) -> None:
        """Read on, then pass on at once all that came."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()
            return
        caller = self.caller
        if caller is None:
            return
        out, self.out = self.out, []
        caller.answered = True
        caller.transport.write(b"".join(out))
        if self._complete:
            self._complete = False
            self.caller = caller.upstream = None
            self.resume()
            self._pool.give_back(self, keep=self._keep)

    def resume(self) -> None:
        """Read on if the caller was too slow before."""
        if self.paused:
            self.paused = False
            self.transport.resume_reading()

    def on_status(self, status: bytes) -> None:
        """Keep the reason, which the status line is written with."""
        self._reason = status

    def on_headers_complete(self) -> None:
        """Write the head anew."""
        self._keep = self._parser.should_keep_alive()
        self.out.insert(0, b"HTTP/1.1 %d %b\r\n" % (self._parser.get_status_code(), self._reason))
        self.out.append(b"Transfer-Encoding: chunked\r\n\r\n" if self.chunked else b"\r\n")

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on, in a chunk of its own where the answer has no length."""
        self.out += (b"%x\r\n" % len(body), body, b"\r\n") if self.chunked else (body,)

    def on_message_complete(self) -> None:
        """End the answer."""
        if self.chunked:
            self.out.append(LAST_CHUNK)
        self._complete = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the pool, or fail the call that was under way."""
        self._pool.forget(self)
        if self.caller:
            self.caller.failed()

    def pause_writing(self) -> None:
        """Stop reading the request while the upstream does not take it."""
        if self.caller:
            self.caller.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read the request on."""
        if self.caller:
            self.caller.transport.resume_reading()


class Pool:
    """Idle connections to the upstream, the last used first."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.host = f"{HOST}:{port}".encode()
        self._idle: deque[Upstream] = deque()

    def take(self, caller: Caller) -> Upstream | None:
        """Return an idle connection for this caller, or None."""
        while self._idle:
            upstream = self._idle.pop()
            if not upstream.transport.is_closing():
                upstream.caller = caller
                return upstream
        return None

    async def open(self, caller: Caller) -> None:
        """Open one for this caller, who is told."""
        try:
            _, upstream = await asyncio.get_running_loop().create_connection(
                lambda: Upstream(self, caller), HOST, self._port
            )
        except OSError:
            caller.failed()
        else:
            caller.opened(upstream)

    def give_back(self, upstream: Upstream, *, keep: bool) -> None:
        """Keep a connection for the next call, unless its end was announced."""
        if keep:
            self._idle.append(upstream)
        else:
            upstream.transport.close()

    def forget(self, upstream: Upstream) -> None:
        """Take out one that was closed while it was idle."""
        if upstream in self._idle:
            self._idle.remove(upstream)


async def serve(port: int, upstream: int) -> None:
    """Listen until the process is told to end."""
    pool = Pool(upstream)
    server = await asyncio.get_running_loop().create_server(lambda: Caller(pool), HOST, port, backlog=16_384)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
