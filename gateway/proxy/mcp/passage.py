"""What is free at the MCP endpoint: it goes to the publisher's server in its caller's own session, and back as it is.

Three things change on the way: session ids (session_ids.py), the tools' list, which gets its prices, and what is said
to the gateway alone, which goes no further.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic

from gateway.billing.prepaid_credits import Ending
from gateway.errors import InvalidRequest, SessionLost
from gateway.proxy.deliver import deliver
from gateway.proxy.destination import Destination, Destinations
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.failures import admit, unanswered
from gateway.proxy.mcp.listing import priced_tools
from gateway.proxy.mcp.reply import JsonRpcReply
from gateway.proxy.mcp.request import SESSION, VERSION, McpFields, ToolCall, check_agreement, without_ours
from gateway.proxy.mcp.results import refused
from gateway.proxy.mcp.session_ids import opened, sealed
from gateway.proxy.mcp.upstream import McpServer
from gateway.proxy.problems import send_whole
from gateway.services import Services
from gateway.upstreams.http.errors import UpstreamError
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.mcp.answers import response_to
from gateway.upstreams.mcp.messages import Message, fields_of, text


@dataclass(frozen=True, slots=True)
class ClientLine:
    """The way of a call in its caller's own session."""

    message: Message
    fields: McpFields
    session: bytes | None

    @property
    def in_session(self) -> bool:
        """Say whether the call names a session."""
        return self.session is not None

    @property
    def cancels_by_leaving(self) -> bool:
        """Say whether the caller's version of MCP has it so."""
        return self.fields.stateless

    @asynccontextmanager
    async def ask(self, server: McpServer, call: ToolCall) -> AsyncGenerator[tuple[UpstreamResponse, str | int]]:
        """Send the call under the caller's own id, so that it can be cancelled by it."""
        message = {"jsonrpc": "2.0", "id": call.id, "method": "tools/call", "params": call.params}
        answer = await server.send(b"POST", text(message), self.own_fields)
        try:
            yield answer, call.id
        finally:
            await answer.aclose()

    @property
    def own_fields(self) -> HeaderPairs:
        """Return the fields that are MCP's, as the server gets them."""
        fields = list(self.fields.others)
        if self.session is not None:
            fields.append((SESSION, self.session))
        if self.fields.version is not None:
            fields.append((VERSION, self.fields.version))
        return fields


@dataclass(frozen=True, slots=True)
class Passage:
    """Passes messages on. One per worker."""

    services: Services
    destinations: Destinations

    def line(self, exchange: Exchange, message: Message, fields: McpFields) -> ClientLine:
        """Return the way of a message. Raises SessionLost for a session that is not its caller's, or InvalidRequest."""
        check_agreement(fields, message)
        opening = message.get("method") in ("initialize", "server/discover")
        session = None if fields.session is None or opening else opened(self.services.box, exchange, fields.session)
        return ClientLine(message, fields, session)

    async def send(self, exchange: Exchange, line: ClientLine, reply: JsonRpcReply) -> Ending | None:
        """Pass a message on and answer it. Raises Problem."""
        message = line.message
        if isinstance(message.get("params"), dict):
            message = {**message, "params": without_ours(message["params"])}
        body = text(message)
        to = await self._destination(exchange)
        try:
            answer = await self._asked(exchange, to, b"POST", body, line.own_fields)
            if message.get("method") == "tools/list" and "id" in message:
                return await self._list(exchange, to, line, answer)
            reply.step_aside()
            return await self._deliver(exchange, answer)
        finally:
            to.breaker.abandon(exchange)

    async def listen(self, exchange: Exchange, fields: McpFields) -> Ending | None:
        """Pass on what the server says of itself. A stream that breaks off ends: its client opens it again."""
        to = await self._destination(exchange)
        try:
            answer = await self._asked(exchange, to, b"GET", None, self._in_session(exchange, fields))
            ending = await self._deliver(exchange, answer)
        finally:
            to.breaker.abandon(exchange)
        if ending not in ("broken_off", "total_timeout"):
            return ending
        with suppress(OSError):
            await exchange.send({"type": "http.response.body", "body": b""})
        return "delivered"

    async def end(self, exchange: Exchange, fields: McpFields) -> Ending | None:
        """End a session."""
        to = await self._destination(exchange)
        try:
            answer = await self._asked(exchange, to, b"DELETE", None, self._in_session(exchange, fields))
            return await self._deliver(exchange, answer)
        finally:
            to.breaker.abandon(exchange)

    def _in_session(self, exchange: Exchange, fields: McpFields) -> HeaderPairs:
        if fields.session is None:
            raise InvalidRequest("This needs the Mcp-Session-Id that initialize gave.")
        return ClientLine({}, fields, opened(self.services.box, exchange, fields.session)).own_fields

    async def _destination(self, exchange: Exchange) -> Destination:
        to = self.destinations.find(exchange.sold)
        await admit(exchange, to, self.services)
        return to

    async def _asked(
        self, exchange: Exchange, to: Destination, method: bytes, body: bytes | None, fields: HeaderPairs
    ) -> UpstreamResponse:
        """Send, and return the answer with its session id as its caller gets it. Raises Problem."""
        try:
            answer = await McpServer(exchange, self.services.upstreams, to).send(method, body, fields)
        except UpstreamError as error:
            raise await unanswered(exchange, to, error, self.services) from error
        if to.breaker.watching:
            to.breaker.succeeded(monotonic())
        exchange.mark("upstream")
        exchange.sent, exchange.status = True, answer.status
        answer.headers = [
            (name, sealed(self.services.box, exchange, value) if name.lower() == SESSION else value)
            for name, value in answer.headers
        ]
        return answer

    async def _list(
        self, exchange: Exchange, to: Destination, line: ClientLine, answer: UpstreamResponse
    ) -> Ending | None:
        """Answer tools/list with what can be bought, and for how much."""
        if answer.status == 404 and line.in_session:
            await answer.aclose()
            raise SessionLost("The publisher's server has ended this session: initialize a new one.")
        try:
            response = await response_to(answer, line.message["id"], self.services.settings.mcp.max_answer)
        except UpstreamError as error:
            raise await unanswered(exchange, to, error, self.services) from error
        finally:
            await answer.aclose()
        if "result" not in response:
            raise refused(response, answer.status)
        result = fields_of(response["result"])
        body = text({**result, "tools": priced_tools(exchange.sold, result.get("tools"))})
        await send_whole(exchange, 200, [(b"x-request-id", str(exchange.id).encode())], body)
        return "delivered"

    async def _deliver(self, exchange: Exchange, answer: UpstreamResponse) -> Ending:
        settings = self.services.settings
        try:
            return await deliver(exchange, answer, refunded=False, limit=0, patience=settings.proxy.client_timeout)
        finally:
            await answer.aclose()
