"""Admission control: whether a new call may come in. A worker that cannot keep up refuses some of them.

Calls are refused when they wait too long for the gateway itself (load_shedding.py): from their arrival to the end of
their limit check, and for the ledger. What they wait for elsewhere (a publisher, a chain, a slow caller) says nothing
about the gateway and does not count; a publisher's places have a queue of their own (destination.py). A call arrives
when its bytes do, which is before the event loop looks at it, so the loop's lag (loop_lag.py) is counted with it.

The number of calls inside is limited as well, for the memory that each takes. What does not live here: rate limits of
callers (limit.py), places at publishers (upstreams/turnstile.py).
"""

from __future__ import annotations

from typing import Literal

from gateway.errors import Overloaded
from gateway.proxy.load_shedding import Shedder

Reason = Literal["wait", "calls", "publisher"]


class Admission:
    """One worker's. Calls are in its queue from `enter` until they have `passed` to where their publisher is asked."""

    __slots__ = ("_calls", "shedder")

    def __init__(self, target: float, calls: int) -> None:
        self.shedder = Shedder(target)
        self._calls = calls

    def is_full(self, inside: int) -> bool:
        """Say whether a call would be refused now, with so many inside. Nothing is noted."""
        return inside >= self._calls or self.shedder.is_full

    def refuse(self, inside: int, now: float) -> Reason:
        """Note that a call is refused because this is full; return why."""
        self.shedder.full(now)
        return "calls" if inside >= self._calls else "wait"

    def enter(self, call: object, inside: int, now: float) -> Reason | None:
        """Admit a call, with so many inside; or return why not."""
        if inside >= self._calls:
            return "calls"
        return None if self.shedder.enter(call, now) else "wait"


WHY = {
    "calls": "The gateway serves as many calls as it can hold.",
    "wait": "The gateway has more calls than it can serve in time.",
    "publisher": "More calls wait for a place at this publisher than get one in time.",
}


def overloaded(reason: Reason) -> Overloaded:
    """Return the refusal."""
    return Overloaded(f"{WHY[reason]} Nothing was done and you were not charged; try again shortly.")
