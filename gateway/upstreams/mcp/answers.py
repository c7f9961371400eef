"""The messages in an answer of a publisher's MCP server, whichever form it chose: one JSON object or an event stream.

Bounded: an answer of more than `most` bytes is none, so that no server can fill this process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.upstreams.http.errors import BrokenBody
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.mcp.messages import BadAnswer, Message, answer_of
from pricing.events import EventReader

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
    """Yield the data of each event. `most` bounds one event. Raises BadAnswer."""
    reader = EventReader(most)
    while piece := await answer.read():
        for data in reader.take(piece):
            yield data
        if reader.lost:
            raise BadAnswer(f"an event is longer than {most} bytes", sent=True)


def event(data: bytes) -> bytes:
    """Return an event that carries a message. It has no id: what was sold is not to be had again by asking for it."""
    return b"event: message\ndata: " + data + b"\n\n"


async def response_to(answer: UpstreamResponse, request_id: object, most: int) -> Message:
    """Return the response to a request; what else comes before it is passed over. Raises BadAnswer or UpstreamError."""
    async for message in messages(answer, most):
        if "method" not in message and message.get("id") == request_id:
            return message
    raise BrokenBody("the answer ended without a response", sent=True)
