"""WebSockets on top of the server, for an ASGI application: the handshake, whole messages, the closing handshake.

The frames are wsproto's. No extension is agreed on: a compressed message is bounded only when it has been unpacked. Of
one connection there wait one whole message, one that is arriving (bounded by its bytes), and what one read brings;
whatever comes beyond stays with its sender, and who takes nothing is not read either.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, generate_accept_token

from gateway.errors import InternalError, InvalidRequest, Problem, UpgradeRequired
from gateway.server.asgi import Asgi, Message, Scope, http_scope, refuse, room
from gateway.server.head import Fields
from gateway.server.request import Request, head_of
from gateway.server.seam import Handler
from gateway.upstreams.pieces import Pieces

log = logging.getLogger(__name__)

DENIAL = "websocket.http.response"
OWN = frozenset({b"connection", b"upgrade", b"transfer-encoding", b"content-length", b"sec-websocket-accept",
                 b"sec-websocket-extensions", b"sec-websocket-protocol"})  # fmt: skip
ABNORMAL, NO_CODE = 1006, 1005
CLOSE_SECONDS = 5.0  # how long a client may take to answer a Close frame
KEY_BYTES = 16


class ClientDisconnected(OSError):
    """The client is gone: nothing can be sent."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """Opens WebSockets: bytes of a message, seconds between pings."""

    max_message: int
    ping_interval: float

    def open(self, asgi: Asgi, request: Request) -> Handler:
        """Begin a handshake; one that is none is refused."""
        call = SocketCall(asgi, request, self)
        try:
            key = handshake_key(request.head.fields)
        except Problem as problem:
            refuse(request, problem, closes=True)
            return call
        asgi.run(call.run(key))
        return call


def handshake_key(fields: Fields) -> bytes:
    """Return the client's key. Raises InvalidRequest or UpgradeRequired (RFC 6455 section 4.2.1)."""
    keys = [value for name, value in fields if name == b"sec-websocket-key"]
    versions = [value for name, value in fields if name == b"sec-websocket-version"]
    if versions != [b"13"]:
        raise UpgradeRequired(
            "WebSockets of version 13 are spoken here.",
            headers={"Sec-WebSocket-Version": "13", "Upgrade": "websocket"},
        )
    try:
        fits = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == KEY_BYTES
    except binascii.Error:
        fits = False
    if not fits:
        raise InvalidRequest("Sec-WebSocket-Key must be 16 bytes in base64, once.")
    return keys[0]


class SocketCall:
    """One connection: first a request, which may be answered like any other, then frames."""

    def __init__(self, asgi: Asgi, request: Request, settings: Sockets) -> None:
        self._app, self._request, self._settings = asgi.application, request, settings
        self._connection = request.connection
        self._wire = Connection(ConnectionType.SERVER)
        self._came: list[bytes] = []  # bytes that wait until the message before them is taken
        self._events: Iterator[Event] = iter(())
        self._arriving = Pieces(settings.max_message)
        self._inbox: list[Message] = [{"type": "websocket.connect"}]
        self._accepted = self._over = self._gone = False
        self._denial: tuple[int, Fields] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._ping_at = self._close_by = 0.0
        self._clock = asyncio.get_running_loop().time

    # --- The application ---

    async def run(self, key: bytes) -> None:
        """Run the application, and end what it leaves open."""
        failed = False
        try:
            await self._app(self._scope(), self.receive, lambda message: self.send(message, key))
        except asyncio.CancelledError:  # the call was cut off; nobody waits for this task
            failed = True
        except Exception as error:
            failed = True
            log.error("the application failed", exc_info=error)
        request = self._request
        if self._accepted:
            self._close(CloseReason.INTERNAL_ERROR if failed else CloseReason.NORMAL_CLOSURE, "")
        elif request.responded:
            request.cut()
        elif not request.lost:
            refuse(request, InternalError("Something failed on our side."), closes=True)

    def _scope(self) -> Scope:
        scope = http_scope(self._request)
        del scope["method"]
        offered = [value for name, value in self._request.head.fields if name == b"sec-websocket-protocol"]
        names = [name.strip() for value in offered for name in value.decode("latin-1").split(",")]
        return {
            **scope,
            "type": "websocket",
            "scheme": "wss" if self._connection.secure else "ws",
            "subprotocols": [name for name in names if name],
            "extensions": {DENIAL: {}},
        }

    async def receive(self) -> Message:
        """Return the next message (ASGI), and look for another one."""
        while not self._inbox:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        message = self._inbox.pop(0)
        if message["type"] == "websocket.disconnect":
            self._inbox.append(message)  # whoever asks again is told again
        self._read_on()
        self._connection.mind_reading()
        return message

    async def send(self, message: Message, key: bytes) -> None:
        """Send a message (ASGI). Raises ClientDisconnected when nobody is there to take it."""
        kind = message["type"]
        if self._gone or (self._request.lost and not self._accepted):
            raise ClientDisconnected("the client is gone")
        if not self._accepted:
            self._answer(kind, message, key)
        elif kind == "websocket.send":
            text = message.get("text")
            self._say(BytesMessage(message["bytes"]) if text is None else TextMessage(text))
        elif kind == "websocket.close":
            self._close(message.get("code") or CloseReason.NORMAL_CLOSURE, message.get("reason") or "")
        else:
            raise RuntimeError(f"{kind} cannot be sent now")
        if self._connection.full:
            await room(self._request)

    # --- The handshake ---

    def _answer(self, kind: str, message: Message, key: bytes) -> None:
        if kind == "websocket.accept":
            self._accept(message, key)
        elif kind == f"{DENIAL}.start":
            self._denial = (message["status"], [(name.lower(), value) for name, value in message.get("headers", ())])
        elif kind == f"{DENIAL}.body":
            self._deny(message.get("body", b""), end=not message.get("more_body", False))
        elif kind == "websocket.close":
            self._request.respond(403, [(b"connection", b"close")], end=True)
        else:
            raise RuntimeError(f"{kind} cannot be sent before the handshake has ended")

    def _accept(self, message: Message, key: bytes) -> None:
        lines = [
            b"HTTP/1.1 101 Switching Protocols", b"upgrade: websocket", b"connection: Upgrade",
            b"sec-websocket-accept: " + generate_accept_token(key),
        ]  # fmt: skip
        if message.get("subprotocol"):
            lines.append(b"sec-websocket-protocol: " + message["subprotocol"].encode("latin-1"))
        fields = [(name.lower(), value) for name, value in message.get("headers", ())]
        lines += [b"%b: %b" % (name, value) for name, value in fields if name not in OWN]
        head = head_of(lines)
        self._accepted = True
        self._ping_at = self._clock() + self._settings.ping_interval
        self._connection.write(head)
        self._connection.upgrade(self._request, self)

    def _deny(self, body: bytes, *, end: bool) -> None:
        denial, self._denial = self._denial, None
        if denial is not None:
            self._request.respond(denial[0], [*denial[1], (b"connection", b"close")], body, end=end)
        else:
            self._request.send(body, end=end)

    # --- What the connection says ---

    def body_came(self) -> None:
        """Do nothing: a handshake has no body."""

    def data_received(self, data: bytes) -> None:
        """Read."""
        self._came.append(data)
        self._read_on()

    def wants_pause(self) -> bool:
        """Return whether a message waits, or the client takes nothing: pongs would add up."""
        return not self._over and (bool(self._inbox) or self._connection.full)

    def room(self) -> None:
        """Do nothing: whoever sends is told by the connection."""

    def gone(self) -> None:
        """End: the connection is lost."""
        self._gone = True
        self._came.clear()
        self._disconnect(ABNORMAL, "")

    def expire(self, now: float) -> None:
        """Ping a client now and then, and wait for its Close frame for a while only."""
        if self._close_by and now > self._close_by:
            self._connection.transport.abort()
        elif now > self._ping_at and not self._over and not self._connection.full:
            self._ping_at = now + self._settings.ping_interval
            self._say(Ping())

    # --- Frames ---

    def _read_on(self) -> None:
        """Read frames until a message is whole."""
        while self._accepted and not self._over and not self._inbox:
            event = next(self._events, None)
            if event is not None:
                self._take(event)
            elif self._came:
                data, self._came = b"".join(self._came), []
                self._wire.receive_data(data)
                self._events = self._wire.events()
            else:
                break
        if self._over:
            self._came.clear()

    def _take(self, event: Event) -> None:
        if isinstance(event, TextMessage | BytesMessage):
            self._collect(event)
        elif isinstance(event, Ping):
            self._say(event.response())
        elif isinstance(event, CloseConnection):
            # wsproto reports what it cannot read as a close as well, without having come to that state.
            self._say(event.response())
            self._disconnect(int(event.code), event.reason or "")
            self._over = True
            self._end()

    def _collect(self, event: TextMessage | BytesMessage) -> None:
        if self._wire.state is not ConnectionState.OPEN:
            return  # our Close frame is out: only the client's is of interest
        if not self._arriving.add(event.data):
            reason = "message too large"
            self._say(CloseConnection(CloseReason.MESSAGE_TOO_BIG, reason))
            self._disconnect(int(CloseReason.MESSAGE_TOO_BIG), reason)
            self._over = True
            self._end()
        elif event.message_finished:
            text = isinstance(event, TextMessage)
            content = self._arriving.whole(text=text)
            self._inbox.append({"type": "websocket.receive", "text" if text else "bytes": content})
            self._wake()

    def _say(self, event: Event) -> None:
        try:
            data = self._wire.send(event)
        except LocalProtocolError:
            return  # the closing handshake has begun: nothing more is said
        self._connection.write(data)

    def _close(self, code: int, reason: str) -> None:
        if self._gone or self._over or self._close_by:
            return
        self._say(CloseConnection(code, reason))
        self._close_by = self._clock() + CLOSE_SECONDS
        self._inbox.clear()
        self._read_on()
        self._connection.mind_reading()

    def _disconnect(self, code: int, reason: str) -> None:
        """Tell the application that nothing comes any more, once."""
        if not any(message["type"] == "websocket.disconnect" for message in self._inbox):
            self._inbox.append({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._wake()

    def _end(self) -> None:
        self._gone = True
        self._connection.end_upgraded()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
