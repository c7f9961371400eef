"""The one door to rate limits: checks in, verdicts out, by Valkey as long as it is there.

While it is away, or a node of a cluster is, `limits.when_unavailable` decides at once; the log has one line for each
way. What does not live here: which limits apply to whom (callers build `Check`s), how calls travel (lane.py, and
cluster.py where there are several servers), and the answer 429 (the proxy's).
"""

from __future__ import annotations

from gateway.errors import Unavailable
from gateway.limits.cluster import Cluster
from gateway.limits.gcra import MAX_CHECKS, Call, verdict_of
from gateway.limits.lane import Lane, Stats, Without
from gateway.limits.local import LocalGcra
from gateway.limits.policy import Check, Policy, Verdict, headers
from gateway.limits.valkey import Valkey
from gateway.settings import LimitSettings, RedisSettings

__all__ = ["Check", "Policy", "RateLimiter", "Stats", "Verdict", "headers"]


class RateLimiter:
    """Decides checks in Valkey, or by `limits.when_unavailable` while it is away.

    Works without `start` too (then Valkey counts as away). One instance serves one event loop.
    """

    def __init__(self, redis: RedisSettings, limits: LimitSettings, *, workers: int) -> None:
        self.stats = Stats()
        self._when_unavailable = limits.when_unavailable
        self._local = LocalGcra(workers)
        without = Without(limits.when_unavailable, self._alone)
        self._store = (
            Cluster(redis, self.stats, without) if redis.clustered else Lane(Valkey(redis), self.stats, without)
        )

    @property
    def available(self) -> bool:
        """Say whether Valkey decides everything at the moment."""
        return self._store.available

    async def start(self) -> None:
        """Look for Valkey once, at most for the connect and command timeouts. Its absence is logged, not raised."""
        await self._store.start()

    async def stop(self) -> None:
        """Decide what still waits without Valkey and close the connections."""
        await self._store.stop()

    async def check(self, *checks: Check) -> Verdict:
        """Decide all checks of one call together: every policy consumes, or none does.

        Raises errors.Unavailable only while Valkey is away and `when_unavailable` is "deny".
        """
        call = checks, _keys(checks)
        self.stats.calls += 1
        return await self._store.check(call)

    def _alone(self, call: Call) -> Verdict:
        """Decide without Valkey, as configured."""
        self.stats.unavailable += 1
        checks = call[0]
        if self._when_unavailable == "deny":
            self.stats.refused += 1
            raise Unavailable("The rate limiter cannot answer now. Nothing was done; try again shortly.")
        if self._when_unavailable == "allow":
            policy = min((check.policy for check in checks), key=lambda policy: policy.capacity)
            return Verdict(True, policy, policy.capacity, 0, 0)
        verdict = verdict_of(checks, self._local.decide(call))
        self.stats.refused += not verdict.allowed
        return verdict


def _keys(checks: tuple[Check, ...]) -> tuple[bytes, ...]:
    """Refuse what no policy could ever decide, where the mistake is, and return the checks' keys."""
    if not 0 < len(checks) <= MAX_CHECKS:
        raise ValueError(f"a call needs 1 to {MAX_CHECKS} checks")
    for check in checks:
        if not 0 <= check.cost <= check.policy.capacity:
            raise ValueError(f"policy {check.policy.name} can never pass a cost of {check.cost}")
    return tuple([check.key() for check in checks])
