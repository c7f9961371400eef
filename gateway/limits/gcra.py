"""The script that decides in Valkey, and how calls travel to it.

One script call carries many calls of many callers; gcra.lua describes the arguments. Time is the server's, so workers
with different clocks agree. What does not live here: when to send (limiter.py) and how (valkey.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from gateway.limits.policy import Check, Verdict, whole_seconds
from gateway.limits.valkey import Argument, Valkey, ValkeyRefused, ValkeyUnavailable

SCRIPT = (Path(__file__).parent / "gcra.lua").read_bytes()
# EVALSHA names a script by its SHA-1: an address, not a protection.
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
# The script spreads its keys over Lua's stack (at most about 8,000): 512 calls of 8 checks stay well below.
MAX_CALLS = 512
MAX_CHECKS = 8

# What one call was answered: signed number of the deciding check, remaining, microseconds to retry and to reset.
Decision = tuple[int, int, int, int]
# Keys are encoded when a call arrives: a principal that cannot be encoded then fails alone, not its whole batch.
Call = tuple[Sequence[Check], Sequence[bytes]]


async def decide(
    valkey: Valkey, calls: Sequence[Call], now: int | None = None, *, asking: bool = False
) -> list[Verdict]:
    """Return one verdict per call, in order; later calls see what earlier ones consumed.

    `now` (microseconds) replaces the server's clock; only tests pass it. All keys go in one script call, which a
    Valkey *cluster* refuses when they live in different slots: there, call this once per slot. `asking` is for a node
    that is just being given the slot.
    """
    execute = valkey.ask if asking else valkey.execute
    try:
        reply = await execute(*command(calls, now))
    except ValkeyRefused as refusal:
        if refusal.code != "NOSCRIPT":
            raise
        # Valkey restarted or somebody flushed its scripts. EVAL also stores it for the next EVALSHA.
        reply = await execute(b"EVAL", SCRIPT, *arguments(calls, now))
    return verdicts(calls, reply)


def command(calls: Sequence[Call], now: int | None = None) -> tuple[Argument, ...]:
    """Return the command that decides calls by the script's name: refused with NOSCRIPT where it is unknown."""
    return b"EVALSHA", SHA, *arguments(calls, now)


def arguments(calls: Sequence[Call], now: int | None) -> list[Argument]:
    """Return the script's key count, keys and arguments."""
    keys: list[Argument] = []
    values: list[Argument] = []
    for checks, names in calls:
        keys += names
        for check in checks:
            values += (check.policy.interval, check.policy.tolerance, check.cost)
    sizes = bytes([len(checks) for checks, _ in calls])
    return [len(keys), *keys, b"" if now is None else now, sizes, *values]


def verdict_of(checks: Sequence[Check], decision: Decision) -> Verdict:
    """Put a decision in the caller's terms: the policy that decided, whole seconds."""
    number, remaining, retry, reset = decision
    policy = checks[abs(number) - 1].policy
    return Verdict(number > 0, policy, remaining, whole_seconds(retry), whole_seconds(reset))


def verdicts(calls: Sequence[Call], reply: object) -> list[Verdict]:
    """Read the script's answer. Raises ValkeyUnavailable when it is none."""
    if not isinstance(reply, list) or len(cast("list[int]", reply)) != 4 * len(calls):
        raise ValkeyUnavailable("the limit script answered something else than its verdicts")
    numbers = iter(cast("list[int]", reply))
    decisions = zip(numbers, numbers, numbers, numbers, strict=True)
    return [verdict_of(checks, decision) for (checks, _), decision in zip(calls, decisions, strict=True)]
