"""Bodies that are still on their way when their call wants a place at the publisher.

A place is for a call whose body is here, or comes. So the beginning of a body is read before there is a place; a short
body is here whole by then, however slowly it came. One that pauses, or is longer, is an upload: uploads hold half of
the publisher's places at most, and their pace is minded (pace.py). Whoever drips bytes waits for himself and for other
uploads; calls with short bodies, or none, always find the other half. What does not live here: the line for a place
(failures.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from gateway.errors import Unavailable
from gateway.proxy.body import ClientGone, may_have_body, next_message
from gateway.proxy.destination import Destination
from gateway.proxy.exchange import Exchange
from gateway.proxy.peeked import Peeked

# The beginning: what a server below us would keep in memory for a slow publisher anyway.
AHEAD = 65_536
PAUSE_SECONDS = 0.2


async def begin_upload(exchange: Exchange, to: Destination) -> None:
    """Read the beginning of the body; where it is not the whole, take the place of an upload.

    Raises Unavailable when the publisher has no place for another upload in time, and as `next_message`.
    """
    if exchange.read_body is not None or exchange.body_ended or not may_have_body(exchange):
        return  # an MCP message is read whole before it is known where it goes
    held_back = b"expect" in exchange.fields  # until the call is paid: only then its caller is told to go on
    if not held_back and await _read_ahead(exchange, PAUSE_SECONDS):
        return
    # With one place in all there is none to spare for a body that pauses.
    if to.calls.limit > 1 and to.uploads.take():
        exchange.upload_place = to.uploads
        return
    if not held_back and await _read_ahead(exchange, None):
        return
    if not await to.uploads.enter(to.timeouts.connect):
        raise Unavailable(
            f"{to.uploads.limit} uploads to this publisher are on their way, as many as it takes at once; not charged."
        )
    exchange.upload_place = to.uploads


async def _read_ahead(exchange: Exchange, pause: float | None) -> bool:
    """Read on until the body ends, pauses for so long or has got too long to be kept; return whether it has ended."""
    ahead = exchange.ahead
    if ahead is None:
        exchange.ahead = ahead = bytearray((await next_message(exchange)).get("body", b""))
    while not exchange.body_ended and len(ahead) < AHEAD:
        if pause is not None and not await Peeked.of(exchange).soon(pause):
            return False
        ahead += (await next_message(exchange)).get("body", b"")
    return exchange.body_ended


async def unless_gone(exchange: Exchange, entering: Coroutine[Any, Any, bool]) -> bool:
    """Wait for a place as long as the caller is there. Raises ClientGone.

    While a body is on its way nobody looks: reading shows it.
    """
    if not exchange.body_ended and may_have_body(exchange):
        return await entering
    place = asyncio.get_running_loop().create_task(entering)
    try:
        await _first(place, exchange)
        return await place
    finally:
        place.cancel()


async def _first(place: asyncio.Task[bool], exchange: Exchange) -> None:
    peeked = Peeked.of(exchange)
    while not place.done():
        message = peeked.coming()
        await asyncio.wait((place, message), return_when=asyncio.FIRST_COMPLETED)
        if not message.done():
            return
        if (await peeked.receive())["type"] == "http.disconnect" and not place.done():
            raise ClientGone
