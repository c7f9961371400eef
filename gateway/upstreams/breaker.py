"""A circuit breaker: after repeated failures an upstream is left alone for a while, then tried by one call.

Pure state; the clock is an argument and who asks acts on the answers. One breaker per publisher's server and worker:
not shared between publishers, because each chooses its own timeouts and one could close another's till. Failures that
a request may provoke (no answer in time, a broken one) count only while no call of anybody succeeds, so that one caller
cannot shut out the others of a server that works; failures to connect are nobody's fault and count by share as well.

    CLOSED -> (failures) -> OPEN -> (after a wait) -> HALF_OPEN -> (success) -> CLOSED
                             ^                           | (failure: the wait doubles)
                             +---------------------------+
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class State(enum.Enum):
    """What the breaker lets through: all, none, or one."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


CLOSED, OPEN, HALF_OPEN = State


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to open: `failures` in a row, or `percent` of at least `calls` within `window` seconds.

    It stays open for `wait` seconds, doubled after each failed try up to `longest`. `failures` 0: never.
    """

    failures: int
    percent: int
    calls: int
    window: float
    wait: float
    longest: float


class Breaker:
    """See the module. `changed` is told of every new state."""

    __slots__ = (
        "_by_share",
        "_calls",
        "_changed",
        "_failed",
        "_in_a_row",
        "_opens",
        "_policy",
        "_wait",
        "_window",
        "probe",
        "state",
    )

    def __init__(self, policy: BreakerPolicy, changed: Callable[[State], None]) -> None:
        self._policy, self._changed = policy, changed
        self.state = CLOSED
        self.probe: object = None  # the call that tries, while HALF_OPEN
        self._in_a_row = self._calls = self._failed = 0
        self._window = self._opens = 0.0
        self._wait = policy.wait
        self._by_share = False

    @property
    def watching(self) -> bool:
        """Whether a success would change anything: there were failures lately. False is the common case."""
        return self._window > 0

    def admit(self, call: object, now: float) -> float:
        """Let a call pass (0.0) or return in how many seconds to ask again. A call that passes may be the probe."""
        if self.state is CLOSED:
            return 0.0
        if self.state is OPEN:
            if now < self._opens:
                return self._opens - now
            self._to(HALF_OPEN)
        if self.probe is not None:
            return min(self._policy.wait, 1.0)
        self.probe = call
        return 0.0

    def abandon(self, call: object) -> None:
        """Say that a call ended without showing anything of the upstream; the next one may be the probe."""
        if self.probe is call:
            self.probe = None

    def succeeded(self, now: float) -> None:
        """Note an answer, whatever its status: the server is there."""
        self._in_a_row = 0
        if self.state is OPEN and self._by_share:
            return  # a call from before: that some connections succeed is what the share had said
        if self.state is not CLOSED:
            self._reset()
            self._to(CLOSED)
        elif now >= self._window:
            self._reset()
        else:
            self._calls += 1

    def failed(self, call: object, now: float, *, provoked: bool) -> None:
        """Note a call without an answer. `provoked`: the request may have been the cause."""
        if self._policy.failures == 0 or self.state is OPEN:
            return
        if self.state is HALF_OPEN:
            if self.probe is call:
                self._wait = min(self._wait * 2, self._policy.longest)
                self._open(now)
            return
        if now >= self._window:
            self._calls = self._failed = 0
            self._window = now + self._policy.window
        self._in_a_row += 1
        self._calls += 1
        self._failed += not provoked
        self._by_share = self._too_many()
        if self._by_share or self._in_a_row >= self._policy.failures:
            self._open(now)

    def _too_many(self) -> bool:
        return self._calls >= self._policy.calls and self._failed * 100 >= self._policy.percent * self._calls

    def _open(self, now: float) -> None:
        self._opens = now + self._wait
        self._to(OPEN)

    def _reset(self) -> None:
        self._in_a_row = self._calls = self._failed = 0
        self._window = 0.0
        self._wait = self._policy.wait

    def _to(self, state: State) -> None:
        self.state = state
        self.probe = None
        self._changed(state)
