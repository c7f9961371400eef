"""Hypercorn's HTTP/2, made to end what has ended.

As it comes (0.18), an answer that waits for room when its connection ends waits for ever: a call that is never settled,
a task for every such connection, and a shutdown that takes the whole drain. A client whose answer breaks off is not
told, and waits for ever too. A client that opens no window is taken for one that reads, and its answer collected in
memory. A body that goes on after its answer ends the whole connection, and one that its upstream does not take holds up
every other stream, window updates included. Mended here, in subclasses put in hypercorn's place; nothing else about it
is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamEnded
from h2.events import Event as H2Event
from h2.exceptions import ProtocolError
from hypercorn import protocol
from hypercorn.events import Closed, Event
from hypercorn.protocol import h2
from hypercorn.protocol.events import Body, EndBody, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
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


class Inflow:
    """What has come of one request body and is not yet taken: at most the stream's window, which is opened again for
    what is taken only. The connection's is opened at once: it belongs to the others as well.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.length = 0  # as flow control counts it
        self.ended = False
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def add(self, data: bytes, length: int) -> None:
        """Add a frame."""
        self.data += data
        self.length += length
        self.changed.set()

    def end(self) -> None:
        """Nothing follows."""
        self.ended = True
        self.changed.set()

    def take(self) -> tuple[bytes, int]:
        """Return everything that is there, and its length."""
        taken = bytes(self.data), self.length
        self.data, self.length = bytearray(), 0
        self.changed.clear()
        return taken


class LettingGo(H2Protocol):
    """Wakes who waits when the connection is gone, lets no stream wait for another, resets those that end midway."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._inflows: dict[int, Inflow] = {}

    async def handle(self, event: Event) -> None:
        """Take an event of the connection below."""
        await super().handle(event)
        if isinstance(event, Closed):
            while self.stream_buffers:
                _, buffer = self.stream_buffers.popitem()
                await buffer.close()
            for inflow in self._inflows.values():
                inflow.end()

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
            inflow = self._inflows.get(getattr(event, "stream_id", None) or 0)
            if isinstance(event, DataReceived):
                await self._take_data(event, inflow)
            elif isinstance(event, StreamEnded) and inflow is not None:
                inflow.end()
            else:
                await super()._handle_events([event])

    async def _take_data(self, event: DataReceived, inflow: Inflow | None) -> None:
        number, length = event.stream_id or 0, event.flow_controlled_length or 0
        await self._open_window(length)
        if number not in self.streams:
            # More of a body whose answer is out already: not an error, but nobody wants it.
            await self._reset(number, ErrorCodes.NO_ERROR)
            return
        if inflow is None:
            inflow = self._inflows[number] = Inflow()
            inflow.task = asyncio.get_running_loop().create_task(self._pass_on(number, inflow))
        inflow.add(event.data or b"", length)

    async def _pass_on(self, number: int, inflow: Inflow) -> None:
        """Hand one stream's data to its application at the pace of that, until the end of the stream."""
        try:
            while not self.closed:
                data, length = inflow.take()
                stream = self.streams.get(number)
                if data and stream is not None:
                    await stream.handle(Body(stream_id=number, data=data))
                if length:
                    await self._open_window(length, number)
                elif stream is None or inflow.ended:
                    break
                else:
                    await inflow.changed.wait()
            stream = self.streams.get(number)
            if stream is not None and inflow.ended and not self.closed:
                await stream.handle(EndBody(stream_id=number))
        finally:
            del self._inflows[number]

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        if stream_id in self._inflows:
            self._inflows[stream_id].end()

    async def _open_window(self, length: int, stream_id: int | None = None) -> None:
        """Let the client send so much more: on the stream, or on the connection."""
        if length:
            with contextlib.suppress(ProtocolError):  # the stream, or the connection, may be over
                self.connection.increment_flow_control_window(length, stream_id)
            await self._flush()

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
