"""Tiered prices at the till: a call is charged in the step of its caller's month in which it falls, and counted there.

What a caller has used is kept as it was last heard, to quote by; what decides is the ledger. It takes the price only
while the counter stands within the step that the price is of, so calls that race across a bound, in whatever workers,
are each paid by the place that they really get. One that was quoted by a step that others have filled is quoted again.
The counter is of the account, not the key. What does not live here: prices (pricing/tariffs/tiered.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from uuid import UUID

from gateway.database.pool import Database
from gateway.errors import BudgetExceeded, PaymentRequired, Unavailable
from gateway.ledger.counters import READ_COUNTER, Counter, month_of
from gateway.ledger.exchanges import ChargeVerdict
from gateway.proxy.exchange import Exchange
from gateway.proxy.quote import quote_step
from pricing.tariffs.tiered import TierRate

KIND = "tier"
CACHE_SIZE = 200_000
MOVES = 8
"""How often a call may find its step filled, beside once for each step: refunds can move the counter back as well."""

Key = tuple[UUID, UUID, date]


class Usages:
    """How many calls accounts have made at publishers this month, as last heard. One per worker."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[Key, int] = {}

    async def of(self, key: Key) -> int:
        """Return what is known, or look it up."""
        known = self._known.get(key)
        return await self.look(key) if known is None else known

    async def look(self, key: Key) -> int:
        """Look up how many calls have been counted. Raises Unavailable."""
        account_id, publisher_id, month = key
        found = await self._database.read(
            lambda connection: READ_COUNTER.one(connection, account_id, publisher_id, KIND, month)
        )
        return self.heard(key, found)

    def heard(self, key: Key, used: int) -> int:
        """Keep what the ledger has told."""
        if len(self._known) >= CACHE_SIZE and key not in self._known:
            self._known.clear()
        self._known[key] = used
        return used


async def charge_in_step(
    exchange: Exchange,
    account_id: UUID,
    tiers: TierRate,
    usages: Usages,
    charge: Callable[[Counter], Awaitable[ChargeVerdict]],
) -> ChargeVerdict:
    """Quote a call by its caller's month, and charge it with its place there.

    `charge` takes the exchange's quote and counts; its verdict is of a paid charge, or `beyond` of that counter. Raises
    what it raises, and Unavailable.
    """
    key = (account_id, exchange.sold.id, month_of(datetime.now(UTC).date()))
    used, fresh = await usages.of(key), False
    for _ in range(len(tiers.steps) + MOVES):
        step = tiers.step_after(used)
        exchange.quote = quote_step(exchange, step)
        try:
            verdict = await charge(Counter(*key[:2], KIND, key[2], 1, step.after, step.up_to))
        except (PaymentRequired, BudgetExceeded):  # by a price that may not be the call's any more
            if fresh or tiers.step_after(await usages.look(key)) == step:
                raise
            used, fresh = await usages.of(key), True
            continue
        if verdict.paid:
            usages.heard(key, max(used, step.after) + 1)
            return verdict
        used, fresh = usages.heard(key, verdict.counted), True
    raise Unavailable("Too many calls of this account reach a new price at once; you were not charged. Try again.")
