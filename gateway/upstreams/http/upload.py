"""Sending a streamed request body, with the promised length enforced.

Prevents smuggling: bytes beyond Content-Length are never written, and a body that falls short ends with a closed
connection. Not here: the choice of framing (request.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.upstreams.http.connection import Connection
from gateway.upstreams.http.errors import UploadError

_JOIN = 64 * 1024
KEPT_BYTES = 64 * 1024


class KeptBody:
    """A request body on its way, kept as long as it is short, so that it can be sent once more."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._pieces: list[bytes] = []
        self._size = 0
        self.whole = False

    async def pass_on(self) -> AsyncIterator[bytes]:
        """Yield the pieces."""
        async for piece in self._body:
            self._size += len(piece)
            if self._size <= KEPT_BYTES:
                self._pieces.append(piece)
            yield piece
        self.whole = self._size <= KEPT_BYTES

    @property
    def content(self) -> bytes:
        """Return the whole body, if `whole`."""
        return b"".join(self._pieces)


async def upload(connection: Connection, stream: AsyncIterator[bytes], length: int | None) -> None:
    """Send `stream`; failures become the exchange's error. Stops as soon as the upstream has answered."""
    try:
        pieces = _chunks(connection, stream) if length is None else _exactly(connection, stream, length)
        await pieces
    except UploadError as error:
        _fail(connection, error)
    except Exception as error:  # noqa: BLE001 - whatever the caller's iterator raises is told to the waiting send()
        failure = UploadError(f"the request body failed ({type(error).__name__})", sent=True)
        failure.__cause__ = error
        _fail(connection, failure)


def _fail(connection: Connection, error: UploadError) -> None:
    if not connection.answered:  # an answer that is already there counts, whatever became of the rest of the body
        connection.fail(error)


async def require_empty(stream: AsyncIterator[bytes]) -> None:
    """Raise UploadError unless the stream yields nothing, as `Content-Length: 0` promised."""
    async for piece in stream:
        if piece:
            raise UploadError("the request body is longer than its Content-Length")


async def _exactly(connection: Connection, stream: AsyncIterator[bytes], length: int) -> None:
    # The piece that completes the body is held back until the iterator has ended: if more follows, the upstream must
    # not have seen a complete request. The others go on at once, for a caller that waits before it sends the rest.
    last = b""
    async for piece in stream:
        if connection.answered:
            return
        length -= len(piece)
        if length < 0:
            raise UploadError("the request body is longer than its Content-Length", sent=True)
        if length == 0 and piece:
            last = piece
        else:
            connection.write(piece)
            await connection.drain()
    if length:
        raise UploadError("the request body is shorter than its Content-Length", sent=True)
    if not connection.answered:
        connection.write(last)
        connection.upload_done()


async def _chunks(connection: Connection, stream: AsyncIterator[bytes]) -> None:
    async for piece in stream:
        if connection.answered:
            return
        if not piece:  # a chunk of size zero would end the body
            continue
        if len(piece) < _JOIN:
            connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            connection.write(b"%x\r\n" % len(piece))
            connection.write(piece)
            connection.write(b"\r\n")
        await connection.drain()
    if not connection.answered:
        connection.write(b"0\r\n\r\n")
        connection.upload_done()
