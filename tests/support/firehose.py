"""Very large bodies over raw sockets in threads: an upstream that makes or swallows them without storing, and a caller."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

PIECE = bytes(range(256)) * 4096  # 1 MiB, so that a byte out of place would show
PATIENCE = 300.0


@dataclass
class Firehose:
    """An upstream. GET /<n> answers n bytes; other methods read their body and answer its size.

    `sent` and `received` count body bytes as the kernel took or gave them; `reading` cleared, it takes no body.
    """

    sent: int = 0
    received: int = 0
    wrong: int = 0
    reading: threading.Event = field(default_factory=threading.Event)
    _listener: socket.socket = field(default_factory=socket.socket)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Firehose:
        self.reading.set()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self._spawn(self._accept)
        return self

    def __exit__(self, *_exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.reading.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _spawn(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._spawn(self._serve, self._listener.accept()[0])

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            connection.settimeout(PATIENCE)
            while True:
                head, rest = read_head(connection)
                if head.startswith(b"GET"):
                    self._give(connection, int(re.findall(rb"/(\d+)[? ]", head)[0]))
                else:
                    self._take(connection, int(re.findall(rb"(?i)content-length: (\d+)", head)[0]), rest)

    def _give(self, connection: socket.socket, size: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        view, left = memoryview(PIECE), size
        while left:
            count = connection.send(view[(size - left) % len(PIECE) :][:left])
            left -= count
            self.sent += count

    def _take(self, connection: socket.socket, size: int, first: bytes) -> None:
        left = size - len(first)
        self.received += len(first)
        self.wrong += first != PIECE[: len(first)]
        buffer = bytearray(len(PIECE))
        while left:
            self.reading.wait(PATIENCE)
            count = connection.recv_into(buffer, min(left, len(buffer)))
            if not count:
                return
            self.wrong += not is_right(buffer, count, size - left)
            left -= count
            self.received += count
        body = b"%d" % size
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def is_right(buffer: bytearray, count: int, offset: int) -> bool:
    """Return whether bytes at this place of a body are what the other side sent."""
    at = offset % len(PIECE)
    view, pattern = memoryview(buffer)[:count], memoryview(PIECE)
    first = min(count, len(PIECE) - at)
    return view[:first] == pattern[at : at + first] and view[first:] == pattern[: count - first]


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return a message's head and what came with it of the body. Raises ValueError at the end of the stream."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(65_536)
        if not piece:
            raise ValueError("closed")
        head += piece
    head, _, rest = head.partition(b"\r\n\r\n")
    return head, rest


def resident(pids: list[int]) -> int:
    """Return the resident memory of processes, in bytes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    return total


class Watch:
    """Samples the resident memory of processes while a block runs; `peak` is the most that it grew, in bytes."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._before = resident(pids)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak = 0

    def _sample(self) -> None:
        while not self._over.wait(0.05):
            self.peak = max(self.peak, resident(self._pids) - self._before)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()


@contextlib.contextmanager
def talking(port: int, request: bytes) -> Iterator[socket.socket]:
    """Connect to a gateway and send the head of a request."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(request)
        yield connection


def until_still(read: Iterator[int] | object, seconds: float = 1.5) -> int:
    """Return a counter's value when it has not changed for a while."""
    value, since = -1, time.monotonic()
    while time.monotonic() - since < seconds:
        now = read()  # type: ignore[operator]
        if now != value:
            value, since = now, time.monotonic()
        time.sleep(0.05)
    return value
