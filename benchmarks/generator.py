"""The built-in load generator, for machines without wrk: a closed loop over raw sockets, in its own process.

Each connection sends its next GET when the answer to the last one is complete. Prints wrk's summary line (load.lua).
Run it: python -m benchmarks.generator PORT TARGET KEYS|- CONNECTIONS SECONDS
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from statistics import quantiles
from typing import cast

import uvloop

from benchmarks.plain_http import END, HOST

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Tally:
    """What all connections of a run have seen."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.bad_status = 0
        self.socket_errors = 0
        self.running = True


class Caller(asyncio.Protocol):
    """One connection in a closed loop."""

    def __init__(self, requests: Iterator[bytes], tally: Tally) -> None:
        self._requests, self._tally = requests, tally
        self._buffer = b""
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count the answer once it is complete, and send the next request."""
        self._buffer += data
        head, found, body = self._buffer.partition(END)
        if not found:
            return
        length = LENGTH.search(head)
        if length is None:
            self._tally.socket_errors += 1  # nothing measured here answers without a length
            self._transport.close()
            return
        if len(body) < int(length[1]):
            return
        self._tally.latencies.append(time.perf_counter() - self._began)
        self._tally.bad_status += head[9:10] != b"2"
        self._buffer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that ended before the run did."""
        self._tally.socket_errors += self._tally.running

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(next(self._requests))


async def run(port: int, target: str, keys: list[str], connections: int, seconds: float) -> dict[str, float]:
    """Load the server and return the summary."""
    fields = [f"Authorization: Bearer {key}\r\n" for key in keys] or [""]
    requests = cycle([f"GET {target} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{field}\r\n".encode() for field in fields])
    tally = Tally()
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    made = [await loop.create_connection(lambda: Caller(requests, tally), HOST, port) for _ in range(connections)]
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - began
    tally.running = False
    for transport, _ in made:
        transport.abort()
    cuts = quantiles(tally.latencies, n=100) if len(tally.latencies) > 1 else [0.0] * 99
    return {
        "requests": len(tally.latencies),
        "seconds": elapsed,
        "p50_ms": cuts[49] * 1e3,
        "p99_ms": cuts[98] * 1e3,
        "bad_status": tally.bad_status,
        "socket_errors": tally.socket_errors,
    }


def main(port: str, target: str, keys: str, connections: str, seconds: str) -> None:
    """Run by the command line's arguments."""
    listed = [] if keys == "-" else Path(keys).read_text(encoding="utf-8").split()
    print("SUMMARY", json.dumps(uvloop.run(run(int(port), target, listed, int(connections), float(seconds)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
