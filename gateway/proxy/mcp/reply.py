"""What the pipeline answers, as an MCP client reads it.

The steps of a paid call answer in HTTP: a result, a 402, a problem. For a client of the MCP endpoint each of them is
one JSON-RPC response, which is sent as it is, or as the last event of a stream when messages have gone before it. A
402 is a tool's result, with what can be paid, as x402 has it for MCP.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import orjson

from gateway.dates import http_date
from gateway.errors import SessionLost
from gateway.json_text import json_text
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.exchange import Message as ServerMessage
from gateway.proxy.problems import limit_fields
from gateway.upstreams.mcp.answers import EVENTS
from gateway.upstreams.mcp.answers import event as event_of
from gateway.upstreams.mcp.messages import Message, answer_of, fields_of, text

RESPONSE = "x402/payment-response"
COST = "tollway/cost"
SAID_BY_US = frozenset({RESPONSE, COST})
"""Members of a result's `_meta` that are never the publisher's: it cannot claim a payment."""
SERVER_ERROR, INVALID_PARAMS, INTERNAL = -32000, -32602, -32603
SAID = {
    b"x-cost": "amount",
    b"x-cost-asset": "asset",
    b"x-balance": "balance",
    b"x-balance-low": "balance_low",
    b"x-budget-left": "budget_left",
    b"x-request-id": "request_id",
}
OF_THE_BODY = frozenset((b"content-type", b"content-length"))


class JsonRpcReply:
    """Stands between an exchange and its caller from here on. `id` is the request's, None until it is known."""

    def __init__(self, exchange: Exchange, patience: float) -> None:
        self._exchange, self._patience = exchange, patience
        self._out = exchange.send
        self._status, self._headers, self._body = 0, HeaderPairs(), b""
        self.id: str | int | None = None
        self.stateless = False  # whether the caller's version has every result say that it is one
        self.begun = False
        self.left = False
        exchange.send = self._take

    def step_aside(self) -> None:
        """Let answers through as they are."""
        self._exchange.send = self._out

    async def relay(self, message: Message) -> None:
        """Send a message of the server's that comes before its response. Who takes none of them has left."""
        if self.left:
            return
        try:
            async with asyncio.timeout(self._patience):
                if not self.begun:
                    await self._begin()
                await self._out({"type": "http.response.body", "body": event_of(text(message)), "more_body": True})
        except OSError:  # a timeout is one as well
            self.left = True

    async def _begin(self) -> None:
        exchange = self._exchange
        self.begun = True
        headers: HeaderPairs = [
            (b"content-type", EVENTS),
            (b"cache-control", b"no-store"),
            (b"date", http_date()),
            (b"x-request-id", str(exchange.id).encode()),
            *limit_fields(exchange),
        ]
        await self._out({"type": "http.response.start", "status": 200, "headers": headers})

    async def _take(self, message: ServerMessage) -> None:
        """Gather an answer of the pipeline's, and send it when it is whole."""
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], message["headers"]
            return
        self._body += message.get("body", b"")
        if not message.get("more_body"):
            await self._send()

    async def _send(self) -> None:
        if self.left:
            return
        status, response = self._translated()
        body = json_text({"jsonrpc": "2.0", "id": self.id, **response})
        if self.begun:
            await self._out({"type": "http.response.body", "body": event_of(body)})
            return
        headers = [pair for pair in self._headers if pair[0] not in OF_THE_BODY]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._out({"type": "http.response.start", "status": status, "headers": headers})
        await self._out({"type": "http.response.body", "body": body})

    def _translated(self) -> tuple[int, Message]:
        """Return the HTTP status and the members of the response."""
        document = answer_of(self._body)
        if self._status == 402:
            return 200, {"result": self._payment_required(document)}
        if self._status < 300:
            theirs = {name: value for name, value in fields_of(document.get("_meta")).items() if name not in SAID_BY_US}
            meta = {**theirs, **self._paid()}
            return self._status, {"result": {**document, "_meta": meta}}
        status = self._status
        if self.id is not None and status != SessionLost.status:
            status = 200
        return int(document.pop("upstream_status", status)), {"error": error_of(document)}

    def _payment_required(self, document: Message) -> Message:
        """Return the result that asks for a payment: what the header says to clients of version 2, and our members."""
        header = self._field(b"payment-required")
        if header is not None:
            offered: Message = orjson.loads(base64.b64decode(header))
            document = {**document, "prepaid": _prepaid(document), **offered}
        shown = {name: value for name, value in document.items() if value is not None}
        said = json_text(shown).decode()
        paid = {name: value for name, value in self._paid().items() if name == RESPONSE}
        result: Message = {"content": [{"type": "text", "text": said}], "structuredContent": shown, "isError": True}
        if self.stateless:
            result["resultType"] = "complete"
        return {**result, "_meta": paid} if paid else result

    def _paid(self) -> Message:
        """Return what is said about the payment of an answer."""
        cost = {said: value.decode() for name, value in self._headers if (said := SAID.get(name)) is not None}
        found: Message = {COST: cost}
        settled = self._field(b"payment-response") or self._field(b"x-payment-response")
        if settled is not None:
            found[RESPONSE] = orjson.loads(base64.b64decode(settled))
        return found

    def _field(self, name: bytes) -> bytes | None:
        return next((value for given, value in self._headers if given == name), None)


def _prepaid(document: Message) -> Any:
    """Return the offer to pay from a balance, wherever a body of a 402 has it."""
    listed = [one for one in document.get("accepts", []) if one.get("scheme") == "prepaid"]
    return document.get("prepaid") or (listed[0] if listed else None)


def error_of(problem: Message) -> Message:
    """Return a problem as an error of JSON-RPC: the server's own where it was the server's."""
    theirs = fields_of(problem.get("mcp_error"))
    if theirs:
        return theirs
    status = problem.get("status")
    code = INVALID_PARAMS if status == 400 else INTERNAL if status == 500 else SERVER_ERROR
    return {"code": code, "message": f"{problem.get('title')}: {problem.get('detail')}", "data": problem}
