"""The lag of the event loop: what arrives during one of its turns waits for its end before anybody looks at it.

No call can tell when its bytes arrived, for it begins when the loop comes to it. So a timer looks how late it is.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

EVERY = 0.02
TICK = 0.002  # how exact the loop's timers are


class LoopLag:
    """One loop's. `lag` is how long what has just begun has waited for its turn, in seconds."""

    __slots__ = ("_due", "_timer", "lag")

    def __init__(self) -> None:
        self.lag = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look from now on, until `stop`."""
        self._due = perf_counter() + EVERY
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self.lag = max(perf_counter() - self._due - TICK, 0.0)
        self.watch()
