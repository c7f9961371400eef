"""Uvicorn's HTTP/1.1 protocol, made as strict as the gateway's other servers.

What uvicorn leaves open and a paid proxy cannot: a head of any size and as slow as its sender likes; trailer fields
that join the header fields; a body behind an Upgrade that is not taken, which would be read as the next request; chunks
for HTTP/1.0, whose readers take them for content; the rest of an upload whose answer is out, which it reads for ever;
a request that has arrived when its connection is closed at the end, and was not read yet.
What does not live here: how the server is started (servers.py) and what the application refuses (proxy/framing.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Bytes of a head, whole requests in one read included; the application's own bounds are below it.
MAX_HEAD = 256 * 1024
# At the end: how long a connection waits for a request that is on its way, and how long for the loop to have read it.
LAST_REQUEST_SECONDS, LAST_READ_SECONDS = 0.25, 0.05


class PlainCycle(RequestResponseCycle):
    """One request and its answer, which to HTTP/1.0 ends with the connection where its length is not known."""

    _until_close = False

    async def send(self, message: Any) -> None:
        """Send a part of the answer (ASGI)."""
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            if self.scope["http_version"] == "1.0" and b"content-length" not in names:
                self._until_close, self.chunked_encoding = True, False
        elif self._until_close:
            self.expected_content_length = len(message.get("body", b""))  # uvicorn counts it down to 0
        await super().send(message)


httptools_impl.RequestResponseCycle = PlainCycle  # the protocol makes them by this name


class StrictProtocol(HttpToolsProtocol):
    """One connection. The head of a request must come within uvicorn's keep-alive timeout, the first one too."""

    _waiting: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start the clock of the first head (asyncio callback)."""
        super().connection_made(transport)
        self._waiting = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock (asyncio callback)."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and bound the head (asyncio callback). The keep-alive clock goes on until a whole head is there."""
        if self.timeout_keep_alive_task is not None:
            self._stop_waiting()
            self._waiting, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The header section is too large.")

    def on_message_begin(self) -> None:
        """Begin a head (parser callback)."""
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field; drop a trailer field (parser callback)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application (parser callback)."""
        self._stop_waiting()
        self._in_head, self._head_bytes = False, 0
        assert self.parser is not None
        if self.parser.should_upgrade() and not self._should_upgrade() and self._has_body():
            raise ValueError("the parser would not read the body behind an Upgrade")  # uvicorn answers 400 and closes
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a message; what follows is a head (parser callback)."""
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0

    def shutdown(self) -> None:
        """End with the answer that is on its way, or after a last request (the server calls it when it stops)."""
        if self.cycle and not self.cycle.response_complete:
            super().shutdown()
        else:
            # Twice, because the loop may have stood still during the first, and must have read what came meanwhile.
            self.loop.call_later(LAST_REQUEST_SECONDS, self.loop.call_later, LAST_READ_SECONDS, self._end)

    def on_response_complete(self) -> None:
        """End the connection of an upload that was answered before its end: the rest would be read for ever."""
        if self.cycle.more_body and not self.transport.is_closing():
            self.transport.close()
        super().on_response_complete()

    def _end(self) -> None:
        if self in self.connections:  # no WebSocket has taken it over
            super().shutdown()

    def _has_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ") != b"")
            for name, value in self.headers
        )

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
