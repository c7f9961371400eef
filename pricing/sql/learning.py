"""What answers teach about estimates: a planner is wrong about the same shapes of queries again and again.

For each payer and shape (shape.py) three guesses compete: the planner's number, that number times what it was wrong by
before, and what came before. Whichever erred least so far is used. None of them looks at a query's constants except
through the planner, so no guess tells more about them than the planner's own, which anyone may ask for.

Sizes of rows are kept as logarithms: whole sixty-fourths of a binary order, so that twice as many is 64 more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

ORDER = 64
FEW = ORDER // 4
"""Errors below this (1.2 times) are none: the planner's number stays."""
MEMORY = 8
"""New answers count one part in so many, at least: data change."""
QUORUM = 3
"""What so many payers have met is told to others; less would tell one of them about another's answers."""
MOST_ROWS = 1 << 40


def _powers() -> list[int]:
    """Return 2 ** (n / ORDER) as 20-bit fixed point numbers."""
    found = [1 << (n + ORDER * 20) for n in range(ORDER)]
    for _ in range(ORDER.bit_length() - 1):
        found = [isqrt(one) for one in found]
    return found


_POWERS = _powers()


def size(rows: int) -> int:
    """Return the logarithm of a number of rows, of one row for none."""
    return (max(1, min(rows, MOST_ROWS)) ** ORDER).bit_length() - 1


def rows(logarithm: int) -> int:
    """Return the number of rows with a logarithm, rounded to the nearest, at least 1."""
    whole, part = divmod(max(0, min(logarithm, 40 * ORDER)), ORDER)
    return ((_POWERS[part] << whole) + (1 << 19)) >> 20


@dataclass(frozen=True, slots=True)
class Experience:
    """What one payer's answers of one shape were like, as logarithms: means and mean errors of the three guesses."""

    seen: int
    bias: int
    level: int
    plan_error: int
    bias_error: int
    level_error: int

    def guess(self, planned: int) -> int:
        """Return the rows to expect where the planner says `planned`."""
        by_bias, by_level = size(planned) + self.bias, self.level
        if self.plan_error <= FEW or self.plan_error <= min(self.bias_error, self.level_error):
            return planned
        if self.seen == 1:  # neither has been tried: half way between them
            return rows((by_bias + by_level) // 2)
        return rows(by_bias if self.bias_error <= self.level_error else by_level)


def learn(known: Experience | None, planned: int, actual: int) -> Experience:
    """Return what is known after one more answer of `actual` rows, where the planner had said `planned`."""
    plan, came = size(planned), size(actual)
    if known is None:
        error = abs(came - plan)
        return Experience(1, came - plan, came, error, error // 2, error // 2)
    weight = min(known.seen + 1, MEMORY)

    def mean(old: int, new: int) -> int:
        return old + (new - old) // weight

    return Experience(
        min(known.seen + 1, 1 << 30),
        mean(known.bias, came - plan),
        mean(known.level, came),
        mean(known.plan_error, abs(came - plan)),
        mean(known.bias_error, abs(came - plan - known.bias)),
        mean(known.level_error, abs(came - known.level)),
    )


def expected(planned: int, own: Experience | None, others: Sequence[Experience]) -> int:
    """Return the rows to expect: by the payer's own answers, else by the middle one of at least QUORUM others'."""
    if own is not None:
        return own.guess(planned)
    if len(others) < QUORUM:
        return planned
    return sorted(one.guess(planned) for one in others)[len(others) // 2]


def lesson(source: int, limited: int | None, actual: int, *, cut: bool) -> int | None:
    """Return the rows to learn from an answer of `actual` ones, None when it says nothing.

    `source` is the planner's number before a LIMIT, `limited` how many that LIMIT lets through; `cut` says that the
    answer was ended early. An answer that was cut off has at least the rows that it had.
    """
    if not cut and (limited is None or actual < limited):
        return actual
    return actual if actual > source else None
