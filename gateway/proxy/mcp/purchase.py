"""A tool call: price, payment, call, what is due, answer. The same for plain HTTP and for MCP clients.

The price is paid before the server hears of the call, and given back when it brings nothing: no answer, an error of
JSON-RPC, a result that says `isError`, or one that asks for more before there is any. What comes before the result,
progress for instance, goes on to an MCP client as it comes; the result itself only when its payment is settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from gateway.billing.prepaid_credits import Ending
from gateway.errors import McpRefused, SessionLost
from gateway.faults import ARMED, act
from gateway.proxy.deliver import cost_headers, kept_from_caches, send_at_once
from gateway.proxy.destination import Destination, Destinations
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.failures import admit, unanswered
from gateway.proxy.idempotency import claim_key, keep_answer, release_key, replay
from gateway.proxy.mcp.listing import endpoints_of
from gateway.proxy.mcp.reply import JsonRpcReply
from gateway.proxy.mcp.request import ToolCall
from gateway.proxy.mcp.upstream import McpServer
from gateway.proxy.onchain import hold
from gateway.proxy.onchain.payment import CallPayment
from gateway.proxy.onchain.presented import presents
from gateway.proxy.onchain.rail import OnchainRail
from gateway.proxy.problems import limit_fields
from gateway.proxy.quote import quote
from gateway.proxy.settle import settle
from gateway.services import Services
from gateway.upstreams.http.errors import BrokenBody, UpstreamError
from gateway.upstreams.http.response import UpstreamResponse
from gateway.upstreams.mcp.answers import JSON, kind_of, messages
from gateway.upstreams.mcp.messages import BadAnswer, Message, fields_of, text

LONGEST_NAME = 128
"""Of a tool whose use is counted by its name."""
Asked = AbstractAsyncContextManager[tuple[UpstreamResponse, str | int]]
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


class Cancelled(Exception):
    """The caller has closed the stream of a call."""


@dataclass(frozen=True, slots=True)
class Purchases:
    """Sells tool calls. `pay` takes the price of an exchange from its caller's balance."""

    services: Services
    destinations: Destinations
    pay: Callable[[Exchange], Awaitable[None]]
    onchain: OnchainRail | None

    async def buy(
        self, exchange: Exchange, call: ToolCall, line: Line, reply: JsonRpcReply | None = None
    ) -> Ending | None:
        """Run one call and answer it; None: it was answered before, and was answered so again. Raises Problem."""
        services = self.services
        exchange.path, exchange.read_body = call.path, call.compared
        if len(call.name) <= LONGEST_NAME and call.name.isprintable():
            exchange.named = call.name
        quote(exchange, endpoints_of(exchange.sold, call.name))
        if self.onchain is not None and presents(exchange) and exchange.quote.amount:
            return await self._buy_onchain(exchange, call, line, reply, self.onchain)
        finished = await claim_key(exchange, services.answers, services.ledger)
        if finished is not None:
            await replay(exchange, finished)
            return None
        if ARMED == "claim.after":
            await act()
        if exchange.keyed is not None:
            exchange.keyed.request_hasher.update(exchange.read_body)
        to = self.destinations.find(exchange.sold)
        await admit(exchange, to, services)
        try:
            if ARMED == "authorize.before":
                await act()
            await self.pay(exchange)
            if ARMED == "authorize.after":
                await act()
            exchange.mark("authorize")
            result = await self._run(exchange, to, call, line, reply)
            return await self._deliver(exchange, result)
        except Cancelled:
            return "client_gone"
        finally:
            to.breaker.abandon(exchange)

    async def _buy_onchain(
        self, exchange: Exchange, call: ToolCall, line: Line, reply: JsonRpcReply | None, rail: OnchainRail
    ) -> Ending | None:
        taken = await rail.claim(exchange)
        if taken is None:
            return None
        to = self.destinations.find(exchange.sold)
        await admit(exchange, to, self.services)
        try:
            payment = await rail.authorize(exchange, taken)
            exchange.mark("authorize")
            result = await self._run(exchange, to, call, line, reply)
            return await self._deliver_onchain(exchange, payment, result)
        finally:
            to.breaker.abandon(exchange)

    async def _run(
        self, exchange: Exchange, to: Destination, call: ToolCall, line: Line, reply: JsonRpcReply | None
    ) -> Message:
        """Return the call's result. Raises Problem when there is none; the money is given back then."""
        try:
            async with line.ask(McpServer(exchange, self.services.upstreams, to), call) as (answer, number):
                exchange.sent, exchange.status = True, answer.status
                if to.breaker.watching:
                    to.breaker.succeeded(monotonic())
                response = await self._response(exchange, answer, number, line, reply)
        except UpstreamError as error:
            raise await unanswered(exchange, to, error, self.services) from error
        exchange.mark("upstream")
        if ARMED == "forward.after":
            await act()
        if "error" in response:
            await settle(exchange, self.services.ledger, "upstream_error")
            raise refused(response, answer.status)
        exchange.status = 200
        return fields_of(response["result"])

    async def _response(
        self, exchange: Exchange, answer: UpstreamResponse, number: object, line: Line, reply: JsonRpcReply | None
    ) -> Message:
        """Read the answer up to the response. Raises SessionLost, UpstreamError, or Cancelled by who has left."""
        if answer.status == 404 and line.in_session:
            await settle(exchange, self.services.ledger, "upstream_error")
            raise SessionLost("The publisher's server has ended this session: initialize a new one; not charged.")
        if answer.status >= 400 and kind_of(answer) != JSON:
            raise BadAnswer(f"the server answered {answer.status}", sent=True)
        reading = self._read(answer, number, reply)
        if not line.cancels_by_leaving or exchange.keyed is not None:
            return await reading
        # A keyed call goes on without its caller, who can ask for the answer again.
        return await _unless_left(exchange, reading)

    async def _read(self, answer: UpstreamResponse, number: object, reply: JsonRpcReply | None) -> Message:
        async for message in messages(answer, self.services.settings.mcp.max_answer):
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

    async def _deliver(self, exchange: Exchange, result: Message) -> Ending:
        """Answer a call that was paid from a balance, or costs nothing; what is due is booked when that has ended."""
        services = self.services
        body, headers = _answer(exchange, result)
        brings_nothing = why_nothing(result)
        refunded = brings_nothing is not None and await settle(exchange, services.ledger, brings_nothing)
        if ARMED == "refund.after" and refunded:
            await act()
        headers += cost_headers(exchange, refunded=refunded)
        if exchange.keyed is not None:
            kept = body if len(body) <= services.answers.keep else None
            await keep_answer(exchange, services.answers, services.ledger, headers, kept)
        return await send_at_once(exchange, headers, body)

    async def _deliver_onchain(self, exchange: Exchange, payment: CallPayment, result: Message) -> Ending:
        """Answer a call that was paid on a chain, once its payment is kept with the answer, settled or given back."""
        services = self.services
        body, headers = _answer(exchange, result)
        headers += kept_from_caches(headers)
        kept = body if len(body) <= services.answers.keep else None
        brings_nothing = why_nothing(result)
        if brings_nothing is not None:
            await settle(exchange, services.ledger, brings_nothing)
            await release_key(exchange, services.answers, services.ledger)
        elif payment.policy != "before_response":
            await payment.keep(exchange, headers, kept)
        elif kept is None:
            await hold.settled_first(exchange, payment)
            await payment.keep(exchange, headers, None)
        else:
            await hold.kept_until_settled(exchange, payment, headers, kept)
        headers += cost_headers(exchange, refunded=brings_nothing is not None)
        return await send_at_once(exchange, headers, body)


def why_nothing(result: Message) -> Ending | None:
    """Return why a result costs nothing, or None: the tool failed, or asks for input before it does anything."""
    if result.get("isError") is True:
        return "tool_error"
    return "input_required" if result.get("resultType") == "input_required" else None


def refused(response: Message, status: int) -> McpRefused:
    """Return what is answered when the server answers with an error of JSON-RPC."""
    error = fields_of(response.get("error"))
    code, message = error.get("code"), error.get("message")
    said: Message = {"code": code if isinstance(code, int) else -32603, "message": str(message)[:1_000]}
    if "data" in error:
        said["data"] = error["data"]
    return McpRefused(
        f"The publisher's server refuses the call: {said['message']}; you were not charged.",
        mcp_error=said,
        upstream_status=status,
    )


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
