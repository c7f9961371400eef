"""`x402_passthrough`, where the gateway buys for its caller: what the upstream was paid, and what goes on top of it.

    price  = paid x max(markup_multiplier, 1) x (1 + gateway_fee_percent / 100), rounded up to the next atomic unit
    charge = max(price, min_charge); 0 when nothing was paid
    fee    = paid + charge x gateway_fee_percent / (100 + gateway_fee_percent), rounded down; the rest is earned

What was paid came out of the platform's wallet, so it is a part of the platform's share. An offer whose charge would be
above `reserve`, which is what is held, is not bought: unlike elsewhere the price is never cut down to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pricing.money import PPM, round_up
from pricing.quote import FREE, Quote
from pricing.reported import Reading


@dataclass(frozen=True, slots=True)
class PurchaseRate:
    """What is charged for what is bought. `reserve` and `minimum` are atomic units of one asset, minimum <= reserve."""

    reserve: int
    markup: Fraction = Fraction(1)
    minimum: int = 0
    fee_ppm: int = 0

    @property
    def most(self) -> Quote:
        """Return what is held: no call costs more."""
        return Quote(self.reserve, 0, "reserve")

    @property
    def most_paid(self) -> int:
        """Return the highest price of an upstream that fits the reserve."""
        factor = self._factor
        return self.reserve * factor.denominator // factor.numerator

    def quote(self, reading: Reading) -> Quote:
        """Return what a call costs for which `reading.paid` was paid, at most `most_paid`."""
        paid = reading.paid
        if not paid:
            return FREE
        price = paid * self._factor
        charge = max(round_up(price.numerator, price.denominator), self.minimum)
        return Quote(charge, paid + charge * self.fee_ppm // (PPM + self.fee_ppm), "purchase")

    @property
    def _factor(self) -> Fraction:
        return max(self.markup, Fraction(1)) * Fraction(PPM + self.fee_ppm, PPM)
