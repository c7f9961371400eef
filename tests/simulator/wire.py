"""One PostgreSQL connection of a simulated process, seen as messages that are asked and answered.

A request goes to the server when it is chosen; its answer comes back when that is chosen. Between the two the
connection can be lost: before the server had the request, or after it had done everything, so that the client cannot
know. The server's own transaction is real in both cases.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable
from typing import Any

SYNC, QUERY, FLUSH, PARSE, BIND, BACKEND_KEY = b"S", b"Q", b"H", b"P", b"B", b"K"
TERMINATE = b"X"
READY = b"Z"
DESCRIBED = b"TnE"  # a flushed Describe ends with RowDescription, NoData or an error


class Wire(asyncio.Protocol):
    """Between a driver's protocol (`inner`) and the server. States:

    starting -> idle -> asked -> running (-> blocked -> running) -> answered -> idle; lost at any time.
    """

    def __init__(
        self,
        number: int,
        process: Any,
        inner: asyncio.Protocol,
        done: Callable[[Wire], None],
        outlives: Callable[[Wire], bool],
    ) -> None:
        self.number = number
        self.process = process
        self.named = False  # whether the observer has numbered the backend
        self.state = "starting"
        self.waits = False  # whether its request was seen to wait for a lock
        self.label = ""
        self.pid = 0
        self.inner = inner
        self._done = done  # called when an answer is complete, and when the connection has ended
        self._outlives = outlives  # says of a lost connection whether the server will still read what was sent
        self.door: asyncio.Transport | None = None
        self._server: asyncio.Transport | None = None
        self._out = b""
        self._in = bytearray()
        self._seen = 0
        self._wanted = 0
        self._until = READY
        self._statements: dict[bytes, str] = {}

    def __repr__(self) -> str:
        return f"{self.process}/c{self.number}"

    # The server's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._server = transport
        self.door = _Door(self, transport)
        self.process.enter(self.inner.connection_made, self.door)

    def data_received(self, data: bytes) -> None:
        if self.state == "starting":
            self._in += data
            if self._scan():
                self.state = "idle"
                self._in.clear()
                self._seen = 0
            self.process.enter(self.inner.data_received, data)
        elif self.state != "lost":
            self._in += data
            self._wanted -= self._scan()
            if self._wanted == 0:
                self.state = "answered"
                self._done(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose(exc)

    def _scan(self) -> int:
        """Read the message heads that have arrived and return how many of them end an answer."""
        ready = 0
        while len(self._in) >= self._seen + 5:
            kind = bytes(self._in[self._seen : self._seen + 1])
            size = struct.unpack_from("!I", self._in, self._seen + 1)[0] + 1
            if len(self._in) < self._seen + size:
                break
            if kind == BACKEND_KEY:
                self.pid = struct.unpack_from("!I", self._in, self._seen + 5)[0]
            ready += kind in self._until
            self._seen += size
        return ready

    # The client's side.

    def written(self, data: bytes) -> None:
        """Take what the driver writes."""
        if self.state == "lost":
            return
        if self.state == "starting":
            assert self._server is not None
            self._server.write(data)
            return
        self._out += data
        self._read_request()

    def _read_request(self) -> None:
        at, syncs, flushes = 0, 0, 0
        while len(self._out) >= at + 5:
            kind = self._out[at : at + 1]
            size = struct.unpack_from("!I", self._out, at + 1)[0] + 1
            body = self._out[at + 5 : at + size]
            if kind == PARSE:
                name, text = body.split(b"\0", 2)[:2]
                self.label = self._statements[name] = short(text.decode())
            elif kind == BIND:
                self.label = self._statements.get(body.split(b"\0", 2)[1], "?")
            elif kind == QUERY:
                self.label = short(body.rstrip(b"\0").decode())
            elif kind == TERMINATE:
                asyncio.get_running_loop().call_soon(self.lose)
            syncs += kind in (SYNC, QUERY)
            flushes += kind == FLUSH
            at += size
        self._wanted, self._until = (syncs, READY) if syncs else (flushes, DESCRIBED)
        if self._wanted and self.state == "idle":
            self.state = "asked"

    def ask(self) -> None:
        """Give the waiting request to the server."""
        assert self.state == "asked"
        assert self._server is not None
        self._server.write(self._out)
        self._out = b""
        self.state, self.waits = "running", False

    def answer(self) -> None:
        """Give the waiting answer to the driver."""
        assert self.state == "answered"
        data, self._in, self._seen = bytes(self._in), bytearray(), 0
        self.state = "idle"
        self.process.enter(self.inner.data_received, data)
        if self._out:
            self._read_request()

    def lose(self, error: Exception | None = None) -> None:
        """End the connection both ways: the driver learns it now, the server as soon as it looks."""
        if self.state == "lost":
            return
        kept = self.state == "asked" and self._outlives(self)
        self.state = "lost"
        if self._server is not None and not kept:
            self._server.abort()
        self._done(self)
        self.process.enter(self.inner.connection_lost, error)

    def arrive_late(self) -> None:
        """Let the server read what was sent before the connection was lost."""
        assert self._server is not None
        self._server.write(self._out)
        self._server.close()


class _Door(asyncio.Transport):
    """The transport that the driver holds."""

    def __init__(self, wire: Wire, server: asyncio.Transport) -> None:
        super().__init__()
        self._wire = wire
        self._server = server

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._server.get_extra_info(name, default)

    def write(self, data: Any) -> None:
        self._wire.written(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self._wire.written(b"".join(bytes(data) for data in list_of_data))

    def is_closing(self) -> bool:
        return self._wire.state == "lost"

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._wire.state != "lost":
            asyncio.get_running_loop().call_soon(self._wire.lose)


def short(text: str) -> str:
    """Return a statement's name for people: the ledger function it calls, or its first words."""
    called = re.search(r"ledger\.(\w+)\(", text)
    if called:
        return called[1]
    return " ".join(text.split())[:48].rstrip(";")
