"""How a tool call reaches its publisher's server, and what is to be sent."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from gateway.proxy.mcp.reply import JsonRpcReply
from gateway.proxy.mcp.request import ToolCall
from gateway.proxy.mcp.upstream import McpServer
from gateway.upstreams.http.response import UpstreamResponse

Asked: TypeAlias = AbstractAsyncContextManager[tuple[UpstreamResponse, str | int]]
"""A request that was sent: the answer, not read yet, and the request's id."""


class Line(Protocol):
    """How a call reaches its server: in a session of its caller's, or in one of ours."""

    @property
    def in_session(self) -> bool:
        """Say whether the call names a session, which the server may have ended."""
        ...

    @property
    def cancels_by_leaving(self) -> bool:
        """Say whether a caller who closes a stream that has begun means that the call shall end."""
        ...

    def ask(self, server: McpServer, call: ToolCall) -> Asked:
        """Send the call. Raises UpstreamError."""
        ...


@dataclass(frozen=True, slots=True)
class ToolOrder:
    """A tool call that was read. `reply` is where messages before the result go, for clients that speak MCP."""

    call: ToolCall
    line: Line
    reply: JsonRpcReply | None = None
