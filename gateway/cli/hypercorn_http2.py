"""Hypercorn's HTTP/2, made to end what has ended.

As it comes (0.18), an answer that waits for room when its connection ends waits for ever: a call that is never settled,
a task for every such connection, and a shutdown that takes the whole drain. A client whose answer breaks off is not
told, and waits for ever too. A client that opens no window is taken for one that reads, and its answer collected in
memory. And a body that goes on after its answer ends the whole connection. Mended here, in subclasses put in
hypercorn's place; nothing else about it is changed.
"""

from __future__ import annotations

import contextlib

from h2.errors import ErrorCodes
from h2.events import DataReceived
from h2.events import Event as H2Event
from h2.exceptions import ProtocolError
from hypercorn import protocol
from hypercorn.events import Closed, Event
from hypercorn.protocol import h2
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import (
    BUFFER_HIGH_WATER,
    BUFFER_LOW_WATER,
    BufferCompleteError,
    H2Protocol,
    StreamBuffer,
)
from hypercorn.protocol.http_stream import HTTPStream

NAME = H2Protocol.__name__


class Buffer(StreamBuffer):
    """What waits to be sent on a stream: room is made by what is left, not by what a closed window let through."""

    async def push(self, data: bytes) -> None:
        """Add a piece and wait while there is more than enough."""
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        if len(self.buffer) >= BUFFER_HIGH_WATER:
            await self._paused.clear()
            await self._paused.wait()

    async def pop(self, max_length: int) -> bytes:
        """Take what may be sent now."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class LettingGo(H2Protocol):
    """Wakes who waits to send when the connection is gone, and resets streams that end in the middle."""

    async def handle(self, event: Event) -> None:
        """Take an event of the connection below."""
        await super().handle(event)
        if isinstance(event, Closed):
            while self.stream_buffers:
                _, buffer = self.stream_buffers.popitem()
                await buffer.close()

    async def stream_send(self, event: StreamEvent) -> None:
        """Send what a stream says. One that ends before its answer does is reset (RFC 9113 section 8.1)."""
        if isinstance(event, StreamClosed) and isinstance(self.streams.get(event.stream_id), HTTPStream):
            buffer = self.stream_buffers.get(event.stream_id)
            if buffer is not None and not buffer.complete:
                await self._reset(event.stream_id, ErrorCodes.INTERNAL_ERROR)
                await buffer.close()
        await super().stream_send(event)

    async def _handle_events(self, events: list[H2Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived) and event.stream_id not in self.streams:
                # More of a body whose answer is out already: not an error, but nobody wants it.
                await self._reset(event.stream_id, ErrorCodes.NO_ERROR)
            else:
                await super()._handle_events([event])

    async def _reset(self, stream_id: int, code: ErrorCodes) -> None:
        with contextlib.suppress(ProtocolError):  # it may be closed already
            self.connection.reset_stream(stream_id, code)
        await self._flush()


def install() -> None:
    """Replace hypercorn's classes in this process."""
    for module, name, ours in ((protocol, NAME, LettingGo), (h2, StreamBuffer.__name__, Buffer)):
        if not hasattr(module, name):
            raise RuntimeError(f"this hypercorn has no {name} in {module.__name__}")
        setattr(module, name, ours)
