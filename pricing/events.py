"""Server-sent events out of the pieces that they come in (HTML living standard, section 9.2.6).

Lives here: lines, and the data of events. What the data says is its reader's business (reported.py; MCP messages in
gateway/upstreams/mcp). Prevents a stream from filling this process: no more than a bound is kept, whatever it sends.
"""

from __future__ import annotations

MARK = b"\xef\xbb\xbf"


class EventReader:
    """Takes a stream piece by piece. An event longer than `most` bytes of data is passed over, and `lost` says so from
    the moment that this is known: whoever cannot do without it need not wait for its end.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._line = bytearray()  # the line that has not ended
        self._blank = True  # whether nothing of that line has come
        self._first = True
        self._after_return = False
        self._data: list[bytes] = []  # of the event that has not ended
        self._held = 0
        self._passing = False
        self.lost = False

    def take(self, piece: bytes) -> list[bytes]:
        """Return the data of the events that end in a piece; events without data, and other fields, are passed over."""
        ended: list[bytes] = []
        if self._after_return and piece[:1] == b"\n":  # the second half of a line's end
            piece = piece[1:]
        self._after_return = piece.endswith(b"\r")
        for text in piece.splitlines(keepends=True):
            line = text.rstrip(b"\r\n")
            self._gather(line)
            if len(line) != len(text):
                self._end_line(ended)
        return ended

    def end(self) -> list[bytes]:
        """Return the data of an event that the end of the stream has cut short."""
        ended: list[bytes] = []
        for _ in range(2):
            self._end_line(ended)
        return ended

    def _gather(self, text: bytes) -> None:
        if not text:
            return
        self._blank = False
        if self._passing:
            return
        self._line += text
        if self._held + len(self._line) > self._most:
            self._passing = self.lost = True
            self._line.clear()
            self._data.clear()

    def _end_line(self, ended: list[bytes]) -> None:
        line, blank = bytes(self._line), self._blank
        self._line.clear()
        self._blank = True
        if self._first:
            self._first, line = False, line.removeprefix(MARK)
        if blank:
            data, self._data, self._held, self._passing = b"\n".join(self._data), [], 0, False
            if data:
                ended.append(data)
            return
        name, _, value = line.partition(b":")
        if name == b"data" and not self._passing:
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._held += len(value) + 1  # lines without a value take room as well
