"""What all purses do for a call that has an Idempotency-Key: claim it, and store the answer for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import Unavailable
from gateway.ledger.answers import StoredAnswer
from gateway.ledger.entries import Settlement
from gateway.proxy.effects import perform
from gateway.proxy.idempotency import NOT_STORED, answered_before, kept_headers
from gateway.proxy.purses.purse import Purse

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange, HeaderPairs, Keyed
    from gateway.proxy.parts import Parts


class KeyedPurse(Purse):
    """Claims and stores. Those below it say how money moves with that."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def claim(self, exchange: Exchange) -> bool:
        """Claim the Idempotency-Key, unless that was done before the call had a price."""
        services = self._parts.services
        return exchange.keyed is not None or not await answered_before(exchange, services.answers, services.ledger)

    async def keep(self, exchange: Exchange, headers: HeaderPairs, body: bytes | None) -> None:
        """Store the answer of a call that has a key, and settle the call with it."""
        keyed = exchange.keyed
        if keyed is None:
            return
        answer = stored_answer(exchange, keyed, headers, body)
        try:
            stored = await perform("store", self._store(exchange, keyed, answer))
        except Unavailable:
            raise Unavailable(NOT_STORED) from None
        if not stored:
            raise Unavailable(NOT_STORED)

    def keep_later(self, exchange: Exchange) -> None:
        """Store without a body as soon as the database is back."""
        keyed, services, settlement = exchange.keyed, self._parts.services, self._settlement(exchange)
        if keyed is None:
            return
        answer = stored_answer(exchange, keyed, [], None)

        async def store() -> None:
            await services.answers.store(keyed.owner_id, keyed.key, exchange.id, answer, settlement)

        services.ledger.owe("answer", exchange.id, store)
        exchange.keyed = None

    async def _store(self, exchange: Exchange, keyed: Keyed, answer: StoredAnswer) -> bool:
        """Store an answer, and return whether its key was still this call's."""
        settlement = self._settlement(exchange)
        stored = await self._parts.services.answers.store(keyed.owner_id, keyed.key, exchange.id, answer, settlement)
        if stored and settlement is not None:
            exchange.outcome = "settled"
            self._parts.services.ledger.ended(exchange.id)
        return stored

    def _settlement(self, exchange: Exchange) -> Settlement | None:
        """Return what is recorded of the call's end with its answer; None where nothing was paid, or it has ended."""
        return None


def stored_answer(exchange: Exchange, keyed: Keyed, headers: HeaderPairs, body: bytes | None) -> StoredAnswer:
    """Return what is stored of an answer."""
    return StoredAnswer(exchange.answered, kept_headers(headers), body, keyed.request_hasher.digest())
