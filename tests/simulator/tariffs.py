"""What the simulator's publishers sell by the caller's month, and what its keys may spend: drawn from the seed, and told
the gateway in its own words. The prices are worked out here once more, the slow way, so that a judge has them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from pricing.money import format_amount

DECIMALS = 6


@dataclass(frozen=True)
class Tiers:
    """Tiers as (last call of the month, price in atomic units); the last has no end."""

    tiers: tuple[tuple[int | None, int], ...]
    style: str

    def price(self, place: int) -> int:
        """Return what the call with this number of its month costs."""
        if self.style == "graduated":
            return self._tier_price(place)
        return self._paid(place) - self._paid(place - 1)

    def document(self) -> dict[str, Any]:
        """Return the fields of the publisher that say so."""
        tiers = [{"up_to": up_to, "price": format_amount(price, DECIMALS)} for up_to, price in self.tiers]
        return {"price_tiers": tiers, "tier_style": self.style, "pricing_model": "tiered"}

    def _tier_price(self, place: int) -> int:
        return next(price for up_to, price in self.tiers if up_to is None or place <= up_to)

    def _paid(self, calls: int) -> int:
        return max((number * self._tier_price(number) for number in range(1, calls + 1)), default=0)


@dataclass(frozen=True)
class Budget:
    """What a key may spend in a call, a day and a month; None is no limit."""

    per_call: int | None
    per_day: int | None
    per_month: int | None

    @property
    def counted(self) -> bool:
        """Return whether what is spent has to be remembered."""
        return self.per_day is not None or self.per_month is not None


def draw_tiers(dice: random.Random) -> Tiers:
    """Return tiers with bounds so low that a short run meets them."""
    bounds = sorted(dice.sample(range(1, 14), dice.randint(1, 3)))
    prices = [dice.choice((0, 0, 1, 7, 10, 33)) for _ in range(len(bounds) + 1)]
    if not any(prices):
        prices[-1] = 7
    style = dice.choice(("graduated", "graduated", "volume"))
    if style == "volume":
        prices.sort(reverse=True)
    return Tiers(tuple(zip([*bounds, None], prices, strict=True)), style)


def draw_budget(dice: random.Random) -> Budget:
    """Return a budget with one limit at least."""
    limits = (dice.choice((None, 9, 40, 90)), dice.choice((None, 60, 150, 400)), dice.choice((None, 100, 300, 1000)))
    return Budget(*limits) if limits != (None, None, None) else Budget(None, 150, None)
