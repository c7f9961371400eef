"""`tiered`: a price per call that depends on how many calls the caller has made at this publisher this month.

    n      = the caller's calls this calendar month (UTC) that were not given back by now, this one included
    tier   = the first with n <= up_to; the last has no end
    p      = the tier's price limited to [min_charge, max_charge]; 0 is free

    graduated   price(n) = p of n's tier
    volume      total(n) = n x p of n's tier
                paid(n)  = max of total(1) ... total(n)
                price(n) = paid(n) - paid(n - 1)

    charge = price(n), at least min_charge; 0 is free

A free tier is a tier whose price is 0. By `graduated` each call costs what its own tier says. By `volume` the whole
month costs what its last tier says, as far as money that was paid is never given back: behind a bound the calls are
free until the cheaper total has caught up with what was paid. So prices may only fall there, and no call ever costs
more than the first tier's price.

Both come to steps, ranges of n in which a call costs the same, and the ledger counts a call only within its step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Style = Literal["graduated", "volume"]


@dataclass(frozen=True, slots=True)
class Tier:
    """Calls up to number `up_to` of a month, None for all that follow, at `price` atomic units each."""

    up_to: int | None
    price: int

    def within(self, least: int, most: int | None) -> Tier:
        """Return the tier with its price limited to what a call may cost. A free one stays free."""
        price = max(self.price, least) if self.price else 0
        return Tier(self.up_to, price if most is None else min(price, most))


@dataclass(frozen=True, slots=True)
class Step:
    """Calls number `after` + 1 to `up_to` of a month cost `price` atomic units each. `up_to` None: all that follow."""

    after: int
    up_to: int | None
    price: int


@dataclass(frozen=True, slots=True)
class TierRate:
    """A publisher's tiers in one asset, as steps without a gap."""

    steps: tuple[Step, ...]

    def step_after(self, used: int) -> Step:
        """Return the step of the next call of a caller who has made `used` this month."""
        return self.steps[bisect_right(self.steps, used, key=lambda step: step.after) - 1]

    def total(self, calls: int) -> int:
        """Return what so many calls of a month cost together, in atomic units."""
        counted = ((min(calls, calls if one.up_to is None else one.up_to) - one.after, one.price) for one in self.steps)
        return sum(max(number, 0) * price for number, price in counted)

    @property
    def dearest(self) -> int:
        """Return the most that a call may cost: what a caller pays of whom nothing is known."""
        return max(step.price for step in self.steps)

    @property
    def cheapest(self) -> int:
        """Return the least that a call may cost."""
        return min(step.price for step in self.steps)


def rate_of(tiers: Sequence[Tier], style: Style) -> TierRate:
    """Return tiers, in order and the last without an end, as a rate. By `volume` their prices do not rise."""
    return TierRate(tuple(_joined(_volume(tiers) if style == "volume" else _graduated(tiers))))


def _graduated(tiers: Sequence[Tier]) -> Iterable[Step]:
    after = 0
    for tier in tiers:
        yield Step(after, tier.up_to, tier.price)
        after = tier.up_to or 0


def _volume(tiers: Sequence[Tier]) -> Iterable[Step]:
    after = paid = 0
    for tier in tiers:
        if tier.price == 0:  # and so are those that follow
            yield Step(after, None, 0)
            return
        reached = paid // tier.price + 1  # the first call whose total is above what was paid
        if tier.up_to is not None and reached > tier.up_to:
            yield Step(after, tier.up_to, 0)
        else:
            if reached > after + 1:
                yield Step(after, reached - 1, 0)
            yield Step(reached - 1, reached, reached * tier.price - paid)
            if reached != tier.up_to:
                yield Step(reached, tier.up_to, tier.price)
        after = tier.up_to or 0
        paid = max(paid, after * tier.price)


def _joined(steps: Iterable[Step]) -> Iterable[Step]:
    """Join neighbours with the same price: fewer bounds for calls to meet at."""
    last: Step | None = None
    for step in steps:
        if last is not None and last.price == step.price:
            last = Step(last.after, step.up_to, step.price)
        else:
            if last is not None:
                yield last
            last = step
    if last is not None:
        yield last
