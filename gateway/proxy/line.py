"""A line of calls that stays short enough for those in it to be served in time; who would make it longer is refused.

What tells is how long calls have waited, not how many do: ten thousand event streams are no load, and a thousand calls
are. One slow call is none of our business, nor is a burst; when for INTERVAL no call at all has come through in time,
there is a line that does not get shorter by itself. From then on so many may stand in it as came through in the time
that a call may wait, fewer after each such interval, and more with each call that is in time again, until for a while
nobody had to be refused.
"""

from __future__ import annotations

import math

INTERVAL = 0.25  # seconds for which nobody was in time before the line is bounded
SHORTER = 0.7
LONGER = 0.2  # places more with each call in time
FEW = 16  # may always stand there: somebody has to find out that it goes on
CALM = 5.0  # seconds without anybody refused after which there is no bound


class Line:
    """Calls stand in it from `enter` until they have `passed`, or leave. Times are seconds of one clock; a call may
    `wait` so long.
    """

    __slots__ = ("_late", "_late_since", "_places", "_refused", "_standing", "_wait")

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self._standing: set[object] = set()
        self._places = math.inf
        self._late_since: float | None = None
        self._late = 0  # how many have passed since then
        self._refused = 0.0

    @property
    def open(self) -> bool:
        """Return whether nobody has been late lately, so that who need not wait need not be noted."""
        return self._late_since is None and self._places == math.inf

    def full(self, now: float) -> bool:
        """Return whether nobody may join; then somebody is being refused."""
        if len(self._standing) < self._places:
            return False
        self._refused = now
        return True

    def enter(self, call: object, now: float) -> bool:
        """Let a call stand in line, and return whether there was a place."""
        if self.full(now):
            return False
        self._standing.add(call)
        return True

    def leave(self, call: object) -> None:
        """Note that a call has its end, whether or not it had passed, or waits elsewhere for a while."""
        self._standing.discard(call)

    def come_back(self, call: object) -> None:
        """Let a call that waited elsewhere stand in line again."""
        self._standing.add(call)

    def passed(self, call: object, waited: float, now: float) -> None:
        """Note that a call has come through, and for how long it had waited."""
        if waited <= self._wait:
            self._late_since = None
            calm = now - self._refused > CALM
            self._places = math.inf if calm else self._places + LONGER
        elif self._late_since is None:
            self._late_since, self._late = now, 0
        else:
            self._late += 1
            if now - self._late_since >= INTERVAL:
                self._shorten(now, self._late / (now - self._late_since))
        self._standing.discard(call)

    def _shorten(self, now: float, rate: float) -> None:
        """Bound the line to what is served in time at this rate, and in any case below what it is."""
        shorter = SHORTER * min(self._places, len(self._standing))
        self._places = max(FEW, min(rate * self._wait, shorter))
        self._late_since, self._late = now, 0
        self._refused = now
