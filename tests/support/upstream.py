"""A publisher's server for tests: records the raw head and body of each request and answers as its path asks.

/status/503 answers that status; /slow?ms=.. waits first; /reset closes without an answer; /cut breaks off mid-body
(?pause=..: later); /chunks sends pieces with pauses (?held=1: all but the first when `released` is set); /bytes?n=.. a large body; /hang never answers; /wait does when `released` is set; anything else 200 with a small JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit


@dataclass
class Recorded:
    """One request as it arrived."""

    head: bytes
    body_size: int = 0
    body_digest: str = ""
    body: bytes = b""

    @property
    def request_line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def method(self) -> str:
        return self.request_line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.request_line.split(" ")[1]

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(line.split(":", 1)[0].lower(), line.split(":", 1)[1].strip()) for line in lines if line]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


@dataclass
class RecordingUpstream:
    """The server. `requests` is what has arrived; `url` where it listens."""

    requests: list[Recorded] = field(default_factory=list)
    extra_headers: list[tuple[str, str]] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def calls(self) -> int:
        return len(self.requests)

    def forget(self) -> None:
        self.requests.clear()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, limit=1 << 20, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:  # Server.close_clients is newer than the oldest Python we support
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        request = Recorded(head[:-4])
        self.requests.append(request)
        await self._read_body(request, reader)
        return await self._answer(request, writer)

    async def _read_body(self, request: Recorded, reader: asyncio.StreamReader) -> None:
        digest = hashlib.sha256()

        def took(piece: bytes) -> None:
            digest.update(piece)
            request.body_size += len(piece)
            if request.body_size < 1 << 20:
                request.body += piece

        if request.all("transfer-encoding"):
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                took(await reader.readexactly(size))
                await reader.readexactly(2)
            await reader.readuntil(b"\r\n")
        else:
            left = int((request.all("content-length") or ["0"])[0])
            while left:
                piece = await reader.read(min(left, 65_536))
                if not piece:
                    raise asyncio.IncompleteReadError(b"", left)
                left -= len(piece)
                took(piece)
        request.body_digest = digest.hexdigest()

    async def _answer(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        url = urlsplit(request.target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        word = url.path.rstrip("/").rsplit("/", 1)[-1]
        if "ms" in query:
            await asyncio.sleep(int(query["ms"]) / 1000)
        if word == "reset":
            writer.transport.abort()
            return False
        if word == "hang":
            await asyncio.sleep(3600)
        if word == "wait":
            await self.released.wait()
        if word == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
            await writer.drain()
            await asyncio.sleep(int(query.get("pause", "50")) / 1000)
            writer.transport.abort()
            return False
        if word == "chunks" and request.method != "HEAD":
            await self._chunks(writer, int(query.get("n", "3")), int(query.get("pause", "50")) / 1000, "held" in query)
            return True
        status = int(word) if "/status/" in url.path else 200
        body = b"" if request.method == "HEAD" else json.dumps({"target": request.target, "ok": True}).encode()
        if "n" in query and request.method != "HEAD":
            body = b"x" * int(query["n"])
        await self._plain(request, writer, status, body)
        return True

    async def _plain(self, request: Recorded, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        lines = [f"HTTP/1.1 {status} Whatever"]
        if status not in (204, 304):
            lines += [
                f"Content-Length: {len(body) if request.method != 'HEAD' else 30}",
                "Content-Type: application/json",
            ]
        lines += [f"{name}: {value}" for name, value in self.extra_headers]
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        if status not in (204, 304):
            writer.write(body)
        await writer.drain()

    async def _chunks(self, writer: asyncio.StreamWriter, number: int, pause: float, held: bool) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for index in range(number):
            piece = f"data: {index}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            if held:
                await self.released.wait()
            await asyncio.sleep(pause)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
