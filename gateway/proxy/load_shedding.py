"""Load shedding: refuse new calls while those inside wait longer than they should (CoDel's signal, an AIMD bound).

What tells overload is the **sojourn time**, how long calls have waited in the queue, not how many they are: ten
thousand event streams are no load, and a thousand calls are. As in CoDel (RFC 8289) one slow call or a burst changes
nothing; only when for a whole **interval** no call has come through within the **target** is there a standing queue.

What differs from CoDel: it drops packets at the head of a queue, at a growing pace. Here a call at the head has been
worked for already, and refusing it would waste that. So new calls are refused, by a concurrency limit: as many may be
in the queue as come through within the target (Little's law), fewer after each interval that is late again
(multiplicative decrease), more with each call that is in time (additive increase), and any number when nobody was
refused for a while.
"""

from __future__ import annotations

import math

INTERVAL = 0.25  # CoDel's: seconds for which every sojourn is above the target before the queue is bounded
DECREASE = 0.7
INCREASE = 0.2  # for each call in time
LEAST = 16  # may always be in the queue: somebody has to find out that it moves again
CALM = 5.0  # seconds without a refusal after which there is no bound


class Shedder:
    """The queue of calls that wait for the gateway or for a publisher, from `enter` until they `passed` or left.

    Times are seconds of one clock; `target` is CoDel's, the sojourn time that is acceptable.
    """

    __slots__ = ("_above", "_above_since", "_limit", "_queue", "_refused", "_target")

    def __init__(self, target: float) -> None:
        self._target = target
        self._queue: set[object] = set()
        self._limit = math.inf
        self._above_since: float | None = None
        self._above = 0  # how many have passed since then
        self._refused = 0.0

    @property
    def calm(self) -> bool:
        """Return whether nobody has been late lately, so that a call that need not wait need not be noted."""
        return self._above_since is None and self._limit == math.inf

    @property
    def is_full(self) -> bool:
        """Return whether new calls are refused."""
        return len(self._queue) >= self._limit

    def full(self, now: float) -> bool:
        """Return whether new calls are refused; then one is being refused."""
        full = self.is_full
        if full:
            self._refused = now
        return full

    def enter(self, call: object, now: float) -> bool:
        """Put a call in the queue, and return whether it was admitted."""
        if self.full(now):
            return False
        self._queue.add(call)
        return True

    def leave(self, call: object) -> None:
        """Note that a call has its end, whether or not it had passed, or waits elsewhere for a while."""
        self._queue.discard(call)

    def come_back(self, call: object) -> None:
        """Put a call that waited elsewhere in the queue again."""
        self._queue.add(call)

    def passed(self, call: object, sojourn: float, now: float) -> None:
        """Note that a call has come through, and how long it had waited."""
        if sojourn <= self._target:
            self._above_since = None
            calm = now - self._refused > CALM
            self._limit = math.inf if calm else self._limit + INCREASE
        elif self._above_since is None:
            self._above_since, self._above = now, 0
        else:
            self._above += 1
            if now - self._above_since >= INTERVAL:
                self._shorten(now, self._above / (now - self._above_since))
        self._queue.discard(call)

    def _shorten(self, now: float, rate: float) -> None:
        """Bound the queue to what is served within the target at this rate, and in any case below what it is."""
        shorter = DECREASE * min(self._limit, len(self._queue))
        self._limit = max(LEAST, min(rate * self._target, shorter))
        self._above_since, self._above = now, 0
        self._refused = now
