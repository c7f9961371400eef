"""What a purse is asked by a kind that meters by itself: queries say what is due, and take it before they answer."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, TypeAlias

from gateway.catalog.snapshot import AssetPrice
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.purses.purse import Purse
from pricing.quote import Quote

Answer: TypeAlias = tuple[HeaderPairs, bytes | None]
"""An answer's fields and body; no body where it is too large to keep."""


class MeteredPurse(Purse):
    """Money for as much as a query may come to. Amounts are atomic units of the price's asset."""

    __slots__ = ()

    source: ClassVar[str]
    """The contract's word for where the money comes from."""

    @property
    @abstractmethod
    def price(self) -> AssetPrice:
        """Return the price that is paid."""

    @property
    @abstractmethod
    def held(self) -> int:
        """Return how much is authorized."""

    @abstractmethod
    def at_most(self, quote: Quote) -> Quote:
        """Return what is due of a quote: never more than what is authorized."""

    @abstractmethod
    async def take(self, exchange: Exchange, quote: Quote, reason: str, answer: Answer | None = None) -> HeaderPairs:
        """Take what is due, and store the answer of a call that can be repeated, both or neither, durably.

        Returns what the answer's head says of it. Raises a Problem; then nothing is taken, and nobody has the answer.
        """

    @abstractmethod
    def leave(self, exchange: Exchange, quote: Quote, reason: str) -> None:
        """Take what is due without waiting: the caller has gone, or this process has no time."""
