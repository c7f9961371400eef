"""The publisher's server of a benchmark: the least work that still is HTTP, so that it limits nothing.

Any request is answered with the same 1 KiB of JSON. GET /counts answers how many requests came per first path segment
(`free`, `paid`, `bare`), which is what the ledger's charges are compared with. Run it:
python -m benchmarks.upstream PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

from benchmarks.plain_http import END

PREFIXES = (b"GET /free", b"GET /paid", b"GET /bare")
COUNTS = b"GET /counts "


def fixed_answer(size: int = 1024) -> bytes:
    """Return the whole response with a JSON body of `size` bytes."""
    body = json.dumps({"ok": True, "data": ""}).encode()
    body = json.dumps({"ok": True, "data": "x" * (size - len(body))}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


ANSWER = fixed_answer()


class Upstream(asyncio.Protocol):
    """One connection. Requests have no body and are recognised by their blank line."""

    counts = dict.fromkeys(PREFIXES, 0)

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        data = self._rest + data
        *requests, self._rest = data.split(END)
        for request in requests:
            prefix = request[:9]
            if prefix in self.counts:
                self.counts[prefix] += 1
            self._transport.write(self._counted() if request.startswith(COUNTS) else ANSWER)

    def _counted(self) -> bytes:
        body = json.dumps({prefix[5:].decode(): number for prefix, number in self.counts.items()}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def serve(port: int) -> None:
    """Listen until the process is told to end."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
