"""GCRA inside one worker: what limits while Valkey is away.

Decides exactly as gcra.lua does (a property test holds the two together), on this process's share of each policy: a
principal's calls spread over the workers, so each worker grants limit / workers. It is an approximation: a caller whose
connection sticks to one worker gets less than its limit, never more. State is bounded: past `capacity` keys the least
recently used is forgotten, so a flood of addresses costs accuracy, not memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from gateway.limits.gcra import Call, Decision, choose, microseconds
from gateway.limits.policy import Check

CAPACITY = 65_536


class LocalGcra:
    """Theoretical arrival times of recently seen keys, in microseconds."""

    def __init__(self, workers: int, *, capacity: int = CAPACITY, clock: Callable[[], int] = microseconds) -> None:
        self._workers = workers
        self._capacity = capacity
        self._clock = clock
        self._arrivals: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrivals)

    def decide(self, call: Call) -> Decision:
        """Decide one call: all of its checks pass and consume, or none does."""
        now = self._clock()
        before: list[tuple[bytes, int]] = []
        decisions: list[Decision] = []
        for number, check in enumerate(call.checks, start=1):
            base, decision = self._try(check, number, now)
            before.append((check.key, base))
            decisions.append(decision)
        chosen = choose(iter(decisions))
        if chosen[0] < 0:
            for key, base in reversed(before):
                self._arrivals[key] = base
        while len(self._arrivals) > self._capacity:
            self._arrivals.popitem(last=False)
        return chosen

    def _try(self, check: Check, number: int, now: int) -> tuple[int, Decision]:
        """Consume for one check if it fits. Returns the arrival time before it, and the decision."""
        interval, tolerance = self._share(check)
        key = check.key
        before, need = self._arrivals.get(key, 0), interval * max(check.cost, 1)
        if before > now + tolerance:  # the clock went back: nobody knows what is used
            before = now
        base = max(before, now)
        fits = base + need - now <= tolerance
        if fits and check.cost > 0:
            base += need
        self._arrivals[key] = base if fits and check.cost > 0 else before
        self._arrivals.move_to_end(key)
        left = (now + tolerance - base) // interval
        wait = max(base + need - tolerance - now, 0)
        return before, (number if fits else -number, left, wait, base - now)

    def _share(self, check: Check) -> tuple[int, int]:
        """Return this worker's interval and tolerance. A burst smaller than the call's cost would never let it pass."""
        interval = check.policy.interval * self._workers
        burst = max(check.policy.capacity // self._workers, check.cost, 1)
        return interval, interval * burst
