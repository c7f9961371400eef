"""The words of rate limiting: a policy, a check against it and the verdict.

Pure data with its arithmetic. All times inside are integer microseconds: floats drift, and a limiter that drifts lets
one call too many through or answers a Retry-After after which the call is refused again. What does not live here:
state (gcra.lua, lease.py, local.py) and the choice of limits (settings, catalog).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

MICROSECONDS = 1_000_000
# Lua numbers are doubles: the clock (1.8e15) plus a tolerance has to stay below 2**53 to be an exact integer.
MAX_TOLERANCE = 2**51
# No "}" in a name: the last "}:" of a key then always ends the principal, so two checks never share a key by accident.
MAX_NAME = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Policy:
    """`limit` per `window_seconds`, of which `burst` (default: all) may come at once.

    The emission interval is rounded up to a whole microsecond, so the long-run rate is never above what was promised;
    it is below by at most limit / window microseconds (0.1 % at 70,000 a minute).
    """

    name: str
    limit: int
    window_seconds: int
    burst: int | None = None
    interval: int = field(init=False, repr=False, compare=False)
    tolerance: int = field(init=False, repr=False, compare=False)
    key_suffix: bytes = field(init=False, repr=False, compare=False)
    header: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Derive what the hot path needs once, and refuse numbers that cannot be computed exactly."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"policy name {self.name!r}: use a-z 0-9 _ . - and at most 64 characters")
        if min(self.limit, self.window_seconds, self.capacity) < 1:
            raise ValueError(f"policy {self.name}: limit, window and burst must be at least 1")
        interval = -(-self.window_seconds * MICROSECONDS // self.limit)
        if interval * self.capacity > MAX_TOLERANCE:
            raise ValueError(f"policy {self.name}: the burst spans more than 71 years")
        put = object.__setattr__
        put(self, "interval", interval)
        put(self, "tolerance", interval * self.capacity)
        put(self, "key_suffix", b"}:" + self.name.encode())
        put(self, "header", f'"{self.name}";q={self.limit};w={self.window_seconds}'.encode())

    def __hash__(self) -> int:
        """Return a hash that costs less than that of all fields: policies are looked up by each call."""
        return hash(self.name)

    @property
    def capacity(self) -> int:
        """Return how many calls may come at once."""
        return self.limit if self.burst is None else self.burst


@dataclass(frozen=True, slots=True)
class Check:
    """One policy applied to one principal. `principal` is an id or address of ours, never raw caller input.

    `cost` 0 only looks: it is allowed when a call of cost 1 would be, and consumes nothing. `key` names the state in
    Valkey; its braces make all policies of a principal share one cluster slot.
    """

    principal: str
    policy: Policy
    cost: int = 1
    key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Encode the key once. A principal that cannot be encoded fails here, before it joins a batch."""
        object.__setattr__(self, "key", b"tw:{" + self.principal.encode() + self.policy.key_suffix)


class Verdict(NamedTuple):
    """What the limiter decided for all checks of one call together.

    `policy` is the refusing one (with the longest wait) or, when allowed, the one with the least left. The times are
    whole seconds, rounded up: `retry_after` until the same call passes (0: now), `reset_after` until nothing is used.
    """

    allowed: bool
    policy: Policy
    remaining: int
    retry_after: int
    reset_after: int


def combined(one: Verdict, other: Verdict) -> Verdict:
    """Return the verdict of two parts of a call that both passed: that of the tighter limit."""
    return min(one, other, key=lambda verdict: (verdict.remaining, -verdict.retry_after))


def whole_seconds(microseconds: int) -> int:
    """Round up: a caller that waits this long must not come a fraction too early (EX-37)."""
    return -(-microseconds // MICROSECONDS)


def headers(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    """Return RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10) for an answer.

    `t` is when more becomes available: the wait while nothing is left, otherwise the time to a full quota.
    """
    policy = verdict.policy
    reset = verdict.retry_after or verdict.reset_after
    return [
        (b"ratelimit-policy", policy.header),
        (b"ratelimit", b'"%b";r=%d;t=%d' % (policy.name.encode(), verdict.remaining, reset)),
    ]
