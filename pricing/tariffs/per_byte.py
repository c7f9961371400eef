"""`per_byte`: a price for the bytes of the answer's body as they are sent, after their content encoding.

    price  = bytes x price_per_mib / 1,048,576 x markup_multiplier, rounded up to the next atomic unit
    charge = price limited to [min_charge, reserve]

`reserve` is what is held before the call: reserve_max_charge, at most max_charge. No call ever costs more.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pricing.money import round_up
from pricing.quote import Quote, quote_of
from pricing.reported import Reading

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ByteRate:
    """A publisher's price of bytes in one asset. Amounts are atomic units."""

    reserve: int
    per_mib: int
    markup: Fraction = Fraction(1)
    minimum: int = 0
    fee_ppm: int = 0

    @property
    def most(self) -> Quote:
        """Return what is held: no call costs more."""
        return quote_of(self.reserve, self.fee_ppm, "reserve")

    def quote(self, reading: Reading) -> Quote:
        """Return what a call costs that delivered so many bytes."""
        exact = Fraction(reading.size * self.per_mib, MIB) * self.markup
        price = round_up(exact.numerator, exact.denominator)
        return quote_of(min(max(price, self.minimum), self.reserve), self.fee_ppm, "bytes")
