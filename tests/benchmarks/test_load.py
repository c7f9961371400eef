"""The load generator tells apart what a server may answer, and counts a latency from when its call was due."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from benchmarks.generator import load

pytestmark = pytest.mark.usefixtures("load_generator")

MARKED = b"GET /a/~~~~~~~~~~~~~~~~/x?y=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n"
OTHER_MARKED = MARKED.replace(b"/a/", b"/b/")
GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n"
ANSWERS = {
    "length": [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
    "pieces": [b"HTTP/1.1 20", b"1 Created\r\ncontent-LENGTH:  5\r\n\r", b"\nhe", b"llo"],
    "chunks": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhel", b"lo\r\n1\r", b"\n!\r\n0\r\n\r\n"],
    "trailer": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n", b"\r\n"],
    "early": [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"],
    "shed": [b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"],
    "rude": [b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"],
    "poor": [b"HTTP/1.1 402 Payment Required\r\nContent-Length: 2\r\n\r\n{}"],
    "last": [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n."],
    "until the end": [b"HTTP/1.1 200 OK\r\n\r\nall that comes", b""],
    "cut off": [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", b""],
}
GOOD = ("length", "pieces", "chunks", "trailer", "early", "last", "until the end")


class Server(threading.Thread):
    """Gives each request the next answer, in pieces; an empty piece closes the connection. Counts what it gave."""

    def __init__(self, names: Iterator[str], size: int, wait: threading.Event | None = None) -> None:
        super().__init__(daemon=True)
        self._names, self._size, self._wait = names, size, wait
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.given: Counter[str] = Counter()
        self.requests: list[bytes] = []

    def run(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(target=self._served, args=(connection,), daemon=True).start()

    def _served(self, connection: socket.socket) -> None:
        with connection:
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while self._request(connection):
            if self._wait is not None:
                self._wait.wait(0.4)
                self._wait.set()
            name = next(self._names)
            self.given[name] += 1
            for piece in ANSWERS[name]:
                connection.sendall(piece)
            if name in ("last", "until the end", "cut off"):
                return

    def _request(self, connection: socket.socket) -> bool:
        request = b""
        while len(request) < self._size:
            data = connection.recv(min(self._size - len(request), 65536))
            if not data:
                return False
            request += data
        self.requests.append(request)
        return True


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    file = tmp_path / "heads"
    file.write_bytes(GET)
    return file


def test_every_kind_of_answer_is_told_apart(heads: Path) -> None:
    server = Server(cycle(ANSWERS), len(GET))
    server.start()
    seen = load(server.port, heads, 1, 0.4)
    given = server.given
    assert seen.ok_total == sum(given[name] for name in GOOD) > 0
    assert seen.shed == given["shed"] + given["rude"] > 0
    assert seen.shed_without_retry_after == given["rude"]
    assert (seen.bad_status, seen.last_bad) == (given["poor"], 402)
    assert seen.socket_errors == given["cut off"]
    assert seen.unfinished == 0
    assert seen.started == given.total()
    assert not seen.clean


def test_bodies_are_sent_whole(tmp_path: Path) -> None:
    (tmp_path / "heads").write_bytes(POST)
    server = Server(cycle(["length"]), len(POST) + 300_000)
    server.start()
    seen = load(server.port, tmp_path / "heads", 1, 0.3, body=300_000)
    assert seen.started == seen.ok_total == server.given["length"] > 0
    assert seen.clean
    assert seen.p50_ms <= seen.p99_ms <= seen.p999_ms <= seen.max_ms


def test_no_two_requests_of_any_run_have_the_same_target(tmp_path: Path) -> None:
    (tmp_path / "heads").write_bytes(MARKED + OTHER_MARKED)
    server = Server(cycle(["length"]), len(MARKED) + 70_000)
    server.start()
    seen = [load(server.port, tmp_path / "heads", 3, 0.3, body=70_000) for _ in range(2)]
    assert all(one.clean for one in seen)
    sent = [request[: len(MARKED)] for request in server.requests]
    assert len(sent) == len({*sent}) == sum(one.started for one in seen) > 2
    pattern = re.escape(MARKED).replace(re.escape(b"~" * 16), b"([0-9a-f]{16})").replace(b"/a/", b"/[ab]/")
    assert all(re.fullmatch(pattern, head) for head in sent), "the rest of a head is sent as it is"
    assert {request[len(MARKED) :] for request in server.requests} == {b"x" * 70_000}


def test_good_answers_are_counted_by_the_second(heads: Path) -> None:
    server = Server(cycle(["length"]), len(GET))
    server.start()
    seen = load(server.port, heads, 1, 2.3)
    assert len(seen.by_second) == 2
    assert 0 < sum(seen.by_second) <= seen.ok


def test_a_latency_of_the_open_loop_counts_from_when_the_call_was_due(heads: Path) -> None:
    """The first answer takes 0.4 s, the others nothing: all that were due meanwhile have waited."""
    server = Server(cycle(["length"]), len(GET), threading.Event())
    server.start()
    seen = load(server.port, heads, 1, 0.8, rate=500)
    assert seen.started + seen.unsent > 300
    assert seen.p99_ms > 300, "by the time at which they were sent, only one in hundreds has waited"
    assert seen.queued_p99_ms > 250, "for they stood in the callers' own queue"
    assert seen.sent_p50_ms < seen.p50_ms


def test_the_times_of_the_open_loop_are_the_same_in_every_run(heads: Path) -> None:
    server = Server(cycle(["length"]), len(GET))
    server.start()
    due = set()
    for _ in range(2):
        seen = load(server.port, heads, 1, 0.3, rate=1000)
        due.add(seen.started + seen.unsent)
    assert len(due) == 1
    assert 200 < due.pop() < 400


def test_a_server_that_is_not_there_is_said(heads: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RuntimeError, match="connect"):
        load(port, heads, 1, 0.1)
