"""Calls that wait for one Valkey server: one batch at a time, and what becomes of them while it is away.

A call is put on a list; one drainer yields once to the loop, takes the whole list, asks Valkey once and resolves the
callers. The window is the previous batch's flight, so a lone caller does not wait for company and 64 callers share one
round trip. While the server is away nobody waits for a timeout: `alone` decides at once, and a background probe looks
for its return.

What does not live here: which server a call belongs to (limiter.py, cluster.py) and how it is decided (gcra.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import Unavailable
from gateway.limits.gcra import MAX_CALLS, Call, decide
from gateway.limits.policy import Check, Policy, Verdict
from gateway.limits.valkey import Valkey, ValkeyRefused, ValkeyUnavailable

log = logging.getLogger(__name__)
PROBE_SECONDS = 1.0
# The probe is a real check that writes: a full or read-only Valkey answers PING but cannot count.
PROBE_POLICY = Policy("probe", limit=1_000_000, window_seconds=60)


@dataclass(slots=True)
class Stats:
    """Counters since start, for metrics.

    `leased` are the calls that were admitted from leases alone, `unavailable` those that were decided without Valkey.
    """

    calls: int = 0
    leased: int = 0
    batches: int = 0
    refused: int = 0
    unavailable: int = 0


@dataclass(slots=True)
class Waiting:
    """A call with who waits for it, if anybody does. `moves` is how often it was sent on to another server."""

    future: asyncio.Future[Verdict] | None
    call: Call
    moves: int = 0


@dataclass(frozen=True, slots=True)
class Without:
    """What is done without Valkey: `decide` returns a verdict or raises Unavailable; `name` is the policy's."""

    name: str
    decide: Callable[[Call], Verdict]


class Lane:
    """One server's list and drainer. Before `start` the server counts as away."""

    def __init__(self, valkey: Valkey, stats: Stats, without: Without) -> None:
        self.valkey = valkey
        self._stats = stats
        self._without = without
        self._available = False
        self._waiting: list[Waiting] = []
        self._drainer: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        """Say whether the server decides at the moment."""
        return self._available

    async def start(self) -> None:
        """Look for the server once, at most for the connect and command timeouts. Its absence is logged, not raised."""
        try:
            await self.probe()
        except (ValkeyUnavailable, ValkeyRefused) as error:
            self._went_away(error)
        else:
            self._available = True

    async def stop(self) -> None:
        """Decide what still waits without the server and close the connection."""
        self._available = False
        for task in (self._prober, self._drainer):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._prober = self._drainer = None
        self._decide_alone(self._waiting)  # a drainer cancelled before its first step took nothing over
        self._waiting = []
        await self.valkey.close()

    async def check(self, call: Call) -> Verdict:
        """Decide one call. Raises errors.Unavailable only while the server is away and that is what `without` does."""
        if not self._available:
            return self._without.decide(call)
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.take([Waiting(future, call)])
        return await future

    def post(self, call: Call) -> None:
        """Send a call that nobody waits for. It is dropped when the server is away."""
        self.take([Waiting(None, call)])

    def take(self, items: list[Waiting]) -> None:
        """Put calls on the list, or decide them at once when the server is away."""
        if not self._available:
            self._decide_alone(items)
            return
        self._waiting += items
        if self._drainer is None:
            self._drainer = asyncio.create_task(self._drain())

    async def probe(self) -> None:
        """Connect and count something. Raises ValkeyUnavailable or ValkeyRefused."""
        await self.valkey.connect()
        check = Check(self._probed(), PROBE_POLICY)
        await decide(self.valkey, [Call((check,))])

    def _probed(self) -> str:
        """Return the principal that the probe counts."""
        return "probe"

    async def _drain(self) -> None:
        """Send what waits, batch after batch, until nothing does."""
        batch: list[Waiting] = []
        try:
            while self._waiting:
                await asyncio.sleep(0)  # everything that became ready in this turn shares the batch
                batch, self._waiting = self._waiting[:MAX_CALLS], self._waiting[MAX_CALLS:]
                batch = [item for item in batch if item.future is None or not item.future.cancelled()]
                if batch:
                    self._stats.batches += 1
                    await self._send(batch)
        except BaseException:
            # stop(), or a fault of ours: whatever it is, no caller may be left waiting for ever.
            stranded, self._waiting = batch + self._waiting, []
            self._decide_alone(stranded)
            raise
        finally:
            self._drainer = None

    async def _send(self, batch: list[Waiting]) -> None:
        """Decide one batch in Valkey. If that fails, it and all that came meanwhile are decided without."""
        try:
            verdicts = await decide(self.valkey, [item.call for item in batch])
        except (ValkeyUnavailable, ValkeyRefused) as error:
            self._lost(error, batch)
        else:
            self._resolve(batch, verdicts)

    def _lost(self, error: Exception, batch: list[Waiting]) -> None:
        self._went_away(error)
        stranded, self._waiting = batch + self._waiting, []
        self._decide_alone(stranded)

    def _resolve(self, batch: list[Waiting], verdicts: list[Verdict]) -> None:
        for item, verdict in zip(batch, verdicts, strict=True):
            if item.future is None:
                continue
            self._stats.refused += not verdict.allowed
            if not item.future.done():
                item.future.set_result(verdict)

    def _decide_alone(self, batch: list[Waiting]) -> None:
        for item in batch:
            if item.future is None or item.future.done():
                continue
            try:
                item.future.set_result(self._without.decide(item.call))
            except Unavailable as refusal:
                item.future.set_exception(refusal)

    def _went_away(self, error: Exception) -> None:
        self._available = False
        if self._prober is None:
            log.warning("rate limits: Valkey is away, policy %r holds: %s", self._without.name, error)
            self._prober = asyncio.create_task(self._await_return())

    async def _await_return(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            with contextlib.suppress(ValkeyUnavailable, ValkeyRefused):
                await self.probe()
                break
        self._available, self._prober = True, None
        log.warning("rate limits: Valkey is back at %s", self.valkey.address)
