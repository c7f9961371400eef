"""The publisher's server of a benchmark: the least work that still is HTTP, so that it limits nothing.

The last part of the path says what is answered: `large` 1 MiB, `events` a stream of 20 events as fast as it can be
read, `idle` a stream that says one word and then nothing, everything else 1 KiB of JSON. Bodies are read and forgotten.
As real servers do it sends a Date, which changes every second, so that no two seconds' answers are the same bytes.
GET /counts answers how many requests came per first path segment (`free`, `paid`, `bare`), which is what the ledger's
charges are compared with. Run it: python -m benchmarks.upstream PORT
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from email.utils import formatdate
from typing import cast

import uvloop

from benchmarks.plain_http import END

SMALL, LARGE = 1024, 1024 * 1024
EVENTS = 20
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LAST_CHUNK = b"0" + END


def fixed_answer(size: int) -> bytes:
    """Return what follows the Date of a response with a JSON body of `size` bytes."""
    body = json.dumps({"ok": True, "data": ""}).encode()
    body = json.dumps({"ok": True, "data": "x" * (size - len(body))}).encode()
    return b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


ANSWER, LARGE_ANSWER = fixed_answer(SMALL), fixed_answer(LARGE)
STREAM = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = chunk(b"data: " + b"x" * 92 + b"\n\n")


class Clock:
    """The beginning of all answers of this second. An alarm of the loop keeps it: nobody has to look at the time."""

    start = b""

    def tick(self) -> None:
        """Write the date anew, now and at the beginning of every second."""
        now = time.time()
        self.start = b"HTTP/1.1 200 OK\r\nDate: %b\r\n" % formatdate(now, usegmt=True).encode()
        asyncio.get_running_loop().call_later(1.0 - now % 1.0, self.tick)


CLOCK = Clock()


class Upstream(asyncio.Protocol):
    """One connection. A request is recognised by its blank line; one at a time, as proxies send them."""

    counts = dict.fromkeys((b"free", b"paid", b"bare"), 0)

    def __init__(self) -> None:
        self._rest = b""
        self._body: int | None = 0  # bytes of it still to come; None: chunks until the last one
        self._path = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class
        self._transport.set_write_buffer_limits(4 * LARGE)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._rest += data
        while self._rest:
            if self._path and not self._body_read():
                return
            if not self._rest:
                return
            head, found, rest = self._rest.partition(END)
            if not found:
                return
            self._rest = rest
            self._begin(head)

    def _begin(self, head: bytes) -> None:
        self._path = head[: head.index(b"\r\n")].split(b" ", 2)[1]
        segment = self._path.split(b"/", 2)[1]
        if segment in self.counts:
            self.counts[segment] += 1
        if head.startswith(b"GET "):
            self._answer()
            return
        length = LENGTH.search(head)
        self._body = int(length[1]) if length else None
        if self._body == 0:
            self._answer()

    def _body_read(self) -> bool:
        """Read on in a body; answer and return True when it is complete."""
        if self._body is None:
            if not self._rest.endswith(LAST_CHUNK):
                self._rest = self._rest[-len(LAST_CHUNK) :]
                return False
            self._rest = b""
        else:
            taken = min(self._body, len(self._rest))
            self._rest, self._body = self._rest[taken:], self._body - taken
            if self._body:
                return False
        self._answer()
        return True

    def _answer(self) -> None:
        path, self._path = self._path, b""
        kind = path.partition(b"?")[0].rpartition(b"/")[2]
        if kind == b"counts":
            self._transport.write(self._counted())
        elif kind == b"events":
            self._transport.write(CLOCK.start + STREAM)
            asyncio.get_running_loop().call_soon(self._event, EVENTS)
        elif kind == b"idle":
            self._transport.write(CLOCK.start + STREAM + EVENT)
        elif kind == b"large":
            self._transport.writelines((CLOCK.start, LARGE_ANSWER))  # too much to copy
        else:
            self._transport.write(CLOCK.start + ANSWER)

    def _event(self, left: int) -> None:
        """Write one event; the next one follows in the loop's next turn, so that proxies see them one by one."""
        if self._transport.is_closing():
            return
        if left == 0:
            self._transport.write(LAST_CHUNK)
            return
        self._transport.write(EVENT)
        asyncio.get_running_loop().call_soon(self._event, left - 1)

    def _counted(self) -> bytes:
        body = json.dumps({segment.decode(): number for segment, number in self.counts.items()}).encode()
        return CLOCK.start + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


async def serve(port: int) -> None:
    """Listen until the process is told to end."""
    CLOCK.tick()
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=16_384)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
