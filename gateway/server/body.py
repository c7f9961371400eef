"""The body of a request as it stands on the wire: how much of what came belongs to it, by the letter of RFC 9112.

What does not live here: who takes it and when (connection.py).
"""

from __future__ import annotations

import re
from typing import Protocol

from gateway.errors import InvalidRequest
from gateway.server.head import FIELD, TOKEN

# A size of up to 15 digits fits 64 bits; the blanks that others allow around it are read in more than one way.
NAME, TEXT = TOKEN + rb"++", rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;" + NAME + rb"(?:=(?:" + NAME + rb"|" + TEXT + rb"))?)*+")
MAX_SIZE_LINE = 1_024
MAX_TRAILERS = 16_384


class Body(Protocol):
    """What reads one body."""

    ended: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the content in what came, and what lies behind the body's end. Raises InvalidRequest."""
        ...


class SizedBody:
    """A body of a known length."""

    __slots__ = ("_left", "ended")

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the content and the rest."""
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return data, b""
        self.ended = True
        return (data, b"") if len(data) == left else (data[:left], data[left:])


class ChunkedBody:
    """A chunked body. Its trailer fields are checked and dropped: nobody may take them for header fields."""

    __slots__ = ("_left", "_rest", "_trailers", "ended")

    def __init__(self) -> None:
        self._rest = b""  # of a line that is not whole
        self._left = 0  # bytes of the chunk and of the line end behind it
        self._trailers = -1  # bytes of them so far, -1 before the last chunk
        self.ended = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the content and the rest. Raises InvalidRequest."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._left > 2:
                piece = data[at : at + self._left - 2]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
            elif self._left:
                at = self._end_chunk(data, at)
            elif self._trailers < 0:
                at = self._begin_chunk(data, at)
            else:
                at = self._trailer(data, at)
                if self.ended:
                    return b"".join(pieces), data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), b""

    def _end_chunk(self, data: bytes, at: int) -> int:
        expected = b"\r\n"[2 - self._left :]
        found = data[at : at + self._left]
        if not expected.startswith(found):
            raise InvalidRequest("A chunk is longer than its size says.")
        self._left -= len(found)
        return at + len(found)

    def _begin_chunk(self, data: bytes, at: int) -> int:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return self._wait(data, at, MAX_SIZE_LINE)
        size = SIZE.fullmatch(data, at, line_end) if line_end - at <= MAX_SIZE_LINE else None
        if size is None:
            raise InvalidRequest("A chunk's size is not a hexadecimal number with plain extensions, ended by CR LF.")
        length = int(size[1], 16)
        if length:
            self._left = length + 2
        else:
            self._trailers = 0
        return line_end + 2

    def _trailer(self, data: bytes, at: int) -> int:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return self._wait(data, at, MAX_TRAILERS)
        self._trailers += line_end + 2 - at
        if line_end == at:
            self.ended = True
        elif self._trailers > MAX_TRAILERS or FIELD.fullmatch(data[at : line_end + 2]) is None:
            raise InvalidRequest("The trailer section is too large, or a line in it is not `Name: value`.")
        return line_end + 2

    def _wait(self, data: bytes, at: int, most: int) -> int:
        """Keep the beginning of a line. Raises InvalidRequest when it is none, or longer than `most`."""
        rest = data[at:]
        if len(rest) > most or b"\n" in rest or b"\r" in rest[:-1]:
            raise InvalidRequest("A line of the chunked body is too long, or does not end with CR LF.")
        self._rest = rest
        return len(data)
