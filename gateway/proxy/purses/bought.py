"""A call that the gateway buys from a server which sells by x402, for a caller who pays with its balance.

The most is held; what was paid, with what goes on top, is captured. From the gateway's signature on the call goes on to
its end though its caller leaves: it is being paid for. What does not live here: the purchase (proxy/buying.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from gateway.catalog.snapshot import AssetPrice
from gateway.proxy.body import read_whole
from gateway.proxy.buying import Buyer
from gateway.proxy.destination import Destination
from gateway.proxy.exchange import Exchange, nobody
from gateway.proxy.live import Live
from gateway.proxy.purses.hold import HoldPurse
from gateway.upstreams.http.response import UpstreamResponse

if TYPE_CHECKING:
    from gateway.proxy.parts import Parts
    from gateway.proxy.purses.purse import Ask


class BoughtPurse(HoldPurse):
    """Pays servers that ask for a payment of their own."""

    __slots__ = ("_buyer",)

    def __init__(self, parts: Parts, price: AssetPrice, buyer: Buyer) -> None:
        super().__init__(parts, price)
        self._buyer = buyer

    async def demand(self, exchange: Exchange) -> None:
        """Find the wallet that pays, and read the body: it is sent twice. Raises Shortfall, and as body.read_whole."""
        await super().demand(exchange)
        await read_whole(exchange, self._parts.services.settings.buying.max_body)

    async def buy(self, exchange: Exchange, to: Destination, answer: UpstreamResponse, ask: Ask) -> UpstreamResponse:
        """Take up an offer of an upstream's 402, and return the answer that was bought."""
        return await self._buyer.pay(exchange, to, answer, ask) if answer.status == 402 else answer

    async def look(self, exchange: Exchange, answer: UpstreamResponse) -> None:
        """Read nothing: what the answer costs was paid before it came."""

    def see_through(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """Return work that does not stop half way."""
        return _to_its_end(exchange, self._parts.live, work)


async def _to_its_end(exchange: Exchange, live: Live, work: Coroutine[Any, Any, None]) -> None:
    """Do what must not stop half way, also when the server gives up on the caller. Only a stop of the gateway, or a
    caller who does not take an answer that is there whole, ends it earlier.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if task.done() or current is None:
                raise
            if live.cutting or exchange.stalled:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                raise
            current.uncancel()
            exchange.send = nobody
    task.result()
