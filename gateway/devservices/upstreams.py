"""The demo publishers' upstream server: `python -m gateway.devservices.upstreams --port N`.

Serves the facts of demo_data.py, a download with ranges, a server-sent event stream, a chat in the format of the OpenAI
API (demo_chat.py), tools over MCP (demo_tools.py), an echo that shows what reaches an upstream, and answers that fail
or dawdle on request. Plain asyncio and httptools, because it is also the bare upstream that the benchmarks measure the
gateway against. It knows no prices and no payments: it is somebody else's server.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

import httptools
import orjson
import uvloop

from gateway.devservices import demo_chat, demo_data, demo_tools
from gateway.devservices.demo_chat import BadQuestion
from gateway.devservices.demo_data import UnknownFact

JSON = b"application/json"
MAX_RESULTS = 100
MAX_DAYS = 3_660
MAX_SECONDS = 60.0
MAX_EVENTS = 10_000
MAX_CONTENT = 65_536
"""Bytes of a request's body that are kept."""

REASONS = {
    200: b"OK",
    202: b"Accepted",
    206: b"Partial Content",
    304: b"Not Modified",
    400: b"Bad Request",
    404: b"Not Found",
}
BYTE_RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")


@dataclass
class Request:
    """One request, its body digested, and kept as long as it is short."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool = True
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    content: bytearray = field(default_factory=bytearray)

    @property
    def path(self) -> str:
        """Return the path as it was sent."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """Return the query's parameters; of repeated ones the last."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def header(self, name: bytes) -> str:
        """Return a header's value, or nothing."""
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == name), "")

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """Return a query parameter within bounds. Raises UnknownFact for what is no number."""
        try:
            value = float(self.query.get(name, default))
        except ValueError:
            raise UnknownFact(f"{name} must be a number") from None
        return min(max(value, low), high) if value == value else default


@dataclass
class Response:
    """One answer: a body, or chunks made as they are sent."""

    status: int = 200
    kind: bytes = JSON
    body: bytes | memoryview = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    chunks: AsyncIterator[bytes] | None = None
    delay: float = 0.0


def reply(document: object, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(status, JSON, orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))


def one_kilobyte() -> bytes:
    """Return the body of /v1/quote: a fixed quote with a short history, close to 1 KiB, for benchmarks."""
    day = date(2026, 1, 30)
    document: dict[str, object] = dict(demo_data.quote("ACME", day))
    document["history"] = [quote["close"] for quote in demo_data.history("ACME", date(2025, 9, 2), day, 120)]
    document["note"] = "prices are generated"
    return orjson.dumps(document)


def _index(_request: Request) -> Response:
    return reply({"service": "Tollway demo upstream", "routes": [pattern.pattern for pattern, _ in ROUTES]})


def _search(request: Request) -> Response:
    query = request.query.get("q", "")
    if not query.strip():
        raise UnknownFact("q must name what to search for, for instance /v1/search?q=snowman")
    return reply(demo_data.search(query, int(request.number("limit", 20, 1, MAX_RESULTS))))


def _character(request: Request) -> Response:
    return reply(demo_data.character(demo_data.parse_code_point(unquote(request.path.rsplit("/", 1)[1]))))


def _symbols(_request: Request) -> Response:
    return reply({"symbols": [{"symbol": symbol, "name": name} for symbol, (name, _) in demo_data.SYMBOLS.items()]})


def _quote(request: Request) -> Response:
    symbol = request.path.rsplit("/", 1)[1].upper()
    return reply(demo_data.quote(symbol, demo_data.parse_day(request.query.get("day"))))


def _history(request: Request) -> Response:
    symbol = request.path.split("/")[3].upper()
    last = demo_data.parse_day(request.query.get("to"))
    first = demo_data.parse_day(request.query.get("from")) if "from" in request.query else last.replace(day=1)
    return reply({"symbol": symbol, "rows": list(demo_data.history(symbol, first, last, MAX_DAYS))})


def _stream(request: Request) -> Response:
    events = int(request.number("events", 10, 1, MAX_EVENTS))
    pause = request.number("interval_ms", 200, 0, 60_000) / 1_000
    return Response(200, b"text/event-stream", chunks=_ticks(events, pause), headers=((b"cache-control", b"no-store"),))


async def _ticks(events: int, pause: float) -> AsyncIterator[bytes]:
    symbols = list(demo_data.SYMBOLS)
    for number in range(events):
        tick = demo_data.quote(symbols[number % len(symbols)], date(2026, 1, 30))
        yield b"id: %d\nevent: quote\ndata: %b\n\n" % (number, orjson.dumps(tick))
        await asyncio.sleep(pause)


def _models(_request: Request) -> Response:
    return reply({"object": "list", "data": [{"id": demo_chat.MODEL, "object": "model", "owned_by": "tollway"}]})


def _chat(request: Request) -> Response:
    try:
        words, asked = demo_chat.read_question(bytes(request.content))
    except BadQuestion as error:
        return reply({"error": {"message": str(error), "type": "invalid_request_error"}}, 400)
    if asked.get("stream"):
        return Response(200, b"text/event-stream", chunks=demo_chat.chunks(words, asked))
    return reply(demo_chat.completion(words, asked))


def _tools(request: Request) -> Response:
    if request.method != "POST":
        return Response(405, b"", headers=((b"allow", b"POST"),))
    answered = demo_tools.answer_to(bytes(request.content))
    if answered.stream is not None:
        return Response(200, b"text/event-stream", chunks=answered.stream, headers=((b"cache-control", b"no-store"),))
    return Response(answered.status, b"") if answered.response is None else reply(answered.response, answered.status)


def _names_file(request: Request) -> Response:
    content = memoryview(demo_data.names_file())
    tag = f'"unicode-{len(content)}"'
    common = ((b"accept-ranges", b"bytes"), (b"etag", tag.encode()))
    if request.header(b"if-none-match") == tag:
        return Response(304, b"", b"", common)
    wanted = request.header(b"range")
    if not wanted or request.header(b"if-range") not in ("", tag):
        return Response(200, b"text/plain; charset=utf-8", content, common)
    span = parse_range(wanted, len(content))
    if span is None:
        return Response(416, b"", b"", (*common, (b"content-range", b"bytes */%d" % len(content))))
    first, last = span
    where = (b"content-range", b"bytes %d-%d/%d" % (first, last, len(content)))
    return Response(206, b"text/plain; charset=utf-8", content[first : last + 1], (*common, where))


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return the first and last byte of a single range (RFC 9110 section 14.1.2); None when it cannot be served."""
    match = BYTE_RANGE.match(header)
    if match is None or match.groups() == ("", ""):
        return None
    first_text, last_text = match.groups()
    if not first_text:
        length = min(int(last_text), size)
        return (size - length, size - 1) if length else None
    first, last = int(first_text), min(int(last_text or size), size - 1)
    return (first, last) if first <= last else None


def _echo(request: Request) -> Response:
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers]
    body = {"bytes": request.size, "sha256": request.digest.hexdigest()}
    return reply({"method": request.method, "target": request.target, "headers": headers, "body": body})


def _status(request: Request) -> Response:
    status = int(request.path.rsplit("/", 1)[1])
    if not 200 <= status <= 599:
        raise UnknownFact("a status between 200 and 599 can be had")
    return Response(status) if status in (204, 304) else reply({"status": status}, status)


def _slow(request: Request) -> Response:
    seconds = request.number("seconds", 1.0, 0.0, MAX_SECONDS)
    answer = reply({"waited": seconds})
    answer.delay = seconds
    return answer


def _health(_request: Request) -> Response:
    return reply({"status": "ok"})


ROUTES: list[tuple[re.Pattern[str], Callable[[Request], Response]]] = [
    (re.compile(pattern), handler)
    for pattern, handler in (
        (r"/", _index),
        (r"/v1/characters/[^/]+", _character),
        (r"/v1/search", _search),
        (r"/v1/quotes", _symbols),
        (r"/v1/quotes/[^/]+", _quote),
        (r"/v1/quotes/[^/]+/history", _history),
        (r"/v1/stream", _stream),
        (r"/v1/files/unicode-names.txt", _names_file),
        (r"/v1/models", _models),
        (r"/v1/chat/completions", _chat),
        (r"/mcp", _tools),
        (r"/v1/slow", _slow),
        (r"/v1/status/\d{3}", _status),
        (r"/echo(/.*)?", _echo),
        (r"/health", _health),
    )
]


def answer(request: Request) -> Response:
    """Return the answer to one request. Never raises."""
    for pattern, handler in ROUTES:
        if pattern.fullmatch(request.path):
            try:
                return handler(request)
            except UnknownFact as missing:
                return reply({"error": str(missing)}, 404)
    return reply({"error": "no such route; / lists them"}, 404)


def head(response: Response, *, close: bool) -> bytes:
    """Return the status line and headers."""
    reason = REASONS.get(response.status, b"Status")
    lines = [b"HTTP/1.1 %d %b" % (response.status, reason)]
    if response.kind:
        lines.append(b"content-type: " + response.kind)
    lines += [name + b": " + value for name, value in response.headers]
    if response.chunks is not None:
        lines.append(b"transfer-encoding: chunked")
    elif response.status not in (204, 304):
        lines.append(b"content-length: %d" % len(response.body))
    if close:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


class UpstreamProtocol(asyncio.Protocol):
    """One connection. Requests are answered strictly in order, one at a time; reading pauses meanwhile."""

    def __init__(self, open_connections: set[UpstreamProtocol], fixed: bytes) -> None:
        self.open_connections = open_connections
        self.fixed = fixed  # the whole answer to GET /v1/quote, ready to write
        self.parser = httptools.HttpRequestParser(self)
        self.waiting: list[Request] = []
        self.worker: asyncio.Task[None] | None = None
        self.closing = False
        self.writable = asyncio.Event()
        self.writable.set()
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.request: Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the connection (asyncio)."""
        self.transport = cast(asyncio.Transport, transport)
        self.open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop whatever is being sent (asyncio)."""
        self.open_connections.discard(self)
        self.writable.set()
        if self.worker is not None:
            self.worker.cancel()

    def pause_writing(self) -> None:
        """Hold the stream: the reader is slow (asyncio)."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Continue the stream (asyncio)."""
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        """Parse what came (asyncio)."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.transport.close()
        except httptools.HttpParserError:
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin a request (httptools)."""
        self.target = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """Collect the target, which may come in pieces (httptools)."""
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect one header (httptools)."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Build the request; its body follows (httptools)."""
        method = self.parser.get_method().decode("latin-1")
        target = self.target.decode("latin-1")
        self.request = Request(method, target, self.headers, self.parser.should_keep_alive())
        if self.request.header(b"expect").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Digest a piece of the body (httptools)."""
        if self.request is not None:
            self.request.size += len(body)
            self.request.digest.update(body)
            if self.request.size <= MAX_CONTENT:
                self.request.content += body

    def on_message_complete(self) -> None:
        """Answer, or queue behind the request that is being answered (httptools)."""
        request, self.request = self.request, None
        if request is None:
            return
        if self.worker is not None:
            self.waiting.append(request)
        elif request.method == "GET" and request.path == "/v1/quote" and request.keep_alive and not self.closing:
            self.transport.write(self.fixed)
        else:
            self._answer(request)

    def _answer(self, request: Request) -> None:
        if request.path == "/v1/quote":
            response = Response(body=self.fixed.partition(b"\r\n\r\n")[2])
        else:
            response = answer(request)
        close = self.closing or not request.keep_alive
        if response.chunks is None and not response.delay:
            body = b"" if request.method == "HEAD" else response.body
            self.transport.writelines((head(response, close=close), body))
            self._after(close)
            return
        self.transport.pause_reading()
        self.worker = asyncio.get_running_loop().create_task(self._send(request, response, close))

    async def _send(self, request: Request, response: Response, close: bool) -> None:
        await asyncio.sleep(response.delay)
        self.transport.write(head(response, close=close))
        if request.method != "HEAD":
            if response.chunks is None:
                self.transport.write(response.body)
            else:
                async for chunk in response.chunks:
                    self.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    await self.writable.wait()
                self.transport.write(b"0\r\n\r\n")
        self.worker = None
        self._after(close or self.closing)
        if not self.transport.is_closing():
            self.transport.resume_reading()
            while self.waiting and self.worker is None:
                self._answer(self.waiting.pop(0))

    def _after(self, close: bool) -> None:
        if close:
            self.transport.close()

    def drain(self) -> None:
        """Close when idle, or after the answer under way."""
        self.closing = True
        if self.worker is None:
            self.transport.close()


async def serve(host: str, port: int, *, drain: float = 10.0) -> None:
    """Serve until SIGTERM or SIGINT, then let answers under way finish."""
    loop = asyncio.get_running_loop()
    body = one_kilobyte()
    fixed = head(Response(body=body), close=False) + body
    connections: set[UpstreamProtocol] = set()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: UpstreamProtocol(connections, fixed), host, port, backlog=2048)
    await stop.wait()
    server.close()
    for connection in list(connections):
        connection.drain()
    deadline = loop.time() + drain
    while connections and loop.time() < deadline:  # noqa: ASYNC110 - at the end of a life only
        await asyncio.sleep(0.02)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="The demo publishers' upstream server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    uvloop.run(serve(chosen.host, chosen.port))


if __name__ == "__main__":
    main()
