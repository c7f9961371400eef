"""How much of what a publisher has earned can be paid out, and from which of its accounts. Pure.

Amounts are atomic units of one asset. What was earned a short while ago is held back, because it may still be refunded;
a refund of what was paid out already leaves less than nothing, which later earnings make up for. What promotional
credit has paid goes out within a bound only, and makes up for nothing beyond it: else free credit would become money.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Purse:
    """One account: its balance, which may be negative, and how much of it is held back."""

    balance: int = 0
    young: int = 0

    @property
    def free(self) -> int:
        """Return what is not held back; negative where more was given back than is left."""
        return self.balance - self.young


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a publisher has in one asset: from calls and charges, and from penalties.

    `promotional` is what of both is not held back, was paid by promotional credit, and has not been paid out;
    `promotional_left` is how much of that the operator's bound lets go now.
    """

    earnings: Purse = Purse()
    penalties: Purse = Purse()
    promotional: int = 0
    promotional_left: int = 0

    @property
    def funded(self) -> int:
        """Return what is not held back and was paid with money; negative where more was given back than is left."""
        return self.earnings.free + self.penalties.free - self.promotional

    @property
    def promotional_payable(self) -> int:
        """Return what of the promotional earnings may be paid out now."""
        return min(self.promotional, max(self.promotional_left, 0))

    @property
    def available(self) -> int:
        """Return what can be paid out now."""
        return max(self.funded + self.promotional_payable, 0)

    @property
    def deficit(self) -> int:
        """Return what later earnings have to make up for first."""
        return max(-self.funded - self.promotional_payable, 0)

    @property
    def held_back(self) -> int:
        """Return what will be free later, if nothing of it is given back."""
        return self.earnings.young + self.penalties.young

    def of_penalties(self, amount: int) -> int:
        """Return how much of a payout comes from penalties: what earnings do not cover. Raises ValueError."""
        self._demand(amount)
        return amount - min(amount, max(self.earnings.free, 0))

    def of_promotional(self, amount: int) -> int:
        """Return how much of a payout promotional credit had paid: what money has not covered. Raises ValueError."""
        self._demand(amount)
        return amount - min(amount, max(self.funded, 0))

    def _demand(self, amount: int) -> None:
        if not 0 < amount <= self.available:
            raise ValueError("more than is available")


def needs_second(amount: int, unapproved: int, above: int) -> bool:
    """Say whether somebody else must approve. `unapproved` went out lately without that; an `above` of 0 asks nobody.

    What went out before counts, or a large payout could be made of small ones.
    """
    return above > 0 and unapproved + amount > above
