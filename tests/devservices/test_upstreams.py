"""The demo upstream on the wire: plain HTTP/1.1, ranges, event streams, pipelining, draining."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from gateway.devservices.processes import accepts, free_port
from gateway.devservices.upstreams import parse_range
from tests.support.dev import environment


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    number = free_port()
    process = _start(number)
    yield number
    process.terminate()
    assert process.wait(10) == 0


def _start(number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gateway.devservices.upstreams", "--port", str(number)]
    process = subprocess.Popen(command, env=environment())
    while not accepts(number):
        assert process.poll() is None
        time.sleep(0.02)
    return process


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as opened:
        yield opened


def raw(port: int, data: bytes) -> bytes:
    """Send bytes and read to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_the_benchmark_answer_is_about_a_kilobyte(client: httpx.Client) -> None:
    answer = client.get("/v1/quote")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert 950 <= len(answer.content) <= 1_100
    assert answer.json()["symbol"] == "ACME"


def test_head_has_the_length_and_no_body(port: int) -> None:
    answer = raw(port, b"HEAD /v1/quote HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 1015\r\n" in answer


def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    requests = b"GET /v1/slow?seconds=0.2 HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/quote HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = raw(port, requests + b"GET /v1/status/418 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert answer.index(b"waited") < answer.index(b"ACME") < answer.index(b"418 Status")
    assert answer.count(b"HTTP/1.1 ") == 3


def test_bytes_that_are_no_http_get_400(port: int) -> None:
    assert raw(port, b"\x00\x01nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_characters_and_search(client: httpx.Client) -> None:
    assert client.get("/v1/characters/U+2603").json()["name"] == "SNOWMAN"
    assert client.get("/v1/characters/%E2%82%AC").json()["name"] == "EURO SIGN"
    assert client.get("/v1/search", params={"q": "snowman", "limit": 1}).json()["results"][0]["code_point"] == "U+2603"
    assert client.get("/v1/search").status_code == 404
    assert client.get("/v1/search?q=a&limit=x").status_code == 404
    assert client.get("/v1/characters/nothing").status_code == 404
    assert client.get("/nothing").status_code == 404


def test_quotes(client: httpx.Client) -> None:
    assert client.get("/v1/quotes/acme?day=2026-01-30").json()["close"] == 94.03
    assert client.get("/v1/quotes/nope").status_code == 404
    rows = client.get("/v1/quotes/ACME/history?from=2026-01-01&to=2026-01-10").json()["rows"]
    assert len(rows) == 10


def test_the_stream_sends_one_event_at_a_time(client: httpx.Client) -> None:
    began = time.monotonic()
    with client.stream("GET", "/v1/stream?events=3&interval_ms=100") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        times = [time.monotonic() - began for line in answer.iter_lines() if line.startswith("data: ")]
    assert len(times) == 3
    assert times[2] - times[0] > 0.15


def test_the_download_in_ranges_is_the_whole_download(client: httpx.Client) -> None:
    whole = client.get("/v1/files/unicode-names.txt")
    size = len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    parts = b""
    for first in range(0, size, 400_000):
        part = client.get("/v1/files/unicode-names.txt", headers={"range": f"bytes={first}-{first + 399_999}"})
        assert part.status_code == 206
        parts += part.content
    assert parts == whole.content
    missing = client.get("/v1/files/unicode-names.txt", headers={"range": f"bytes={size}-"})
    assert (missing.status_code, missing.headers["content-range"]) == (416, f"bytes */{size}")
    same = client.get("/v1/files/unicode-names.txt", headers={"if-none-match": whole.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=5-", (5, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-99", (0, 9)),
        ("bytes=8-99", (8, 9)),
        ("bytes=10-", None),
        ("bytes=-0", None),
        ("bytes=4-3", None),
        ("bytes=-", None),
        ("lines=0-1", None),
        ("bytes=0-1,3-4", None),
    ],
)
def test_ranges_of_ten_bytes(header: str, span: tuple[int, int] | None) -> None:
    assert parse_range(header, 10) == span


def test_the_echo_shows_what_arrived(client: httpx.Client) -> None:
    body = b"x" * 300_000
    answer = client.put("/echo/some/path?a=1", content=body, headers={"x-one": "1"}).json()
    assert (answer["method"], answer["target"]) == ("PUT", "/echo/some/path?a=1")
    assert ["x-one", "1"] in answer["headers"]
    assert answer["body"] == {"bytes": 300_000, "sha256": hashlib.sha256(body).hexdigest()}


@pytest.mark.parametrize("status", [204, 304, 404, 500, 503])
def test_a_status_on_request(client: httpx.Client, status: int) -> None:
    assert client.get(f"/v1/status/{status}").status_code == status


def test_sigterm_lets_an_answer_under_way_finish() -> None:
    number = free_port()
    process = _start(number)
    with socket.create_connection(("127.0.0.1", number), timeout=10) as busy:
        busy.sendall(b"GET /v1/slow?seconds=0.8 HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        answer = b"".join(iter(lambda: busy.recv(65_536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"waited": 0.8}
    assert process.wait(5) == 0
