"""Callers in a closed loop inside the benchmark's own process, for what is slow enough: sold queries (sql.py).

Each connection sends its next GET when the answer to the last one is complete.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from typing import cast

from benchmarks.plain_http import END

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
