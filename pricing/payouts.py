"""How much of what a publisher has earned can be paid out, and from which of its accounts. Pure.

Amounts are atomic units of one asset. What was earned a short while ago is held back, because it may still be refunded;
a refund of what was paid out already leaves less than nothing, which later earnings make up for.
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
    """What a publisher has in one asset: from calls and charges, and from penalties."""

    earnings: Purse = Purse()
    penalties: Purse = Purse()

    @property
    def available(self) -> int:
        """Return what can be paid out now."""
        return max(self.earnings.free + self.penalties.free, 0)

    @property
    def deficit(self) -> int:
        """Return what later earnings have to make up for first."""
        return max(-self.earnings.free - self.penalties.free, 0)

    @property
    def held_back(self) -> int:
        """Return what will be free later, if nothing of it is given back."""
        return self.earnings.young + self.penalties.young

    def of_penalties(self, amount: int) -> int:
        """Return how much of a payout comes from penalties: what earnings do not cover. Raises ValueError."""
        if not 0 < amount <= self.available:
            raise ValueError("more than is available")
        return amount - min(amount, max(self.earnings.free, 0))


def needs_second(amount: int, unapproved: int, above: int) -> bool:
    """Say whether somebody else must approve. `unapproved` went out lately without that; an `above` of 0 asks nobody.

    What went out before counts, or a large payout could be made of small ones.
    """
    return above > 0 and unapproved + amount > above
