"""Whether the database's clock runs as ours does: a clock that was set tells nothing about how long others were silent.

Measured against the monotonic clock of this host, which nobody sets. What does not live here: the host's own wall clock
(ids.Clock) and what follows from a step (heartbeat.py).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

STEP_SECONDS = 1.0
"""What is less is the time that a statement takes, or a clock that is being corrected in small steps."""


class DatabaseClock:
    """Compares each time that the database says with the ones before.

    The database says its time somewhere between the moment a statement is sent and the moment its answer is there. So
    how far its clock is ahead of our monotonic one is known between two bounds.
    """

    def __init__(self) -> None:
        self._bounds: tuple[float, float] | None = None

    def hear(self, said: datetime, sent: float, received: float) -> float:
        """Note what it says; `sent` and `received` are of time.monotonic(). Returns by how many seconds it was set."""
        moment = said.timestamp()
        low, high = moment - received, moment - sent
        before, self._bounds = self._bounds, (low, high)
        if before is None:
            return 0.0
        forward, back = low - before[1], high - before[0]
        if forward > STEP_SECONDS:
            return forward
        return back if back < -STEP_SECONDS else 0.0

    def expected(self) -> datetime | None:
        """Return what it should say now; None before it has said anything."""
        if self._bounds is None:
            return None
        return datetime.fromtimestamp(time.monotonic() + sum(self._bounds) / 2, UTC)

    def difference(self) -> timedelta | None:
        """Return how far this host's wall clock is ahead of it; None before it has said anything."""
        expected = self.expected()
        return None if expected is None else datetime.now(UTC) - expected
