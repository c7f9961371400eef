"""Log lines written by a thread, so that a full pipe blocks that thread and never the event loop.

Lines wait in memory up to a bound; what does not fit is dropped and counted (`LOST`), and so is what nobody reads any
more. What does not live here: what a line says (logging.py), the metric (jobs/gauges.py).
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from multiprocessing.util import Finalize

MOST_BYTES = 8 * 1024 * 1024
LAST_SECONDS = 1.0  # how long the end of the process waits for lines that nobody takes


class Lost:
    """How many lines this process could not write."""

    count = 0


LOST = Lost()


class BackgroundHandler(logging.Handler):
    """Formats at once, writes later, in order."""

    def __init__(self, descriptor: int, most: int = MOST_BYTES) -> None:
        """`most`: bytes that may wait."""
        super().__init__()
        self._descriptor, self._most = descriptor, most
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None
        # Not atexit alone: a forked worker ends without it.
        Finalize(None, self.flush, exitpriority=0)

    def emit(self, record: logging.LogRecord) -> None:
        """Put a line behind the others; never waits and never raises."""
        try:
            line = self.format(record).encode(errors="backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001 - logging's own way of telling would write to the pipe, and wait for it
            LOST.count += 1
            return
        with self._changed:
            if self._size + len(line) > self._most:
                LOST.count += 1
                return
            self._lines.append(line)
            self._size += len(line)
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_all, name="log writer", daemon=True)
                self._writer.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything is written, or for a moment."""
        with self._changed:
            self._changed.wait_for(lambda: self._size == 0, LAST_SECONDS)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines.popleft()
            try:
                self._write(line)
            except OSError:  # nobody reads any more; perhaps somebody will
                LOST.count += 1
            with self._changed:
                self._size -= len(line)
                self._changed.notify_all()

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # whoever started us has set it so
                select.select([], [self._descriptor], [])
