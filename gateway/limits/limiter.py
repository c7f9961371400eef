"""The one door to rate limits: many callers' checks, one script call at a time.

A check is put on a list; one drainer yields once to the loop, takes the whole list, asks Valkey once and resolves the
callers. The window is the previous batch's flight, so a lone caller does not wait for company and 64 callers share one
round trip. While Valkey is away `limits.when_unavailable` decides at once: nobody on the hot path waits for a connect
timeout, a background probe looks for its return, and the log has one line for each way.

What does not live here: which limits apply to whom (callers build `Check`s), and the answer 429 (the proxy's).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from gateway.errors import Unavailable
from gateway.limits.gcra import MAX_CALLS, MAX_CHECKS, Call, decide, verdict_of
from gateway.limits.local import LocalGcra
from gateway.limits.policy import Check, Policy, Verdict, headers
from gateway.limits.valkey import Valkey, ValkeyRefused, ValkeyUnavailable
from gateway.settings import LimitSettings, RedisSettings

__all__ = ["Check", "Policy", "RateLimiter", "Stats", "Verdict", "headers"]

log = logging.getLogger(__name__)
PROBE_SECONDS = 1.0
# The probe is a real check that writes: a full or read-only Valkey answers PING but cannot count.
_PROBE = Check("probe", Policy("probe", limit=1_000_000, window_seconds=60))


@dataclass(slots=True)
class Stats:
    """Counters since start, for metrics. `unavailable` are the calls that were decided without Valkey."""

    calls: int = 0
    batches: int = 0
    refused: int = 0
    unavailable: int = 0


_Waiting = tuple[asyncio.Future[Verdict], Call]


class RateLimiter:
    """Decides checks in Valkey, or by `limits.when_unavailable` while it is away.

    Works without `start` too (then Valkey counts as away). One instance serves one event loop. All keys of a batch go
    in one script call: with a Valkey cluster, split the batch by slot first (gcra.decide says what shares one).
    """

    def __init__(self, redis: RedisSettings, limits: LimitSettings, *, workers: int) -> None:
        self.stats = Stats()
        self._valkey = Valkey(redis)
        self._when_unavailable = limits.when_unavailable
        self._local = LocalGcra(workers)
        self._available = False
        self._waiting: list[_Waiting] = []
        self._drainer: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        """Say whether Valkey decides at the moment."""
        return self._available

    async def start(self) -> None:
        """Look for Valkey once, at most for the connect and command timeouts. Its absence is logged, not raised."""
        try:
            await self._probe()
        except (ValkeyUnavailable, ValkeyRefused) as error:
            self._went_away(error)
        else:
            self._available = True

    async def stop(self) -> None:
        """Decide what still waits without Valkey and close the connection."""
        self._available = False
        for task in (self._prober, self._drainer):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._prober = self._drainer = None
        self._decide_alone(self._waiting)  # a drainer cancelled before its first step took nothing over
        self._waiting = []
        await self._valkey.close()

    async def check(self, *checks: Check) -> Verdict:
        """Decide all checks of one call together: every policy consumes, or none does.

        Raises errors.Unavailable only while Valkey is away and `when_unavailable` is "deny".
        """
        call = checks, _keys(checks)
        self.stats.calls += 1
        if not self._available:
            return self._alone(call)
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, call))
        if self._drainer is None:
            self._drainer = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        """Send what waits, batch after batch, until nothing does."""
        batch: list[_Waiting] = []
        try:
            while self._waiting:
                await asyncio.sleep(0)  # everything that became ready in this turn shares the batch
                batch, self._waiting = self._waiting[:MAX_CALLS], self._waiting[MAX_CALLS:]
                batch = [item for item in batch if not item[0].cancelled()]
                if batch:
                    await self._send(batch)
        except BaseException:
            # stop(), or a fault of ours: whatever it is, no caller may be left waiting for ever.
            stranded, self._waiting = batch + self._waiting, []
            self._decide_alone(stranded)
            raise
        finally:
            self._drainer = None

    async def _send(self, batch: list[_Waiting]) -> None:
        """Decide one batch in Valkey. If that fails, it and all that came meanwhile are decided without."""
        self.stats.batches += 1
        try:
            verdicts = await decide(self._valkey, [call for _, call in batch])
        except (ValkeyUnavailable, ValkeyRefused) as error:
            self._went_away(error)
            stranded, self._waiting = batch + self._waiting, []
            self._decide_alone(stranded)
            return
        for (future, _), verdict in zip(batch, verdicts, strict=True):
            self.stats.refused += not verdict.allowed
            if not future.done():
                future.set_result(verdict)

    def _decide_alone(self, batch: list[_Waiting]) -> None:
        for future, call in batch:
            if future.done():
                continue
            try:
                future.set_result(self._alone(call))
            except Unavailable as refusal:
                future.set_exception(refusal)

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

    def _went_away(self, error: Exception) -> None:
        self._available = False
        if self._prober is None:
            log.warning("rate limits: Valkey is away, policy %r holds: %s", self._when_unavailable, error)
            self._prober = asyncio.create_task(self._await_return())

    async def _await_return(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            with contextlib.suppress(ValkeyUnavailable, ValkeyRefused):
                await self._probe()
                break
        self._available, self._prober = True, None
        log.warning("rate limits: Valkey is back at %s", self._valkey.address)

    async def _probe(self) -> None:
        await self._valkey.connect()
        await decide(self._valkey, [((_PROBE,), (_PROBE.key(),))])


def _keys(checks: tuple[Check, ...]) -> tuple[bytes, ...]:
    """Refuse what no policy could ever decide, where the mistake is, and return the checks' keys."""
    if not 0 < len(checks) <= MAX_CHECKS:
        raise ValueError(f"a call needs 1 to {MAX_CHECKS} checks")
    for check in checks:
        if not 0 <= check.cost <= check.policy.capacity:
            raise ValueError(f"policy {check.policy.name} can never pass a cost of {check.cost}")
    return tuple([check.key() for check in checks])
