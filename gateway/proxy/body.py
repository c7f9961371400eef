"""The request body on its way to the upstream: none, whole, or a stream with backpressure.

A caller that stops sending, or whose body is not framed as its head says, is refused; what a body means is the
upstream's business. What does not live here: framing towards the upstream (upstreams/http/request.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from math import inf
from time import perf_counter

from gateway.errors import InvalidRequest, PayloadTooLarge
from gateway.proxy.exchange import Exchange, Message
from gateway.proxy.framing import CLOSE
from gateway.proxy.pace import Pace

BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})


class ClientGone(Exception):
    """The request did not come to its end: the caller left, or sent a body with broken framing."""


def cut_short() -> InvalidRequest:
    """Return what is answered then, to whoever still listens."""
    return InvalidRequest("The request body is not framed as its head says; you were not charged.", headers=CLOSE)


async def next_message(exchange: Exchange) -> Message:
    """Return the next `http.request` message. Raises ClientGone or RequestTimeout."""
    begun, pace = perf_counter(), exchange.pace
    if pace is None:
        pace = exchange.pace = Pace(exchange.bounded_by, begun)
    try:
        async with asyncio.timeout(pace.wait(begun)):
            message = await exchange.receive()
    except TimeoutError:
        raise pace.refusal(perf_counter()) from None
    if message["type"] == "http.disconnect":
        raise ClientGone
    exchange.body_ended = not message.get("more_body")
    if exchange.body_ended:
        exchange.body_at = perf_counter()
        exchange.end_upload()
    else:
        pace.took(perf_counter() - begun, len(message.get("body", b"")))
    return message


def may_have_body(exchange: Exchange) -> bool:
    """Return whether a body is announced, or its version of HTTP announces none."""
    fields = exchange.fields
    announced = fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in fields
    return announced or exchange.scope.get("http_version", "1.1")[0] != "1"


async def request_body(exchange: Exchange) -> bytes | AsyncIterator[bytes] | None:
    """Return the body: None without one, bytes when it is here whole, else a stream. Raises as `next_message`."""
    if exchange.read_body is not None:
        return exchange.read_body if exchange.read_body or exchange.method in BODY_METHODS else None
    if exchange.ahead is not None:
        first, exchange.ahead = bytes(exchange.ahead), None
    elif may_have_body(exchange):
        first: bytes = (await next_message(exchange)).get("body", b"")
    else:
        return b"" if exchange.method in BODY_METHODS else None
    exchange.took_in(first)
    if exchange.body_ended:
        return first if first or exchange.method in BODY_METHODS else None
    exchange.body_at = inf
    return _stream(exchange, first)


async def read_whole(exchange: Exchange, most: int) -> bytes:
    """Read the body to its end and keep it with the exchange. Raises PayloadTooLarge, and as `next_message`."""
    said = exchange.fields.get(b"content-length", b"")
    too_large = PayloadTooLarge(
        f"The body may have at most {most} bytes: it is sent twice, the second time with the payment.", headers=CLOSE
    )
    if said.isdigit() and int(said) > most:
        raise too_large
    body = await request_body(exchange)
    if body is not None and not isinstance(body, bytes):
        read = bytearray()
        async for piece in body:
            read += piece
            if len(read) > most:
                raise too_large
        body = bytes(read)
    exchange.read_body = body or b""
    return exchange.read_body


async def _stream(exchange: Exchange, first: bytes) -> AsyncIterator[bytes]:
    if first:
        yield first
    while True:
        message = await next_message(exchange)
        piece: bytes = message.get("body", b"")
        if piece:
            exchange.took_in(piece)
            yield piece
        if not message.get("more_body"):
            return
