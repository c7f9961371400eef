"""A publisher's MCP server: the official SDK's, served over HTTP in this process, so that tests see what reached it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from tests.support.gateway import free_port

CREDENTIAL = "Bearer the-publishers-own"


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

        @server.resource("weather://stations")
        def stations() -> str:
            """Every station."""
            return "Berlin, Lisbon"

        @server.prompt()
        def pack(city: str) -> str:
            """What to pack."""
            return f"What should I pack for {city}?"

        return server
