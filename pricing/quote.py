"""A quote: what a call costs, whose the parts are, and which rule said so."""

from __future__ import annotations

from dataclasses import dataclass

from pricing.money import fee_of


@dataclass(frozen=True, slots=True)
class Quote:
    """The price of one call in atomic units of the priced asset. `amount = publisher_part + fee`, always."""

    amount: int
    fee: int
    basis: str

    @property
    def publisher_part(self) -> int:
        """Return what the publisher earns: the price less the platform's fee."""
        return self.amount - self.fee


FREE = Quote(0, 0, "free")


def quote_of(amount: int, fee_ppm: int, basis: str) -> Quote:
    """Return the quote for an amount: the fee is rounded down, the remainder is the publisher's."""
    return Quote(amount, fee_of(amount, fee_ppm), basis)
