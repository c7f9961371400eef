"""The one door to rate limits: checks in, verdicts out, by Valkey as long as it is there.

`check` always asks. Callers that come often use `spend`, which admits calls at once from what Valkey has leased to this
worker (lease.py), and `lease` where that says nothing. While Valkey is away, or a node of a cluster is,
`limits.when_unavailable` decides; the log has one line for each way. What does not live here: which limits apply to
whom (callers build `Check`s), how calls travel (lane.py, and cluster.py where there are several servers), and the
answer 429 (the proxy's).
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.errors import Unavailable
from gateway.limits.cluster import Cluster
from gateway.limits.gcra import MAX_CHECKS, Call, verdict_of
from gateway.limits.lane import Lane, Stats, Without
from gateway.limits.lease import Leases, give_back
from gateway.limits.local import LocalGcra
from gateway.limits.policy import Check, Policy, Verdict, combined, headers
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
        self._leases = Leases(self._store.post)

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
        _demand_possible(checks)
        self.stats.calls += 1
        return await self._store.check(Call(checks))

    def spend(self, checks: Sequence[Check]) -> Verdict | None:
        """Admit a call from leases alone, without waiting. None: they do not cover it, call `lease`.

        Every check has a key of its own and costs at least 1.
        """
        verdict = self._leases.spend(checks)
        if verdict is not None:
            self.stats.calls += 1
            self.stats.leased += 1
        return verdict

    async def lease(self, checks: Sequence[Check]) -> Verdict:
        """Decide as `check` does what `spend` did not, and lease more where calls come often."""
        _demand_possible(checks)
        self.stats.calls += 1
        call, spent = self._leases.ask(checks)
        if not spent:
            return await self._store.check(call)
        own = self._leases.verdict(spent)
        if not call.checks:  # a lease has come since `spend` was tried
            self.stats.leased += 1
            return own
        allowed = False
        try:
            verdict = await self._store.check(call)
            allowed = verdict.allowed
        finally:
            if not allowed:
                give_back(spent)
        return combined(own, verdict) if allowed else verdict

    def _alone(self, call: Call) -> Verdict:
        """Decide without Valkey, as configured."""
        self.stats.unavailable += 1
        checks = call.checks
        if self._when_unavailable == "deny":
            self.stats.refused += 1
            raise Unavailable("The rate limiter cannot answer now. Nothing was done; try again shortly.")
        if self._when_unavailable == "allow":
            policy = min((check.policy for check in checks), key=lambda policy: policy.capacity)
            return Verdict(True, policy, policy.capacity, 0, 0)
        verdict = verdict_of(checks, self._local.decide(call))
        self.stats.refused += not verdict.allowed
        return verdict


def _demand_possible(checks: Sequence[Check]) -> None:
    """Refuse what no policy could ever decide, where the mistake is. Raises ValueError."""
    if not 0 < len(checks) <= MAX_CHECKS:
        raise ValueError(f"a call needs 1 to {MAX_CHECKS} checks")
    for check in checks:
        if not 0 <= check.cost <= check.policy.capacity:
            raise ValueError(f"policy {check.policy.name} can never pass a cost of {check.cost}")
