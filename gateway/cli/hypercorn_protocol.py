"""Hypercorn's connections, made like those of our own server.

What hypercorn (0.18) leaves open and a paid proxy cannot: a connection whose application has answered while ten pieces
of the request still waited for it hangs for ever, because the end waits behind them; so does one that is lost while a
further request waits for its turn. A byte behind the last request of a connection has that one answered 400, when it
is paid. WebSockets are compressed whenever the client offers to, and messages bounded only when unpacked: a few
kilobytes become a gigabyte; their bound counts characters, goes on collecting when it is exceeded, and ten whole ones
wait beside it. The application is not told how a client closed, and the end waits for the next ping. When the server
stops, a connection is closed although its first request has arrived.
All of it is mended by classes put in the place of hypercorn's, which has no setting for that; nothing else about it is
changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from types import ModuleType
from typing import Any, cast

import h11 as h11_library
from hypercorn import protocol
from hypercorn.asyncio import run, tcp_server
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.config import Config
from hypercorn.events import Closed, RawData
from hypercorn.events import Event as ConnectionEvent
from hypercorn.protocol import h2, h11, ws_stream
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WSStream
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

from gateway.upstreams.pieces import Pieces, size_of

Message = dict[str, Any]
Sending = Callable[[Any], Awaitable[None]]
ENDS = frozenset({"http.disconnect", "websocket.disconnect"})
# When the server stops: how long a connection waits for a request that is on its way.
LAST_REQUEST_SECONDS = 0.25


class Inbox:
    """What waits for one application: bounded, except that the end always fits and lets nobody wait any longer."""

    def __init__(self, messages: int, most: int) -> None:
        """Hold up to so many messages, and up to so many bytes unless one message alone has more."""
        self._limit, self._most, self._bytes = messages, most, 0
        self._messages: deque[Message] = deque()
        self._ended = False
        self._some, self._room = asyncio.Event(), asyncio.Event()

    async def put(self, message: Message) -> None:
        """Add a message, waiting for room. After the end messages are dropped."""
        if message["type"] in ENDS:
            self.end()
        else:
            size = _size(message)
            while self._full(size) and not self._ended:
                self._room.clear()
                await self._room.wait()
            if self._ended:
                return
            self._bytes += size
        self._messages.append(message)
        self._some.set()

    async def get(self) -> Message:
        """Return the next message, waiting for one."""
        while not self._messages:
            self._some.clear()
            await self._some.wait()
        message = self._messages.popleft()
        self._bytes -= _size(message)
        self._room.set()
        return message

    def end(self) -> None:
        """Nobody reads on, or nothing follows."""
        self._ended = True
        self._room.set()

    def _full(self, size: int) -> bool:
        return bool(self._messages) and (len(self._messages) >= self._limit or self._bytes + size > self._most)


def _size(message: Message) -> int:
    text = message.get("text")
    return len(message.get("bytes") or message.get("body") or b"") if text is None else size_of(text)


class Tasks(TaskGroup):
    """Gives every application an Inbox, which ends with it."""

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Sending) -> Any:
        """Start the application for one request; return where its messages go."""
        most = (
            config.websocket_max_message_size if scope["type"] == "websocket" else sys.maxsize
        )  # parts of bodies are small
        inbox = Inbox(config.max_app_queue_size, most)

        async def application(scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
            try:
                await app(scope, inbox.get, send, sync_spawn, call_soon)
            finally:
                inbox.end()

        await super().spawn_app(application, config, scope, send)
        return inbox.put


class PatientServer(tcp_server.TCPServer):
    """Closes an idle connection, when the server stops, only after what has arrived on it was read."""

    async def _idle_timeout(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.context.terminated.wait(), self.config.keep_alive_timeout)
            await asyncio.sleep(LAST_REQUEST_SECONDS)  # a request ends this task
            await asyncio.sleep(LAST_REQUEST_SECONDS)  # the loop may have stood still during the first
        await asyncio.shield(self._initiate_server_close())


class Over:
    """What remains of an HTTP/1.1 connection that is lost: nothing comes, nothing goes."""

    our_state = their_state = h11_library.ERROR
    they_are_waiting_for_100_continue = False
    trailing_data = (b"", False)

    def receive_data(self, _data: bytes) -> None:
        """Forget."""

    def next_event(self) -> type[h11_library.NEED_DATA]:
        """Return that there is nothing."""
        return h11_library.NEED_DATA

    def send(self, _event: object) -> bytes:
        """Refuse; their_state says that this is no surprise."""
        raise h11_library.LocalProtocolError("the connection is lost")

    def start_next_cycle(self) -> None:
        """Do nothing: there is none."""


class Reader(h11_library.Connection):
    """Reads no further than the request that ends the connection: what follows is none (RFC 9112 section 9.6)."""

    @property
    def over(self) -> bool:
        """Say whether the last request is here whole."""
        return self.their_state is h11_library.MUST_CLOSE

    def next_event(self) -> Any:
        """Return the next event."""
        return h11_library.NEED_DATA if self.over else super().next_event()


class EndingH11(H11Protocol):
    """Lets nobody wait for the turn of a further request when none comes any more, nor spoil the last one."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.connection = Reader(h11_library.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)

    async def handle(self, event: ConnectionEvent) -> None:
        """Take an event of the transport."""
        if isinstance(event, RawData) and isinstance(self.connection, Reader) and self.connection.over:
            return
        await super().handle(event)
        if isinstance(event, Closed):
            self.connection = cast(Any, Over())
            await self.can_read.set()

    async def _maybe_recycle(self) -> None:
        states = (self.connection.our_state, self.connection.their_state)
        if self.context.terminated.is_set() or states != (h11_library.DONE, h11_library.DONE):
            self.connection = cast(Any, Over())  # the connection ends here, and hypercorn closes it
        await super()._maybe_recycle()


class FrankConnection(Connection):
    """Remembers the client's Close frame."""

    closing: CloseConnection | None = None

    def events(self) -> Generator[Event]:
        """Yield what came."""
        for event in super().events():
            if isinstance(event, CloseConnection):
                self.closing = event
            yield event


class ByteBuffer:
    """Collects one message, bounded by its bytes."""

    def __init__(self, most: int) -> None:
        self._pieces = Pieces(most)
        self._text = False

    def extend(self, event: TextMessage | BytesMessage) -> None:
        """Add a piece. Raises hypercorn's FrameTooLargeError."""
        self._text = isinstance(event, TextMessage)
        if not self._pieces.add(event.data):
            raise FrameTooLargeError

    def to_message(self) -> Message:
        """Return the whole message, and begin the next one."""
        whole = self._pieces.whole(text=self._text)
        return {"type": "websocket.receive", "text" if self._text else "bytes": whole}

    def clear(self) -> None:
        """Do nothing: `to_message` has."""


class FrankStream(WSStream):
    """Tells the application how the client closed, and ends then; so does a message that is too large."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._over = asyncio.Event()

    async def handle(self, event: StreamEvent) -> None:
        """Take an event of the connection below."""
        if isinstance(event, StreamClosed):
            self._over.set()
        connection = getattr(self, "connection", None)
        closing = connection.closing if isinstance(connection, FrankConnection) else None
        tell: Sending | None = getattr(self, "app_put", None)
        if isinstance(event, StreamClosed) and closing is not None and not self.closed and tell is not None:
            self.closed = True
            await tell({"type": "websocket.disconnect", "code": int(closing.code), "reason": closing.reason or ""})
        else:
            await super().handle(event)

    async def _send_wsproto_event(self, event: Event) -> None:
        await super()._send_wsproto_event(event)
        too_big = isinstance(event, CloseConnection) and event.code == CloseReason.MESSAGE_TOO_BIG
        if too_big and self.state is ASGIWebsocketState.CONNECTED and not self.closed:  # not the application's
            self.closed = True  # what follows is not read: it would be collected again
            tell: Sending | None = getattr(self, "app_put", None)
            if tell is not None:
                await tell(
                    {
                        "type": "websocket.disconnect",
                        "code": int(CloseReason.MESSAGE_TOO_BIG),
                        "reason": "message too large",
                    }
                )
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_pings(self) -> None:
        while not self._over.is_set():
            await self._send_wsproto_event(Ping())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.websocket_ping_interval):
                    await self._over.wait()


def install() -> None:
    """Replace hypercorn's classes in this process."""
    _replace(tcp_server, TaskGroup=Tasks)
    _replace(run, TCPServer=PatientServer)
    _replace(protocol, H11Protocol=EndingH11)
    _replace(h11, WSStream=FrankStream)
    _replace(h2, WSStream=FrankStream)
    _replace(ws_stream, Connection=FrankConnection, WebsocketBuffer=ByteBuffer, server_extensions_handshake=_none)


def _replace(module: ModuleType, **names: object) -> None:
    for name, value in names.items():
        if not hasattr(module, name):
            raise RuntimeError(f"{module.__name__} of this hypercorn has no {name}")
        setattr(module, name, value)


def _none(_requested: object, _supported: object) -> None:
    """Agree on no extension."""
