"""`per_row`: a price for rows.

    price = rows x base_price_per_1000_rows / 1000 x markup_multiplier, rounded up to the next atomic unit
    charge = price limited to [min_charge, max_charge]

The charge for a number of rows is known before the call for a bound on the rows, and after it for what was metered.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pricing.money import round_up
from pricing.quote import Quote, quote_of


@dataclass(frozen=True, slots=True)
class RowRate:
    """A publisher's price of rows in one asset. Amounts are atomic units; `markup` is exact, 1 where none is set."""

    per_1000_rows: int
    markup: Fraction = Fraction(1)
    minimum: int = 0
    maximum: int | None = None
    fee_ppm: int = 0

    def quote(self, rows: int) -> Quote:
        """Return what `rows` rows cost. Never below the minimum: a query that ran is paid for."""
        price = round_up(rows * self.per_1000_rows * self.markup.numerator, 1000 * self.markup.denominator)
        amount = max(price, self.minimum)
        if self.maximum is not None:
            amount = min(amount, self.maximum)
        return quote_of(amount, self.fee_ppm, "rows")

    def rows_for(self, amount: int, limit: int) -> int:
        """Return how many rows `amount` atomic units pay for, at most `limit`: where a query is stopped."""
        if amount < self.quote(0).amount:
            return 0
        if self.maximum is not None and amount >= self.maximum:
            return limit
        per_1000 = self.per_1000_rows * self.markup.numerator
        return min(limit, amount * 1000 * self.markup.denominator // per_1000) if per_1000 else limit
