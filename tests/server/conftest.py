"""The server in this process, on a socket of its own, below a small ASGI application: no gateway, no database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest_asyncio

from gateway.server.asgi import Asgi
from gateway.server.connection import Service
from gateway.server.seam import Limits, Shed
from gateway.server.websocket import Sockets
from gateway.server.worker import bind
from tests.hostile.wire import Wire

HEAD, TARGET = 20_000, 4_000
MAX_MESSAGE = 100_000
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
Handle = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


@dataclass
class Stage:
    """A running server, what its application has seen, and what it does by path."""

    port: int = 0
    service: Service | None = None
    asgi: Asgi | None = None
    scopes: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    handlers: dict[str, Handle] = field(default_factory=dict)
    wires: list[Wire] = field(default_factory=list)
    shed: Shed = field(default=lambda _head: None)

    async def open(self) -> Wire:
        self.wires.append(await Wire.open(self.port))
        return self.wires[-1]

    @contextlib.asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        wire = await self.open()
        try:
            yield wire
        finally:
            wire.close()

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await self.handlers.get(scope["path"], self.echo)(scope, receive, send)

    async def echo(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer with the request's body."""
        body = await whole(receive)
        if body is None:
            return
        self.bodies.append(body)
        await answer(send, body)


async def whole(receive: Any) -> bytes | None:
    """Return a request's body, None when it does not end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return body


async def answer(send: Any, body: bytes, status: int = 200, *fields: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", b"text/plain"), *fields]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def on_stage() -> AsyncIterator[Stage]:
    """Run a server in the running loop, whose time passes for it when a test says so."""
    made = Stage()
    loop = asyncio.get_running_loop()
    made.asgi = Asgi(made.application, Sockets(MAX_MESSAGE, ping_interval=20.0).open, lambda head: made.shed(head))
    made.service = Service(Limits(HEAD, TARGET, idle=10.0), made.asgi.open, loop.time)
    with bind("127.0.0.1", 0) as listener:
        server = await loop.create_server(made.service.connect, sock=listener)
        made.port = listener.getsockname()[1]
        try:
            yield made
        finally:
            for wire in made.wires:
                wire.close()
            server.close()
            made.service.abort()
            for task in list(made.asgi.tasks):
                task.cancel()
            await asyncio.gather(*made.asgi.tasks, return_exceptions=True)


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[Stage]:
    async with on_stage() as made:
        yield made
