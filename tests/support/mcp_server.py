"""Publishers' MCP servers in this process, so that tests see what reached them: the official SDK's, and one that does
what a test tells it to, which no SDK would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import SamplingMessage, TextContent
from pydantic import BaseModel

from tests.support.gateway import free_port

CREDENTIAL = "Bearer the-publishers-own"
ENDPOINTS = [
    {"method": "POST", "path": "/free_tip", "price": "0"},
    {"method": "POST", "path": "/counted", "price": "0.05"},
    {"method": "POST", "path": "/hidden", "is_protected": True, "protection_reason": "Not for sale."},
]


def selling(server: PublishersServer | ScriptedMcpServer, **document: Any) -> dict[str, Any]:
    """What a publisher of a server is stored with."""
    return {
        "integration_type": "mcp", "api_url": None, "mcp_endpoint": server.url, "endpoints": ENDPOINTS,
        "upstream_headers": {"Authorization": CREDENTIAL}, **document,
    }  # fmt: skip


class Place(BaseModel):
    """What `asking` asks for."""

    city: str


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class PublishersServer:
    """`runs` counts what tools did; `requests` has method and fields of everything that came; `gate` holds `slow`."""

    runs: Counter[str] = field(default_factory=Counter[str])
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = field(default_factory=free_port)
    _server: uvicorn.Server | None = None
    _task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def forget(self) -> None:
        self.runs.clear()
        self.requests.clear()
        self.gate.clear()
        self.begun.clear()

    async def start(self, **options: Any) -> None:
        """Serve. Options are the SDK's: json_response, stateless_http."""
        app = self._tools().streamable_http_app(**options)

        async def recorded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                fields = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
                self.requests.append((scope["method"], fields))
            await app(scope, receive, send)

        config = uvicorn.Config(recorded, port=self.port, log_level="critical", lifespan="on", ws="none")
        self._server = _Quiet(config)
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End, with every session."""
        assert self._server is not None
        assert self._task is not None
        self._server.should_exit = self._server.force_exit = True
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        await self._task
        self.gate.set()

    async def restart(self) -> None:
        """Forget every session, as a server does that was deployed anew."""
        await self.stop()
        self.gate.clear()
        await self.start()

    def _tools(self) -> MCPServer:
        server = MCPServer("weather", version="1.0")

        @server.tool()
        async def forecast(city: str, days: int = 1) -> str:
            """The weather of the next days."""
            self.runs["forecast"] += 1
            return f"{city}: sunny for {days} days"

        @server.tool()
        async def free_tip() -> str:
            """A tip."""
            self.runs["free_tip"] += 1
            return "take an umbrella"

        @server.tool()
        async def failing() -> str:
            """Fails."""
            self.runs["failing"] += 1
            raise ToolError("the station is down")

        @server.tool()
        async def hidden() -> str:
            """Not for sale."""
            self.runs["hidden"] += 1
            return "secret"

        @server.tool()
        async def counted(steps: int, ctx: Context[Any, Any]) -> str:
            """Reports its progress."""
            self.runs["counted"] += 1
            for step in range(steps):
                await ctx.report_progress(step + 1, steps, f"step {step + 1}")
            return "counted"

        @server.tool()
        async def slow(ctx: Context[Any, Any]) -> str:
            """Waits."""
            self.runs["slow"] += 1
            await ctx.report_progress(1, 2)
            self.begun.set()
            await self.gate.wait()
            self.runs["slow ended"] += 1
            return "done"

        self._add_more(server)
        return server

    def _add_more(self, server: MCPServer) -> None:
        @server.tool()
        async def asking(ctx: Context[Any, Any]) -> str:
            """Asks its caller, and its caller's model."""
            self.runs["asking"] += 1
            place = await ctx.elicit("Where?", Place)
            question = SamplingMessage(role="user", content=TextContent(type="text", text=f"{place.data.city}?"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # clients still have it
                answer = await ctx.session.create_message([question], max_tokens=10, related_request_id=ctx.request_id)
            return f"{place.action}, {answer.content.text}"

        @server.resource("weather://stations")
        def stations() -> str:
            """Every station."""
            return "Berlin, Lisbon"

        @server.prompt()
        def pack(city: str) -> str:
            """What to pack."""
            return f"What should I pack for {city}?"


class Conversation:
    """One message that came to a `ScriptedMcpServer`, and the connection on which it is answered."""

    def __init__(self, server: ScriptedMcpServer, head: bytes, message: Any, writer: asyncio.StreamWriter) -> None:
        self.server, self.head, self.message, self.writer = server, head, message, writer

    @property
    def id(self) -> Any:
        return self.message.get("id") if isinstance(self.message, dict) else None

    def response(self, result: Any = None, error: Any = None, number: Any = ...) -> dict[str, Any]:
        """A response to it, or to another request."""
        said = {"error": error} if error is not None else {"result": {} if result is None else result}
        return {"jsonrpc": "2.0", "id": self.id if number is ... else number, **said}

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def status(self, status: int, body: bytes = b"", kind: str = "text/plain", *fields: str) -> None:
        lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *fields]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def json(self, message: Any, *fields: str, status: int = 200) -> None:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self.status(status, body, "application/json", *fields)

    async def begin_stream(self) -> None:
        await self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def event(self, message: Any) -> None:
        data = message if isinstance(message, bytes) else b"data: " + json.dumps(message).encode() + b"\n\n"
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end_stream(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def progress(self, step: int = 1) -> None:
        """An event with the progress of a call that asked for it."""
        token = self.message["params"].get("_meta", {}).get("progressToken")
        params = {"progressToken": token, "progress": step}
        await self.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


SERVER = {"name": "odd", "version": "1"}
Play = Callable[[Conversation], Awaitable[None]]


@dataclass
class ScriptedMcpServer:
    """An MCP server that does exactly what it is told to, by the name of a tool or by the method of a message.

    `messages` is what arrived. Untold, it opens sessions, lists `tools`, takes notifications and knows nothing else.
    """

    plays: dict[str, Play] = field(default_factory=dict)
    tools: list[Any] = field(default_factory=list)
    version: Any = "2025-06-18"
    messages: list[Any] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """A tool was called."""

    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """For plays that wait for their test."""

    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def called(self, tool: str) -> int:
        """How often a tool was called."""
        return sum(one.get("method") == "tools/call" and one["params"].get("name") == tool for one in self.messages)

    def forget(self) -> None:
        """Do nothing but the usual again."""
        self.messages.clear()
        self.plays.clear()
        self.begun.clear()
        self.go_on.clear()
        self.tools, self.version = [], "2025-06-18"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                await self._answer(await self._received(reader, writer))
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, came: Conversation) -> None:
        message = came.message
        if message is None:  # GET and DELETE
            await came.status(200 if came.head.startswith(b"DELETE") else 405)
            return
        self.messages.append(message)
        method = message.get("method")
        name = message["params"].get("name") if method == "tools/call" else method
        if method == "tools/call":
            self.begun.set()
        await self.plays.get(name, self._usual)(came)

    async def _usual(self, came: Conversation) -> None:
        method = came.message.get("method")
        if "id" not in came.message or method is None:
            await came.status(202)
        elif method == "initialize":
            result = {"protocolVersion": self.version, "capabilities": {"tools": {}}, "serverInfo": SERVER}
            await came.json(came.response(result), "Mcp-Session-Id: odd")
        elif method == "tools/list":
            await came.json(came.response({"tools": self.tools}))
        else:
            await came.json(came.response(error={"code": -32601, "message": "there is no such thing"}))

    async def _received(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Conversation:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        body = await reader.readexactly(int(length.partition(b":")[2]))
        return Conversation(self, head, json.loads(body) if body else None, writer)
