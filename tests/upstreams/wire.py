"""A real server on a real socket that says exactly the bytes it is told to, and a client to call it with.

No pytest fixtures: every wire test is a plain coroutine, so that test_uvloop.py can run all of them on the other loop.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http import Origin, PoolCounts, Timeouts, UpstreamClient, UpstreamResponse

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
PATIENT = Timeouts(connect=60, first_byte=60, idle=60, total=60)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOST = [(b"Host", b"upstream.test")]


class Peer:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Return one request, head and body, as received; b"" when the client has closed instead of completing it."""
        try:
            return await self._request()
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def _request(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length:
            return head + await self.reader.readexactly(int(length[1]))
        if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
            return head + await self.reader.readuntil(b"0\r\n\r\n")
        return head

    async def say(self, data: bytes, *, by: int | None = None) -> None:
        """Send `data`, in separate writes of `by` bytes if given."""
        with suppress(ConnectionError):
            for start in range(0, len(data), by or len(data) or 1):
                if self.writer.is_closing():  # uvloop raises RuntimeError from a write where asyncio keeps silent
                    return
                self.writer.write(data[start : start + (by or len(data))])
                await self.writer.drain()
                if by:
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)

    async def closed_by_client(self) -> bool:
        """Wait for the client to close; data that comes instead is a failure."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 60) == b""
        except ConnectionError:
            return True


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """Runs the script once per connection and counts."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.requests: list[bytes] = []
        self.errors: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        try:
            await self.script(peer)
        except (asyncio.CancelledError, ConnectionError):
            pass  # a client that resets is for the test to judge
        except Exception as error:
            self.errors.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError, OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def finish(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=60)
        if self.errors:
            raise AssertionError("the server's script failed") from self.errors[0]


class Line:
    """A client and the server it talks to."""

    def __init__(self, client: UpstreamClient, server: Server, port: int) -> None:
        self.client = client
        self.server = server
        self.port = port
        self.origin = Origin("http", "127.0.0.1", port)

    async def send(
        self,
        method: bytes = b"GET",
        target: bytes = b"/",
        headers: Iterable[tuple[bytes, bytes]] = HOST,
        body: bytes | AsyncIterator[bytes] | None = None,
        timeouts: Timeouts = PATIENT,
    ) -> UpstreamResponse:
        return await self.client.send(self.origin, method, target, list(headers), body, timeouts)

    async def get(self, method: bytes = b"GET") -> bytes:
        return await everything(await self.send(method))

    async def settled(self, **expected: int) -> None:
        """Wait until the gauges are as expected (the rest zero); fail showing what they are."""
        want = PoolCounts(**expected)
        for _ in range(3000):
            if self.client.counts == want:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.client.counts} instead of {want}")


@asynccontextmanager
async def line(
    script: Script, *, max_connections: int = 10, max_idle: int = 10, idle_seconds: float = 30.0
) -> AsyncIterator[Line]:
    """Yield a client and a scripted server; close both."""
    server = Server(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    client = UpstreamClient(
        EgressGuard(LOOPBACK), max_connections=max_connections, max_idle=max_idle, idle_seconds=idle_seconds
    )
    try:
        yield Line(client, server, listener.sockets[0].getsockname()[1])
    finally:
        await client.aclose()
        listener.close()
        await server.finish()
        await listener.wait_closed()
    assert client.counts == PoolCounts(), f"slots leaked: {client.counts}"


def answers(*responses: bytes, by: int | None = None, close: bool = False) -> Script:
    """Answer each request on a connection with the next of `responses`; then close, or wait for the client to."""

    async def script(peer: Peer) -> None:
        for response in responses:
            if not await peer.request():
                return
            await peer.say(response, by=by)
        if not close:
            await peer.reader.read()

    return script


def always(response: bytes) -> Script:
    """Answer every request with `response`."""

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(response)

    return script


async def everything(response: UpstreamResponse) -> bytes:
    """Read a response to its end."""
    body: list[bytes] = []
    while piece := await response.read():
        body.append(piece)
    assert await response.read() == b""
    return b"".join(body)


async def pieces(*parts: bytes, pause: float = 0) -> AsyncIterator[bytes]:
    """Yield the parts as a request body."""
    for part in parts:
        await asyncio.sleep(pause)
        yield part
