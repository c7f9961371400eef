"""One request and its answer, as a handler sees them: the body to take, the answer to write.

Lives here: how an answer is framed (RFC 9112 section 6), and when its connection ends with it. What does not: reading
(connection.py).
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from gateway.server.head import Fields, Head

if TYPE_CHECKING:
    from gateway.server.body import Body
    from gateway.server.connection import Connection
    from gateway.server.seam import Handler

FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
NO_CONTENT, NOT_MODIFIED = 204, 304
JOINED = 65_536  # what is smaller goes out in one piece with what stands before it
UNKNOWN = -1
_joined = b": ".join


class Request:
    """A request. `take` its body, then `respond`, and `send` until the end."""

    __slots__ = (
        "_bare",
        "_chunked",
        "_continued",
        "_keep_alive",
        "_left",
        "_pieces",
        "body",
        "body_ended",
        "connection",
        "done",
        "handler",
        "head",
        "held",
        "lost",
        "responded",
    )

    def __init__(self, connection: Connection, head: Head, body: Body | None) -> None:
        self.connection = connection
        self.head = head
        self.body = body
        self.body_ended = body is None  # whether the whole body is here
        self.handler: Handler | None = None
        self.lost = False  # whether the client is gone
        self.responded = False  # whether the head of the answer is out
        self.done = False  # whether all of the answer is
        self.held = 0  # bytes of the body that nobody has taken yet
        self._pieces: list[bytes] = []
        self._continued = False
        self._keep_alive = head.keep_alive
        self._bare = False  # whether the answer has no body, whatever the handler sends
        self._chunked = False
        self._left = UNKNOWN  # of the answer's body, in bytes

    # --- The body of the request ---

    def add(self, piece: bytes) -> None:
        """Add what has come of the body (for the connection)."""
        self._pieces.append(piece)
        self.held += len(piece)

    def take(self) -> bytes:
        """Return what is here of the body, b"" if nothing is. A client that waits to be asked for it is asked."""
        if not self.held:
            if self.head.expects and not (self._continued or self.body_ended or self.responded):
                self._continued = True
                self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return b""
        pieces, self._pieces, self.held = self._pieces, [], 0
        self.connection.mind_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # --- The answer ---

    def respond(self, status: int, fields: Fields, body: bytes = b"", *, end: bool) -> None:
        """Write the head and the first part of the body; `end` says that there is no more.

        Names are in small letters. How the body is framed, and what becomes of the connection, is decided here; a field
        `connection: close` ends it. Raises ValueError for an answer that cannot be framed.
        """
        if self.responded:
            raise ValueError("the request has been answered before")
        lines, length, closes = [_status_line(status)], None, False
        for field in fields:
            name = field[0]
            if name not in FRAMING:
                lines.append(_joined(field))
            elif name == b"content-length":
                length = int(field[1])
            elif name == b"connection":
                closes = closes or b"close" in field[1].lower()
        self._bare = status in (NO_CONTENT, NOT_MODIFIED) or self.head.method == b"HEAD"
        if length is None and end and not self._bare:
            length = len(body)
        self._frame(lines, None if status == NO_CONTENT else length)
        waited_in_vain = self.head.expects and not (self._continued or self.held or self.body_ended)
        if closes or waited_in_vain or self.connection.service.draining:
            self._keep_alive = False
        if not self._keep_alive:
            lines.append(b"connection: close")
        elif not self.head.http_1_1:
            lines.append(b"connection: keep-alive")
        head = head_of(lines)
        self.responded = True
        self._write(head, body, end=end)

    def send(self, body: bytes, *, end: bool) -> None:
        """Write a further part of the body. Raises ValueError when it is not as long as the head says."""
        if not self.responded or self.done:
            raise ValueError("the answer has not begun, or has ended")
        self._write(b"", body, end=end)

    def cut(self) -> None:
        """End the connection in the middle of the answer, so that the client sees that there is more."""
        if not self.done:
            self.done = True
            self.connection.cut(self, framed=self._chunked or self._left != UNKNOWN)

    @property
    def full(self) -> bool:
        """Return whether the client does not take what was written (see `Connection.when_room`)."""
        return self.connection.full

    @property
    def keeps_alive(self) -> bool:
        """Return whether the connection goes on after this answer."""
        return self._keep_alive and self.body_ended

    def _frame(self, lines: list[bytes], length: int | None) -> None:
        """Say how long the body is, and remember it."""
        if length is not None:
            lines.append(b"content-length: %d" % length)
            self._left = length
        elif self._bare:
            pass
        elif self.head.http_1_1:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        else:
            self._keep_alive = False  # the body ends with the connection

    def _write(self, head: bytes, body: bytes, *, end: bool) -> None:
        if self.lost:
            return
        if self._bare:
            self._put(head)
        elif self._chunked:
            if body:
                self._put(head + b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n" if end else b"\r\n")
            else:
                self._put(head, b"0\r\n\r\n" if end else b"")
        else:
            self._count(len(body))
            self._put(head, body)
            if end and self._left > 0:
                self.cut()
                raise ValueError("the answer is shorter than its Content-Length")
        if end:
            self.done = True
            self.connection.finished(self)

    def _count(self, size: int) -> None:
        if self._left != UNKNOWN:
            if size > self._left:
                raise ValueError("the answer is longer than its Content-Length")
            self._left -= size

    def _put(self, *pieces: bytes) -> None:
        """Write in one go; what is large is not copied."""
        if sum(map(len, pieces)) <= JOINED:
            data = b"".join(pieces)
            if data:
                self.connection.write(data)
        else:
            self.connection.write_all([piece for piece in pieces if piece])


def head_of(lines: list[bytes]) -> bytes:
    """Return the head of an answer from its lines. Raises ValueError when there would be more or other lines in it."""
    lines += (b"", b"")
    head = b"\r\n".join(lines)
    ends = len(lines) - 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
        raise ValueError("a field of the answer has a line end or NUL in it")
    return head


@lru_cache(1_000)
def _status_line(status: int) -> bytes:
    if not 200 <= status <= 999:
        raise ValueError(f"{status} is no status of a final answer")
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}".encode()
