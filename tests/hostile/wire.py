"""Raw sockets for hostile tests: bytes out, bytes in, and a strict reading of what came back.

No HTTP library stands between a test and the gateway: what a library would repair or refuse to send is the test.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

QUIET = 60.0  # nothing here takes so long: only a failure waits for it


@dataclass
class Answer:
    """One response as it stood on the wire. `complete` is whether its framing was honoured to the end."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool = True
    head: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def get(self, name: str, otherwise: str = "") -> str:
        return (self.all(name) or [otherwise])[0]


class Wire:
    """One connection to a gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, limit: int = 1 << 24) -> Wire:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=limit))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self, *, head: bool = False, seconds: float = QUIET) -> Answer:
        """Read one final response. Raises EOFError when the connection ended instead."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    raw = await self.reader.readuntil(b"\r\n\r\n")
                except (asyncio.IncompleteReadError, ConnectionError) as error:
                    raise EOFError(getattr(error, "partial", b"")) from None
                found = _head(raw)
                if found.status >= 200 or found.status == 101:
                    break
            if not (head or found.status in (204, 304)):
                found.body, found.complete = await self._body(found)
            return found

    async def _body(self, found: Answer) -> tuple[bytes, bool]:
        pieces = []
        try:
            if found.get("transfer-encoding").lower() == "chunked":
                while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                    pieces.append(await self.reader.readexactly(size))
                    assert await self.reader.readexactly(2) == b"\r\n"
                while await self.reader.readuntil(b"\r\n") != b"\r\n":
                    pass
            elif found.all("content-length"):
                left = int(found.get("content-length"))
                while left:
                    piece = await self.reader.read(min(left, 65_536))
                    if not piece:
                        return b"".join(pieces), False
                    pieces.append(piece)
                    left -= len(piece)
            else:
                return await self.reader.read(), True
        except (asyncio.IncompleteReadError, ConnectionError):
            return b"".join(pieces), False
        return b"".join(pieces), True

    async def interim(self, seconds: float = QUIET) -> int:
        """Read one interim response and return its status."""
        async with asyncio.timeout(seconds):
            return _head(await self.reader.readuntil(b"\r\n\r\n")).status

    async def until(self, mark: bytes, seconds: float = QUIET) -> bytes:
        """Read until `mark` has come. Raises TimeoutError or EOFError."""
        async with asyncio.timeout(seconds):
            return await self.reader.readuntil(mark)

    async def ended(self, seconds: float = QUIET) -> bool:
        """Return whether the gateway closes the connection without another byte."""
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    async def rest(self, seconds: float = QUIET) -> bytes:
        """Return everything up to the end of the connection, or what came in time."""
        pieces = []
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                while piece := await self.reader.read(65_536):
                    pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self.writer.close()


def _head(raw: bytes) -> Answer:
    lines = raw[:-4].split(b"\r\n")
    version, _, rest = lines[0].partition(b" ")
    assert version in (b"HTTP/1.1", b"HTTP/1.0"), lines[0]
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        assert colon, line
        headers.append((name.decode("latin-1").lower(), value.strip().decode("latin-1")))
    return Answer(int(rest[:3]), headers, b"", head=raw)


async def ask(port: int, raw: bytes, *, head: bool = False, seconds: float = QUIET) -> Answer:
    """Send one request on a connection of its own and return the answer."""
    wire = await Wire.open(port)
    try:
        await wire.send(raw)
        return await wire.answer(head=head, seconds=seconds)
    finally:
        wire.close()


def request(method: str, target: str, *fields: str, key: str = "", body: bytes = b"", host: str = "gateway") -> bytes:
    """Return a well-formed request, so that a test spells out only what is odd about its own."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, *fields]).encode("latin-1") + b"\r\n\r\n" + body


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class ScriptedUpstream:
    """A publisher's server that answers with exactly the bytes it was told, by the last word of the path.

    `heads` is what arrived. An answer of bytes leaves the connection open; one that ends in `CLOSE` closes it. A script
    in `early` is called with the head alone read, and the connection is its own.
    """

    answers: dict[str, bytes | Script] = field(default_factory=dict)
    early: dict[str, Script] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    port: int = 0
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self.writers:
            writer.close()
        await self._server.wait_closed()

    def forget(self) -> None:
        self.heads.clear()
        self.bodies.clear()

    def fields(self, name: bytes) -> list[bytes]:
        """Return the values of a field (lower-case name) in the last request."""
        return [value for key, value in _head_fields(self.heads[-1]) if key == name]

    @property
    def targets(self) -> list[bytes]:
        return [head.split(b" ", 2)[1] for head in self.heads]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while await self._one(reader, writer):
                pass
        self.writers.discard(writer)
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        word = head.split(b" ", 2)[1].partition(b"?")[0].rsplit(b"/", 1)[-1].decode("latin-1")
        if word in self.early:
            await self.early[word](reader, writer)
            return False
        fields = dict(_head_fields(head))
        if fields.get(b"transfer-encoding") == b"chunked":
            body = b""
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readuntil(b"\r\n")
        else:
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        self.bodies.append(body)
        script = self.answers.get(word, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        if not isinstance(script, bytes):
            await script(reader, writer)
            return False
        if head.startswith(b"HEAD "):
            script = script.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        writer.write(script.removesuffix(CLOSE))
        await writer.drain()
        return not script.endswith(CLOSE)


CLOSE = b"\x00CLOSE"


def _head_fields(head: bytes) -> list[tuple[bytes, bytes]]:
    pairs = []
    for line in head[:-4].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        pairs.append((name.lower(), value.strip()))
    return pairs
