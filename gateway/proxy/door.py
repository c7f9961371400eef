"""Who may come in: a worker that cannot keep up turns new calls away at once, so that those inside are served in time.

What tells is how long calls wait for the gateway itself: from their arrival to the end of their limit check, and for
the ledger. What they wait for elsewhere (a publisher, a place at one, a chain, a slow caller) says nothing about it and
is not counted. One slow call is none of our business, nor is a burst; when for INTERVAL no call at all has come through
in time, there is a line that does not get shorter by itself. From then on so many may stand in it, fewer after each
such interval and more with each call that is in time again, until for a while nobody had to be turned away.

The number of calls inside is bounded as well, for the memory that each takes. What does not live here: rate limits of
callers (limit.py), places at publishers (upstreams/turnstile.py).
"""

from __future__ import annotations

import math
from typing import Literal

from gateway.errors import Overloaded

INTERVAL = 0.5  # seconds for which nobody was in time before the line is bounded
SHORTER = 0.7
LONGER = 0.05  # places more with each call in time
FEW = 16  # may always stand there: somebody has to find out that it goes on
CALM = 5.0  # seconds without anybody turned away after which there is no bound
Reason = Literal["wait", "calls"]


class Door:
    """One worker's. Calls stand in line from `enter` until they have `passed` to where their publisher is asked, or
    leave. Times are seconds of one clock.
    """

    __slots__ = ("_calls", "_late_since", "_line", "_places", "_turned_away", "_wait")

    def __init__(self, wait: float, calls: int) -> None:
        self._wait = wait
        self._calls = calls
        self._line: set[object] = set()
        self._places = math.inf
        self._late_since: float | None = None
        self._turned_away = 0.0

    def enter(self, call: object, inside: int, now: float) -> Reason | None:
        """Let a call in, with so many inside; or return why not."""
        if inside >= self._calls:
            return "calls"
        if len(self._line) >= self._places:
            self._turned_away = now
            return "wait"
        self._line.add(call)
        return None

    def leave(self, call: object) -> None:
        """Note that a call has its end, whether or not it had passed."""
        self._line.discard(call)

    def passed(self, call: object, waited: float, now: float) -> None:
        """Note that a call has come through, and for how long it had waited for us."""
        if waited <= self._wait:
            self._late_since = None
            calm = now - self._turned_away > CALM
            self._places = math.inf if calm else self._places + LONGER
        elif self._late_since is None:
            self._late_since = now
        elif now - self._late_since >= INTERVAL:
            self._late_since = now
            self._places = max(FEW, SHORTER * min(self._places, len(self._line)))
            self._turned_away = now
        self._line.discard(call)


def overloaded(reason: Reason) -> Overloaded:
    """Return the refusal."""
    what = "serves as many calls as it can hold" if reason == "calls" else "has more calls than it can serve in time"
    return Overloaded(f"The gateway {what}. Nothing was done and you were not charged; try again shortly.")
