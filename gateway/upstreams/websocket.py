"""A WebSocket to a publisher's server: the opening handshake, whole messages both ways, the closing handshake.

The connection is the HTTP client's (checked address, TLS, timeouts, raw bytes after 101); the frames are wsproto's. No
extension is offered: compressed messages could not be bounded before they are unpacked. What does not live here: who
may open one, what it costs, and the caller's side (proxy/kinds/socket.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import (
    LocalProtocolError,
    generate_accept_token,
    generate_nonce,
    split_comma_header,
)

from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.http.errors import Disconnected, ProtocolError, UpstreamError
from gateway.upstreams.http.request import Headers
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.origin import Lane, Origin
from gateway.upstreams.pieces import Pieces

NO_CODE = CloseReason.NO_STATUS_RCVD


class HandshakeRefused(UpstreamError):
    """The upstream answered the handshake with another status than 101."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the upstream answered the WebSocket handshake with {status}", sent=True)
        self.status = status


class MessageTooLarge(UpstreamError):
    """The upstream sent a message of more than the allowed bytes. What was collected of it is dropped."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The upstream's Close frame; `code` is None when it named none (RFC 6455 section 7.1.5)."""

    code: int | None
    reason: str


async def open_socket(
    client: UpstreamClient,
    lane: Origin | Lane,
    target: bytes,
    headers: Headers,
    offered: Sequence[bytes],
    timeouts: Timeouts,
    max_message: int,
) -> UpstreamSocket:
    """Shake hands and return the open connection. Raises UpstreamError: HandshakeRefused, ProtocolError or transport.

    `offered` are the values of the caller's Sec-WebSocket-Protocol fields. `timeouts.total` bounds the connection's
    whole life, `max_message` one message from the upstream, in bytes.
    """
    key = generate_nonce()
    fields = [
        *headers,
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-key", key),
        (b"sec-websocket-version", b"13"),
        *((b"sec-websocket-protocol", value) for value in offered),
    ]
    answer = await client.send(lane, b"GET", target, fields, None, timeouts)
    try:
        if answer.status != 101:
            raise HandshakeRefused(answer.status)
        return UpstreamSocket(answer, _agreed(answer, key, offered), max_message)
    except BaseException:
        await answer.aclose()
        raise


def _agreed(answer: UpstreamResponse, key: bytes, offered: Sequence[bytes]) -> str | None:
    """Return the subprotocol of a 101 that follows RFC 6455 section 4.1. Raises ProtocolError."""
    upgrade, accept = _values(answer, b"upgrade"), _values(answer, b"sec-websocket-accept")
    if [value.lower() for value in upgrade] != [b"websocket"] or accept != [generate_accept_token(key)]:
        raise ProtocolError("the upstream switched to something that is not this WebSocket", sent=True)
    if _values(answer, b"sec-websocket-extensions"):
        raise ProtocolError("the upstream uses a WebSocket extension that was not offered", sent=True)
    chosen = _values(answer, b"sec-websocket-protocol")
    if not chosen:
        return None
    try:
        known = {name for value in offered for name in split_comma_header(value)}
        name = chosen[0].decode("ascii").strip()
    except UnicodeDecodeError:
        known, name = set[str](), ""
    if len(chosen) > 1 or name not in known:
        raise ProtocolError("the upstream chose a subprotocol that was not offered", sent=True)
    return name


def _values(answer: UpstreamResponse, name: bytes) -> list[bytes]:
    return [value for field, value in answer.headers if field.lower() == name]


class UpstreamSocket:
    """An open connection. One task may receive while others send. End it with `aclose`, whatever happened before."""

    def __init__(self, answer: UpstreamResponse, subprotocol: str | None, max_message: int) -> None:
        self.answer = answer
        self.subprotocol = subprotocol
        self._arriving = Pieces(max_message)
        self._wire = Connection(ConnectionType.CLIENT)
        self._events: Iterator[Event] = iter(())
        self._writing = asyncio.Lock()  # frames of several senders must not interleave, nor two wait for one drain
        self._clock = asyncio.get_running_loop().time
        self.heard = self._clock()  # when the upstream last sent anything, pongs included

    async def receive(self) -> str | bytes | Closed:
        """Return the next whole message, or the upstream's Close frame (already answered; call no more after it).

        Raises MessageTooLarge, ProtocolError, or an UpstreamError when the connection ends without a Close frame.
        """
        while True:
            event = await self._next()
            if isinstance(event, TextMessage | BytesMessage):
                self._collect(event)
                if event.message_finished:
                    return self._arriving.whole(text=isinstance(event, TextMessage))
            elif isinstance(event, Ping):
                await self._say(event.response())
            elif isinstance(event, CloseConnection):
                return await self._closing(event)

    async def send(self, message: str | bytes) -> None:
        """Send one message as one frame, waiting while the upstream accepts no more. Raises UpstreamError."""
        await self._say(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    async def ping(self) -> None:
        """Ask for a sign of life; the pong shows in `heard`."""
        await self._say(Ping())

    async def close(self, code: int | None, reason: str) -> None:
        """Send a Close frame unless the closing handshake has begun. `receive` then returns the upstream's."""
        await self._say(CloseConnection(code, reason) if code is not None else CloseConnection(NO_CODE))

    async def aclose(self) -> None:
        """Give the connection up. May be called twice."""
        await self.answer.aclose()

    async def _closing(self, event: CloseConnection) -> Closed:
        # wsproto reports what it cannot read as a close as well, but without having come to that state.
        violated = self._wire.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING)
        with contextlib.suppress(UpstreamError):
            await self._say(event.response())
        if violated:
            raise ProtocolError(f"the upstream broke the WebSocket protocol: {event.reason}", sent=True)
        return Closed(None if event.code == NO_CODE else int(event.code), event.reason or "")

    async def _say(self, event: Event) -> None:
        async with self._writing:
            try:
                data = self._wire.send(event)
            except LocalProtocolError:
                return  # the closing handshake has begun: nothing more is said
            await self.answer.write(data)

    async def _next(self) -> Event:
        while True:
            event = next(self._events, None)
            if event is not None:
                return event
            data = await self.answer.read()
            if not data:
                raise Disconnected("the upstream left without a Close frame", sent=True, received=True)
            self.heard = self._clock()
            self._wire.receive_data(data)
            self._events = self._wire.events()

    def _collect(self, event: TextMessage | BytesMessage) -> None:
        if not self._arriving.add(event.data):
            most = self._arriving.most
            raise MessageTooLarge(f"the upstream sent a message of more than {most} bytes", sent=True)
