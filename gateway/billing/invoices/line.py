"""A line item, and what was spent in other assets than dollars."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

LONGEST = 500
"""Characters of a description that are kept."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `amount` is atomic units of the default asset, without tax; below zero it is money that came back."""

    line_type: str
    description: str
    quantity: Decimal
    amount: int
    paid: bool
    reference: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))
        object.__setattr__(self, "description", self.description[:LONGEST])


@dataclass(frozen=True, slots=True)
class OtherAsset:
    """What was spent in an asset that is not counted in dollars: shown, in no sum."""

    asset: str
    decimals: int
    calls: int
    amount: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))
