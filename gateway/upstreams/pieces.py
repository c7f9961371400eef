"""The WebSocket message that is arriving, collected as bytes: a list of small strings takes many times their size."""

from __future__ import annotations


class Pieces:
    """What is there of one message, up to `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._data = bytearray()

    def add(self, piece: str | bytes | bytearray) -> bool:
        """Add a piece and return True; once that makes too many bytes, drop all of the message and return False."""
        self._data += piece.encode() if isinstance(piece, str) else piece
        if len(self._data) > self.most:
            self._data = bytearray()
            return False
        return True

    def whole(self, *, text: bool) -> str | bytes:
        """Return the message, whose last piece has come, and begin the next one."""
        data, self._data = self._data, bytearray()
        return data.decode() if text else bytes(data)


def size_of(message: str | bytes | bytearray) -> int:
    """Return how many bytes a message has on the wire."""
    return len(message.encode()) if isinstance(message, str) and not message.isascii() else len(message)
