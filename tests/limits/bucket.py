"""gcra.lua once more, in Python and slowly: what Valkey answers to calls that would lease."""

from __future__ import annotations

from gateway.limits.gcra import Call
from gateway.limits.lease import LIFE

SHARE = 50


class Bucket:
    """Theoretical arrival times by key, in microseconds."""

    def __init__(self) -> None:
        self.tat: dict[bytes, int] = {}

    def decide(self, call: Call, now: int) -> list[int]:
        """Return the script's two numbers for each check of a call."""
        tried, counts = dict(self.tat), list[int]()
        for check in call.checks:
            policy = check.policy
            base, need = max(tried.get(check.key, 0), now), policy.interval * max(check.cost, 1)
            if base > now + policy.tolerance:  # the clock went back: nobody knows what is used
                base = now
            fits = base + need - now <= policy.tolerance
            tried[check.key] = base + policy.interval * check.cost if fits else base
            counts += [0 if fits else -1, tried[check.key] - now]
        if min(counts[::2]) < 0:
            return counts
        for index, want in enumerate(call.wants):
            check = call.checks[index]
            if want:
                left = (now + check.policy.tolerance - tried[check.key]) // check.policy.interval
                lasting = (now + LIFE - tried[check.key]) // check.policy.interval
                counts[2 * index] = min(max(want, lasting), left // SHARE)
                tried[check.key] += counts[2 * index] * check.policy.interval
        self.tat = tried
        return counts

    def left(self, key: bytes, interval: int, tolerance: int, now: int) -> int:
        """Return how many calls of cost 1 would pass at once."""
        return (now + tolerance - max(self.tat.get(key, 0), now)) // interval
