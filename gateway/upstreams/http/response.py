"""The response as the caller sees it: head, then body pieces, with backpressure.

Lives here: the queue between the socket and the caller. Not here: parsing (connection.py). Prevents unbounded
buffering: above HIGH_WATER queued bytes the connection stops reading until the caller has taken what is there.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.upstreams.http.errors import UpstreamError

HIGH_WATER = 128 * 1024


class Stream(Protocol):
    """What a response needs from its connection."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abandon(self, response: UpstreamResponse) -> None: ...
    async def write_raw(self, data: bytes) -> None: ...


class UpstreamResponse:
    """One answer. Read it to the end or call `aclose`: until then it occupies its connection.

    `headers` are as received, names and order included. `trailers` fill when the body has ended.
    """

    __slots__ = (
        "_ended",
        "_error",
        "_paused",
        "_pieces",
        "_size",
        "_started",
        "_stream",
        "_waiter",
        "headers",
        "reason",
        "status",
        "trailers",
    )

    def __init__(self, stream: Stream, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.trailers: list[tuple[bytes, bytes]] = []
        self._stream = stream
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = self._paused = self._started = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def complete_body(self) -> bytes | None:
        """The whole body if it has arrived and nothing was read yet, so that it can be sent on without awaiting."""
        if not self._ended or self._started or self._error is not None:
            return None
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""

    async def gather(self, most: int, seconds: float) -> bool:
        """Wait until the whole body has arrived, and return whether it has: not when it is larger than `most` bytes, or
        takes longer. Nothing is read by this. Raises as `read`.
        """
        late = False

        def end() -> None:
            nonlocal late
            late = True
            self._wake()

        timer = asyncio.get_running_loop().call_later(seconds, end)
        try:
            while not (self._ended or self._error is not None or late or self._size > most):
                if self._paused:
                    self._paused = False
                    self._stream.resume_reading()
                await self._wait()
        finally:
            timer.cancel()
        if self._error is not None:
            raise self._error
        return self._ended and self._size <= most

    async def read(self) -> bytes:
        """Return what has arrived, waiting for some if nothing has; b"" at the clean end.

        Raises BrokenBody, IdleTimeout, TotalTimeout or ProtocolError after everything that arrived intact was read.
        """
        self._started = True
        if not self._pieces and self._error is None and not self._ended:
            await self._wait()
        if self._pieces:
            return self._take()
        if self._error is not None:
            raise self._error
        return b""

    async def whole(self, most: int) -> bytes | None:
        """Return the body, or None when it is longer than `most` bytes. Raises as `read`."""
        body = bytearray()
        while piece := await self.read():
            body += piece
            if len(body) > most:
                return None
        return bytes(body)

    def field(self, wanted: bytes) -> bytes | None:
        """Return the first field of a lower-case name."""
        return next((value for name, value in self.headers if name.lower() == wanted), None)

    async def write(self, data: bytes) -> None:
        """Send raw bytes after status 101; waits while the upstream accepts no more."""
        if self.status != 101:
            raise RuntimeError("write() needs a 101 response")
        if self._error is not None:
            raise self._error
        await self._stream.write_raw(data)

    async def aclose(self) -> None:
        """Give the response up. Closes the connection unless the message had ended cleanly. May be called twice."""
        self._pieces.clear()
        self._size = 0
        self._started = True
        if not self._ended and self._error is None:
            self._stream.abandon(self)

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("read() is already waiting")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            # Nobody reads on: an upstream that keeps sending must not hold a connection.
            self._stream.abandon(self)
            raise
        finally:
            self._waiter = None

    def _take(self) -> bytes:
        """Return everything queued as one piece: fewer, larger writes for a caller that fell behind."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self._stream.resume_reading()
        return data

    # What follows is called by the connection.

    def feed(self, piece: bytes) -> None:
        """Queue a piece, pausing the connection above the high-water mark."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._waiter is not None:
            self._wake()
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._stream.pause_reading()

    def end(self) -> None:
        """The message is complete; the connection no longer belongs to it."""
        self._ended = True
        self._paused = False
        if self._waiter is not None:
            self._wake()

    def fail(self, error: UpstreamError) -> None:
        """The message will never be complete."""
        if not self._ended and self._error is None:
            self._error = error
            self._paused = False
            if self._waiter is not None:
                self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
