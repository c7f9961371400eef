"""A tool call: the same for plain HTTP and for MCP clients.

It costs nothing when it brings nothing: no answer, an error of JSON-RPC, a result that says `isError`, or one that asks
for more before there is any. What comes before the result, progress for instance, goes on to an MCP client as it comes;
the result itself only when its payment is settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import monotonic

from gateway.billing.prepaid_credits import Ending
from gateway.errors import SessionLost
from gateway.proxy.deliver import kept_from_caches, send_at_once
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.failures import unanswered
from gateway.proxy.kinds.kind import ServerCall
from gateway.proxy.mcp.line import ToolOrder
from gateway.proxy.mcp.listing import endpoints_of
from gateway.proxy.mcp.results import refused, why_nothing
from gateway.proxy.mcp.upstream import McpServer
from gateway.proxy.parts import Parts
from gateway.proxy.problems import limit_fields
from gateway.proxy.quote import quote
from gateway.upstreams.http.errors import BrokenBody, UpstreamError
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.mcp.answers import JSON, kind_of, messages
from gateway.upstreams.mcp.messages import BadAnswer, Message, fields_of, text

LONGEST_NAME = 128
"""Of a tool whose use is counted by its name."""


class Cancelled(Exception):
    """The caller has closed the stream of a call."""


class ToolInvocation(ServerCall):
    """A tool call that was read from its request."""

    __slots__ = ("_order",)

    def __init__(self, exchange: Exchange, parts: Parts, order: ToolOrder) -> None:
        super().__init__(exchange, parts)
        self._order = order
        exchange.path, exchange.read_body = order.call.path, order.call.compared
        if len(order.call.name) <= LONGEST_NAME and order.call.name.isprintable():
            exchange.named = order.call.name

    def price(self) -> None:
        """Set the quote, by the tool's name."""
        quote(self.exchange, endpoints_of(self.exchange.sold, self._order.call.name))

    async def sell(self) -> Ending:
        """Run the tool and deliver its result."""
        try:
            result = await self._run()
        except Cancelled:
            return "client_gone"
        return await self._deliver(result)

    async def _run(self) -> Message:
        """Return the call's result. Raises Problem when there is none; the money is given back then."""
        exchange, to, services = self.exchange, self.to, self.parts.services
        try:
            answer_status, response = await perform("forward", self._response())
        except UpstreamError as error:
            raise await unanswered(exchange, to, error, services) from error
        exchange.mark("upstream")
        if "error" in response:
            await exchange.purse.end(exchange, "upstream_error")
            raise refused(response, answer_status)
        exchange.status = 200
        return fields_of(response["result"])

    async def _response(self) -> tuple[int, Message]:
        """Send the call, and return the status of the answer and its response. Raises as `_read_on`."""
        exchange, to, order = self.exchange, self.to, self._order
        server = McpServer(exchange, self.parts.services.upstreams, to)
        async with order.line.ask(server, order.call) as (answer, number):
            exchange.sent, exchange.status = True, answer.status
            if to.breaker.watching:
                to.breaker.succeeded(monotonic())
            return answer.status, await self._read_on(answer, number)

    async def _read_on(self, answer: UpstreamResponse, number: object) -> Message:
        """Read the answer up to the response. Raises SessionLost, UpstreamError, or Cancelled by who has left."""
        exchange, line = self.exchange, self._order.line
        if answer.status == 404 and line.in_session:
            await exchange.purse.end(exchange, "upstream_error")
            raise SessionLost("The publisher's server has ended this session: initialize a new one; not charged.")
        if answer.status >= 400 and kind_of(answer) != JSON:
            raise BadAnswer(f"the server answered {answer.status}", sent=True)
        reading = self._read(answer, number)
        if not line.cancels_by_leaving or exchange.keyed is not None:
            return await reading
        # A keyed call goes on without its caller, who can ask for the answer again.
        return await _unless_left(exchange, reading)

    async def _read(self, answer: UpstreamResponse, number: object) -> Message:
        reply = self._order.reply
        async for message in messages(answer, self.parts.services.settings.mcp.max_answer):
            if "method" in message:
                if reply is not None:
                    await reply.relay(message)
            elif message.get("id") == number:
                if "error" in message or isinstance(message.get("result"), dict):
                    return message
                raise BadAnswer("the response has neither a result nor an error", sent=True)
            elif message.get("id") is None and "error" in message:
                return message
        raise BrokenBody("the answer ended without a response", sent=True)

    async def _deliver(self, result: Message) -> Ending:
        """Answer the call, once its money has been given back or kept with the answer."""
        exchange = self.exchange
        purse = exchange.purse
        body, headers = _answer(exchange, result)
        brings_nothing = why_nothing(result)
        refunded = brings_nothing is not None and await purse.end(exchange, brings_nothing)
        if purse.without_key:
            headers += kept_from_caches(headers)
        if not purse.settles_in_keeping:
            headers += purse.fields(exchange, refunded=refunded)
        if exchange.keyed is not None:
            await purse.keep(exchange, headers, body if len(body) <= self.parts.services.answers.keep else None)
        if purse.settles_in_keeping:
            headers += purse.fields(exchange, refunded=refunded)
        return await send_at_once(exchange, headers, body)


def _answer(exchange: Exchange, result: Message) -> tuple[bytes, HeaderPairs]:
    """Return a result's text and the fields that it goes with."""
    body = text(result)
    exchange.answered = 200
    exchange.gave_out(body)
    headers: HeaderPairs = [
        (b"content-type", b"application/json"),
        (b"x-request-id", str(exchange.id).encode()),
        *limit_fields(exchange),
    ]
    return body, [*headers, (b"content-length", str(len(body)).encode())]


async def _unless_left(exchange: Exchange, reading: Awaitable[Message]) -> Message:
    """Return what is read, unless the caller leaves before. Raises Cancelled: then it pays for what it has begun."""
    task, gone = asyncio.ensure_future(reading), asyncio.ensure_future(_left(exchange))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        exchange.head_sent = True
        raise Cancelled
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _left(exchange: Exchange) -> None:
    """Return when the caller has left: its message has been read, so nothing else can come."""
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
