"""The messages in an answer of a publisher's MCP server, whichever form it chose: one JSON object or an event stream.

Bounded: an answer of more than `most` bytes is none, so that no server can fill this process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.upstreams.http.errors import BrokenBody
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.mcp.messages import BadAnswer, Message, answer_of

JSON, EVENTS = b"application/json", b"text/event-stream"


def kind_of(answer: UpstreamResponse) -> bytes:
    """Return the media type of an answer, without its parameters."""
    return (answer.field(b"content-type") or b"").partition(b";")[0].strip().lower()


async def messages(answer: UpstreamResponse, most: int) -> AsyncIterator[Message]:
    """Yield the messages as they come. Raises BadAnswer, or UpstreamError when the answer breaks off."""
    kind = kind_of(answer)
    if kind == EVENTS:
        async for data in events(answer, most):
            yield answer_of(data)
    elif kind == JSON:
        body = await answer.whole(most)
        if body is None:
            raise BadAnswer(f"the answer is longer than {most} bytes", sent=True)
        yield answer_of(body)
    else:
        raise BadAnswer("the answer is neither JSON nor an event stream", sent=True)


async def events(answer: UpstreamResponse, most: int) -> AsyncIterator[bytes]:
    """Yield the data of each event (HTML living standard, section 9.2.6); comments and other fields are passed over.

    `most` bounds one event. Raises BadAnswer.
    """
    reader = _EventReader(most)
    while piece := await answer.read():
        for data in reader.take(piece):
            yield data


class _EventReader:
    """Lines out of pieces, events out of lines."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: list[bytes] = []  # of the line that has not ended
        self._data: list[bytes] = []  # of the event that has not ended
        self._size = 0

    def take(self, piece: bytes) -> list[bytes]:
        """Return the events that end in a piece."""
        self._size += len(piece)
        if self._size > self._most:
            raise BadAnswer(f"an event is longer than {self._most} bytes", sent=True)
        self._pieces.append(piece)
        if b"\n" not in piece and b"\r" not in piece and not self._pieces[0].endswith(b"\r"):
            return []
        *lines, rest = _lines(b"".join(self._pieces))
        self._pieces = [rest]
        ended: list[bytes] = []
        for line in lines:
            self._line(line, ended)
        if lines and not self._data:
            self._size = len(rest)
        return ended

    def _line(self, line: bytes, ended: list[bytes]) -> None:
        if not line:
            data, self._data = b"\n".join(self._data), []
            if data:
                ended.append(data)
            return
        name, _, value = line.removeprefix(b"\xef\xbb\xbf").partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))


def _lines(held: bytes) -> list[bytes]:
    """Return the lines of what is here, the unfinished one last. A line ends with CR, LF or both."""
    tail = b"\r" if held.endswith(b"\r") else b""  # an LF may follow: the end is seen with the next piece
    lines = held.removesuffix(tail).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    lines[-1] += tail
    return lines


def event(data: bytes) -> bytes:
    """Return an event that carries a message. It has no id: what was sold is not to be had again by asking for it."""
    return b"event: message\ndata: " + data + b"\n\n"


async def response_to(answer: UpstreamResponse, request_id: object, most: int) -> Message:
    """Return the response to a request; what else comes before it is passed over. Raises BadAnswer or UpstreamError."""
    async for message in messages(answer, most):
        if "method" not in message and message.get("id") == request_id:
            return message
    raise BrokenBody("the answer ended without a response", sent=True)
