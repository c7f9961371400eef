"""The door of MCP publishers: which operation a request is, and its way to the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from gateway.billing.prepaid_credits import Ending
from gateway.errors import InvalidRequest
from gateway.json_text import json_text
from gateway.proxy.destination import Destinations
from gateway.proxy.exchange import Exchange
from gateway.proxy.failures import admit, unanswered
from gateway.proxy.mcp.line import ToolOrder
from gateway.proxy.mcp.listing import Lists, priced_tools, resource_info, tool_info
from gateway.proxy.mcp.passage import Passage
from gateway.proxy.mcp.reply import JsonRpcReply
from gateway.proxy.mcp.request import (
    CALL,
    ToolCall,
    call_in,
    check_form,
    operation_of,
    read_arguments,
    read_fields,
    read_message,
    take_payment,
)
from gateway.proxy.mcp.upstream import McpServer
from gateway.proxy.problems import limit_fields, send_whole
from gateway.services import Services
from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.mcp.messages import is_id
from gateway.upstreams.mcp.sessions import Key, Sessions


@dataclass(frozen=True, slots=True)
class OwnLine:
    """The way of a call in a session of the gateway's own. One for nobody that is known is used once."""

    sessions: Sessions
    key: Key
    once: bool
    in_session: bool = field(default=False, init=False)  # one that was lost has been replaced
    cancels_by_leaving: bool = field(default=False, init=False)

    @asynccontextmanager
    async def ask(self, server: McpServer, call: ToolCall) -> AsyncGenerator[tuple[UpstreamResponse, str | int]]:
        """Send the call."""
        try:
            async with self.sessions.asked(self.key, server.send, CALL, call.params) as asked:
                yield asked
        finally:
            if self.once:
                await self.sessions.end(self.key, server.send)


@dataclass(frozen=True, slots=True)
class McpSeller:
    """Sells what MCP publishers have. One per worker."""

    services: Services
    destinations: Destinations
    passage: Passage
    sessions: Sessions
    lists: Lists

    @classmethod
    def build(cls, services: Services, destinations: Destinations) -> McpSeller:
        """Make the parts."""
        sessions = Sessions(services.settings.mcp.max_answer)
        passage = Passage(services, destinations)
        return cls(services, destinations, passage, sessions, Lists(sessions))

    async def serve(self, exchange: Exchange) -> ToolOrder | Ending | None:
        """Take what is free to its answer, and return how that ended; or return the tool call that was ordered.

        None: there is nothing left to be settled. Raises Problem or ClientGone.
        """
        operation, most = operation_of(exchange), self.services.settings.mcp.max_message
        match operation:
            case "endpoint":
                return await self._endpoint(exchange, most)
            case "tool":
                call = await read_arguments(exchange, most)
                return ToolOrder(call, self._own_line(exchange))
            case _:
                return await self._list(exchange, operation)

    def _own_line(self, exchange: Exchange) -> OwnLine:
        principal = exchange.principal
        owner = exchange.id if principal is None else principal.account_id
        return OwnLine(self.sessions, (exchange.sold.route, owner), once=principal is None)

    async def _list(self, exchange: Exchange, kind: Literal["tools", "resources"]) -> Ending:
        """Answer with what there is, as the contract shows it. Free."""
        to = self.destinations.find(exchange.sold)
        await admit(exchange, to, self.services)
        server = McpServer(exchange, self.services.upstreams, to)
        try:
            items = await self.lists.get(to.route, server.send, kind)
        except UpstreamError as error:
            raise await unanswered(exchange, to, error, self.services) from error
        finally:
            to.breaker.abandon(exchange)
        if kind == "tools":
            shown = [tool_info(tool) for tool in priced_tools(exchange.sold, items)]
        else:
            shown = [resource_info(resource) for resource in items]
        body = json_text({kind: shown})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", str(exchange.id).encode()),
            (b"x-cost", b"0"),
            *limit_fields(exchange),
        ]
        exchange.status = 200
        await send_whole(exchange, 200, headers, body)
        return "delivered"

    async def _endpoint(self, exchange: Exchange, most: int) -> ToolOrder | Ending | None:
        """Serve an MCP client."""
        if exchange.method != "POST":
            fields = read_fields(exchange)
            go = self.passage.listen if exchange.method == "GET" else self.passage.end
            return await go(exchange, fields)
        reply = JsonRpcReply(exchange, self.services.settings.proxy.client_timeout)
        message = await read_message(exchange, most)
        if is_id(message.get("id")) and "method" in message:
            reply.id = message["id"]
        check_form(message)
        fields = read_fields(exchange)
        reply.stateless = fields.stateless
        line = self.passage.line(exchange, message, fields)
        if message.get("method") != CALL:
            return await self.passage.send(exchange, line, reply)
        call = call_in(message)
        take_payment(exchange, message)
        if not fields.streams:
            raise InvalidRequest("Accept must name application/json and text/event-stream.")
        return ToolOrder(call, line, reply)
