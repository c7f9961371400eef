"""Who may come in: a worker that cannot keep up turns new calls away at once, so that those inside are served in time.

What tells is how long calls wait for the gateway itself (line.py): from their arrival to the end of their limit check,
and for the ledger. What they wait for elsewhere (a publisher, a chain, a slow caller) says nothing about it and is not
counted; the line for a place at a publisher is a line of its own (destination.py). A call arrives when its bytes do,
which is before the loop looks at it: how long turns of the loop take (turns.py) is counted with it.

The number of calls inside is bounded as well, for the memory that each takes. What does not live here: rate limits of
callers (limit.py), places at publishers (upstreams/turnstile.py).
"""

from __future__ import annotations

from typing import Literal

from gateway.errors import Overloaded
from gateway.proxy.line import Line

Reason = Literal["wait", "calls", "publisher"]


class Door:
    """One worker's. Calls stand in its line from `enter` until they have `passed` to where their publisher is asked."""

    __slots__ = ("_calls", "line")

    def __init__(self, wait: float, calls: int) -> None:
        self.line = Line(wait)
        self._calls = calls

    def enter(self, call: object, inside: int, now: float) -> Reason | None:
        """Let a call in, with so many inside; or return why not."""
        if inside >= self._calls:
            return "calls"
        return None if self.line.enter(call, now) else "wait"


WHY = {
    "calls": "The gateway serves as many calls as it can hold.",
    "wait": "The gateway has more calls than it can serve in time.",
    "publisher": "More calls wait for a place at this publisher than get one in time.",
}


def overloaded(reason: Reason) -> Overloaded:
    """Return the refusal."""
    return Overloaded(f"{WHY[reason]} Nothing was done and you were not charged; try again shortly.")
