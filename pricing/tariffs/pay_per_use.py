"""`pay_per_use`: what the upstream's own answer says, and the gateway's fee on top.

    cost   = the amount that the answer names, or the sum over its counts of count x price / 1,000,000
    price  = cost x markup_multiplier x (1 + gateway_fee_percent / 100), rounded up to the next atomic unit
    charge = price limited to [min_charge, reserve], unresolved_fallback_charge when the answer does not say
    fee    = charge x gateway_fee_percent / (100 + gateway_fee_percent), rounded down; the rest is the publisher's

`reserve` is what is held before the call: reserve_max_charge, at most max_charge. No call ever costs more.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pricing.money import PPM, round_up
from pricing.quote import Quote
from pricing.reported import Reading

UNITS = 1_000_000
"""Prices of counted units are per so many: a price of one token has more decimals than the asset."""


@dataclass(frozen=True, slots=True)
class UsageRate:
    """A publisher's price of use in one asset with `decimals`. Amounts are atomic units; `cost_path` names an amount,
    `unit_prices` what a million of the units at each path cost; with neither the amount is the header's.
    """

    reserve: int
    fallback: int
    decimals: int
    cost_path: str | None = None
    unit_prices: tuple[tuple[str, int], ...] = ()
    markup: Fraction = Fraction(1)
    minimum: int = 0
    fee_ppm: int = 0

    @property
    def most(self) -> Quote:
        """Return what is held: no call costs more."""
        return self._split(self.reserve, "reserve")

    def quote(self, reading: Reading) -> Quote:
        """Return what a call costs whose answer was read."""
        cost = self._cost(reading)
        if cost is None:
            return self._split(self.fallback, "unresolved")
        exact = cost * self.markup * Fraction(PPM + self.fee_ppm, PPM)
        return self._split(round_up(exact.numerator, exact.denominator), "usage")

    def _cost(self, reading: Reading) -> Fraction | None:
        """Return atomic units, None when the answer does not say."""
        if self.unit_prices:
            counted = [
                Fraction(reading.values[path]) * price for path, price in self.unit_prices if path in reading.values
            ]
            return sum(counted, Fraction(0)) * Fraction(1, UNITS) if counted else None
        cost = reading.header if self.cost_path is None else reading.values.get(self.cost_path)
        return None if cost is None else Fraction(cost) * 10**self.decimals

    def _split(self, price: int, basis: str) -> Quote:
        amount = min(max(price, self.minimum), self.reserve)
        return Quote(amount, amount * self.fee_ppm // (PPM + self.fee_ppm), basis)
