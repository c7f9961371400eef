"""Hypercorn's WebSockets, made like those of the gateway's other servers.

As it comes (0.18), hypercorn compresses whenever the client offers to, and bounds a message only when it is unpacked: a
few kilobytes become a gigabyte. And it tells the application neither the code nor the reason of a client's Close frame.
Both are mended here, in a subclass put in hypercorn's place; nothing else about it is changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import ModuleType

from hypercorn.protocol import h2, h11, ws_stream
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.ws_stream import WSStream
from wsproto.connection import Connection
from wsproto.events import CloseConnection, Event


class FrankConnection(Connection):
    """Remembers the client's Close frame."""

    closing: CloseConnection | None = None

    def events(self) -> Generator[Event]:
        """Yield what came."""
        for event in super().events():
            if isinstance(event, CloseConnection):
                self.closing = event
            yield event


class FrankStream(WSStream):
    """Tells the application how the client closed."""

    async def handle(self, event: StreamEvent) -> None:
        """Take an event of the connection below."""
        connection = getattr(self, "connection", None)
        closing = connection.closing if isinstance(connection, FrankConnection) else None
        tell: Callable[[object], Awaitable[None]] | None = getattr(self, "app_put", None)
        if isinstance(event, StreamClosed) and closing is not None and not self.closed and tell is not None:
            self.closed = True
            await tell({"type": "websocket.disconnect", "code": int(closing.code), "reason": closing.reason or ""})
        else:
            await super().handle(event)


def install() -> None:
    """Replace hypercorn's classes in this process."""
    _replace(h11, WSStream=FrankStream)
    _replace(h2, WSStream=FrankStream)
    _replace(ws_stream, Connection=FrankConnection, server_extensions_handshake=_none)


def _replace(module: ModuleType, **names: object) -> None:
    for name, value in names.items():
        if not hasattr(module, name):
            raise RuntimeError(f"{module.__name__} of this hypercorn has no {name}")
        setattr(module, name, value)


def _none(_requested: object, _supported: object) -> None:
    """Agree on no extension."""
