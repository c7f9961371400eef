"""The protocol of what a call is: HTTP, a query, a tool call, a WebSocket connection.

    price              set the quote
    purse              choose what pays
    unpaid             say more to a caller that has not paid
    async with kind    hold what the call needs at its publisher: a place, a planned query
    sell               ask the publisher, and deliver its answer; the call is authorized by then

What does not live here: the order of these (walk.py), how money moves (purses/).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from gateway.billing.prepaid_credits import Ending
from gateway.proxy.destination import Destination
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange
from gateway.proxy.failures import admit
from gateway.proxy.match import Candidates
from gateway.proxy.parts import Parts
from gateway.proxy.purses.choice import choose
from gateway.proxy.purses.purse import Purse
from gateway.proxy.quote import quote


class Kind(ABC):
    """One call, as one of its kind."""

    __slots__ = ("exchange", "parts")

    def __init__(self, exchange: Exchange, parts: Parts) -> None:
        self.exchange, self.parts = exchange, parts

    @abstractmethod
    def price(self) -> None:
        """Set the exchange's quote. Raises a Problem for what is not sold."""

    def purse(self) -> Purse:
        """Return what pays the call. Raises Unavailable."""
        return choose(self.exchange, self.parts)

    async def unpaid(self) -> None:
        """Find out what a caller that has not paid is told: its quote is there already. Raises a Problem instead."""
        return

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    async def sell(self) -> Ending:
        """Ask, deliver, and return how that ended. Raises a Problem when there is no answer to deliver."""


class ServerCall(Kind):
    """A call to a publisher's server: it holds one of the places there."""

    __slots__ = ("to",)

    to: Destination

    async def __aenter__(self) -> Self:
        self.to = self.parts.destinations.find(self.exchange.sold)
        await perform("admit", admit(self.exchange, self.to, self.parts.services))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.to.breaker.abandon(self.exchange)


class PathCall(ServerCall):
    """A call that is priced by its path. `candidates` are the endpoints that the request may name."""

    __slots__ = ("_candidates",)

    def __init__(self, exchange: Exchange, parts: Parts, candidates: Candidates) -> None:
        super().__init__(exchange, parts)
        self._candidates = candidates

    def price(self) -> None:
        """Set the quote: the dearest of what the request may name."""
        quote(self.exchange, self._candidates)
