"""A publisher's WebSocket server for tests, on the `websockets` library: it does what the path of its handshake asks.

/echo repeats messages; /hello/<text> sends one message first; /close/<code>/<reason> closes at once; /drop cuts the
connection; /big/<bytes> sends one message of that size; /flood sends until it is stopped; /deaf never reads;
/deny/<status> refuses the handshake; /hang leaves it unanswered; /wrong answers 101 with a false key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Subprotocol


@dataclass
class Connected:
    """One connection as its server sees it."""

    request: Request
    received: list[str | bytes] = field(default_factory=list)
    sent: int = 0
    code: int | None = None
    reason: str | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class SocketUpstream:
    """The server. `connections` is what has come; `handshakes` counts every try."""

    connections: list[Connected] = field(default_factory=list)
    handshakes: int = 0
    port: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Connected:
        return self.connections[-1]

    def forget(self) -> None:
        self.connections.clear()
        self.handshakes = 0

    async def start(self) -> None:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._greet,
            process_response=self._answer,
            subprotocols=[Subprotocol("chat"), Subprotocol("superchat")],
            select_subprotocol=_chosen,
            max_size=None,
            ping_interval=None,
            close_timeout=1,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self.stopping.set()
        self._server.close()
        await self._server.wait_closed()

    async def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes += 1
        word, _, rest = request.path.partition("?")[0].lstrip("/").partition("/")
        if word == "hang":
            await self.stopping.wait()
        if word == "reset":
            connection.transport.abort()
        if word == "deny":
            return connection.respond(HTTPStatus(int(rest)), "secret body\n")
        return None

    def _answer(self, _connection: ServerConnection, request: Request, response: Response) -> Response:
        if response.status_code == 101:
            response.headers["X-Upstream"] = "here"
            response.headers["X-Cost"] = "999"
        if request.path.startswith("/wrong"):
            del response.headers["Sec-WebSocket-Accept"]
            response.headers["Sec-WebSocket-Accept"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAA="
        if request.path.startswith("/extension"):
            response.headers["Sec-WebSocket-Extensions"] = "permessage-deflate"
        return response

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        connected = Connected(connection.request)
        self.connections.append(connected)
        word, _, rest = connection.request.path.partition("?")[0].lstrip("/").partition("/")
        try:
            if word == "deaf":
                connection.transport.pause_reading()
                await self.stopping.wait()
                connection.transport.abort()
            await DOES.get(word, _echo)(connection, connected, rest)
            await connection.wait_closed()
        except ConnectionClosed:
            pass
        finally:
            connected.code, connected.reason = connection.close_code, connection.close_reason
            connected.ended.set()


def _chosen(_connection: ServerConnection, offered: list[Subprotocol]) -> Subprotocol | None:
    if "unheard-of" in offered:
        return Subprotocol("never-offered")
    return next((name for name in offered if name in ("chat", "superchat")), None)


async def _echo(connection: ServerConnection, connected: Connected, _rest: str) -> None:
    async for message in connection:
        connected.received.append(message)
        await connection.send(message)


async def _hello(connection: ServerConnection, connected: Connected, rest: str) -> None:
    await connection.send(rest)
    await _echo(connection, connected, rest)


async def _close(connection: ServerConnection, _connected: Connected, rest: str) -> None:
    code, _, reason = rest.partition("/")
    await connection.close(int(code), unquote(reason))


async def _close_without_code(connection: ServerConnection, _connected: Connected, _rest: str) -> None:
    connection.transport.write(b"\x88\x00")


async def _drop(connection: ServerConnection, _connected: Connected, _rest: str) -> None:
    connection.transport.abort()


async def _nonsense(connection: ServerConnection, _connected: Connected, _rest: str) -> None:
    connection.transport.write(b"\xf3\x05hello")


async def _big(connection: ServerConnection, _connected: Connected, rest: str) -> None:
    await connection.send(b"x" * int(rest))


async def _fragments(connection: ServerConnection, _connected: Connected, _rest: str) -> None:
    await connection.send(["frag", "men", "", "té"])
    await connection.send([b"\x00", b"\xff"])


async def _crumbs(connection: ServerConnection, connected: Connected, rest: str) -> None:
    """Send a text message in fragments that never ends; `sent` counts what the kernel took."""
    connection.transport.write(Frame(Opcode.TEXT, b"", fin=False).serialize(mask=False))
    while connected.sent <= 64 << 20:
        connection.transport.write(Frame(Opcode.CONT, b"x" * int(rest), fin=False).serialize(mask=False))
        await asyncio.sleep(0)
        while connection.transport.get_write_buffer_size():
            await asyncio.sleep(0.001)
        if connection.transport.is_closing() or connection.state is not State.OPEN:
            return
        connected.sent += int(rest)


async def _flood(connection: ServerConnection, connected: Connected, _rest: str) -> None:
    while True:
        await connection.send(b"x" * 65_536)
        connected.sent += 65_536


async def _ping(connection: ServerConnection, _connected: Connected, _rest: str) -> None:
    await (await connection.ping())
    await connection.send("pong came")


DOES: dict[str, Callable] = {
    "hello": _hello, "close": _close, "close-without-code": _close_without_code, "drop": _drop, "nonsense": _nonsense,
    "big": _big, "fragments": _fragments, "crumbs": _crumbs, "flood": _flood, "ping": _ping,
}  # fmt: skip
