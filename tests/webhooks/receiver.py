"""A webhook's receiver that verifies with the published library and answers what a test tells it to, and a tarpit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Message:
    """One request as it came."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def opened(self, secret: str) -> dict[str, Any]:
        """Verify by the library and return the event; raises what the library raises."""
        found: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return found


@dataclass
class Receiver:
    """`answers` are given one by one, then 204; `messages` is what came."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list[Answer])
    messages: list[Message] = field(default_factory=list[Message])
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    def fresh(self, *answers: int) -> None:
        """Forget what came, and answer these statuses first."""
        self.messages.clear()
        self.answers[:] = [(status, {}, b"") for status in answers]

    async def waits_for(self, number: int) -> list[Message]:
        """Return the messages when there are so many."""
        async with asyncio.timeout(60):
            while len(self.messages) < number:
                await asyncio.sleep(0.02)
        return list(self.messages)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.messages.append(Message(first.split(" ")[1], headers, body))
            status, fields, content = self.answers.pop(0) if self.answers else (204, {}, b"")
            fields = {**fields, "Content-Length": str(len(content)), "Connection": "close"}
            text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            writer.write(f"HTTP/1.1 {status} X\r\n{text}\r\n".encode() + content)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@dataclass
class Tarpit:
    """Takes everything and never answers: silently, or with a byte now and then. Released, it answers `status`."""

    begins: bytes = b""
    drips: bytes = b""
    status: int = 204
    url: str = ""
    open: int = 0
    most: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"

    async def stop(self) -> None:
        self.released.set()
        if self._server is not None:
            self._server.close()

    async def holds(self, number: int) -> None:
        """Wait until so many requests are held at once."""
        async with asyncio.timeout(60):
            while self.open < number:
                await asyncio.sleep(0.02)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        await reader.read(65_536)  # an answer before its request would be refused
        gone = asyncio.create_task(self._read_all(reader))
        free = asyncio.create_task(self.released.wait())
        try:
            writer.write(self.begins)
            while not gone.done() and not free.done():
                await asyncio.wait((gone, free), timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
                writer.write(self.drips)
                await writer.drain()
            if free.done():
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % self.status)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            self.open -= 1
            gone.cancel()
            free.cancel()
            writer.close()

    async def _read_all(self, reader: asyncio.StreamReader) -> None:
        """Read until the other side has gone."""
        try:
            while await reader.read(65_536):
                pass
        except ConnectionError:
            return
