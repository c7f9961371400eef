"""The script that decides in Valkey, and how calls travel to it.

One script call carries many calls of many callers; gcra.lua describes the arguments. Time is the server's, so workers
with different clocks agree. What does not live here: when to send (limiter.py) and how (valkey.py).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from gateway.limits.policy import Check, Verdict, whole_seconds
from gateway.limits.valkey import Argument, Valkey, ValkeyRefused, ValkeyUnavailable

SCRIPT = (Path(__file__).parent / "gcra.lua").read_bytes()
# EVALSHA names a script by its SHA-1: an address, not a protection.
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
# The script spreads its keys over Lua's stack (at most about 8,000): 512 calls of 8 checks stay well below.
MAX_CALLS = 512
MAX_CHECKS = 8

# What decides a call: signed number of the deciding check, remaining, microseconds to retry and to reset.
Decision = tuple[int, int, int, int]


class Reply(NamedTuple):
    """What the script answered to one call. Times are microseconds.

    `counts` has two numbers per check: how many calls were leased beyond this one, or -1 where the check does not fit;
    and the time from now until nothing is used, this call included and the leased ones not. `clock` is Valkey's, `sent`
    is ours when the script call left.
    """

    sent: int
    clock: int
    counts: Sequence[int]


class Call(NamedTuple):
    """The checks of one call, which pass together or not at all.

    `wants` says how many more calls each check would lease (lease.py), `granted` hears the answer.
    """

    checks: Sequence[Check]
    wants: Sequence[int] = ()
    granted: Callable[[Call, Reply], None] | None = None


async def decide(
    valkey: Valkey, calls: Sequence[Call], now: int | None = None, *, asking: bool = False
) -> list[Verdict]:
    """Return one verdict per call, in order; later calls see what earlier ones consumed.

    `now` (microseconds) replaces the server's clock; only tests pass it. All keys go in one script call, which a
    Valkey *cluster* refuses when they live in different slots: there, call this once per slot. `asking` is for a node
    that is just being given the slot.
    """
    execute, sent = valkey.ask if asking else valkey.execute, microseconds()
    try:
        reply = await execute(*command(calls, now))
    except ValkeyRefused as refusal:
        if refusal.code != "NOSCRIPT":
            raise
        # Valkey restarted or somebody flushed its scripts. EVAL also stores it for the next EVALSHA.
        reply = await execute(b"EVAL", SCRIPT, *arguments(calls, now))
    return verdicts(calls, reply, sent)


def microseconds() -> int:
    """Return a clock that no administrator sets back."""
    return time.monotonic_ns() // 1_000


def command(calls: Sequence[Call], now: int | None = None) -> tuple[Argument, ...]:
    """Return the command that decides calls by the script's name: refused with NOSCRIPT where it is unknown."""
    return b"EVALSHA", SHA, *arguments(calls, now)


def arguments(calls: Sequence[Call], now: int | None) -> list[Argument]:
    """Return the script's key count, keys and arguments."""
    keys: list[Argument] = []
    values: list[Argument] = []
    for call in calls:
        wants = call.wants or (0,) * len(call.checks)
        for check, want in zip(call.checks, wants, strict=True):
            keys.append(check.key)
            values += (check.policy.interval, check.policy.tolerance, check.cost, want)
    sizes = bytes([len(call.checks) for call in calls])
    return [len(keys), *keys, b"" if now is None else now, sizes, *values]


def choose(decisions: Iterator[Decision]) -> Decision:
    """Return the decision that speaks for a call: the refusal with the longest wait, else what leaves the least."""
    chosen = next(decisions)
    for decision in decisions:
        if chosen[0] < 0:
            worse = decision[0] < 0 and decision[2] > chosen[2]
        else:
            worse = decision[0] < 0 or (decision[1], -decision[2]) < (chosen[1], -chosen[2])
        if worse:
            chosen = decision
    return chosen


def verdict_of(checks: Sequence[Check], decision: Decision) -> Verdict:
    """Put a decision in the caller's terms: the policy that decided, whole seconds."""
    number, remaining, retry, reset = decision
    policy = checks[abs(number) - 1].policy
    return Verdict(number > 0, policy, remaining, whole_seconds(retry), whole_seconds(reset))


def verdicts(calls: Sequence[Call], reply: object, sent: int) -> list[Verdict]:
    """Read the script's answer, and tell calls what they have leased. Raises ValkeyUnavailable when it is no answer."""
    size = 1 + 2 * sum([len(call.checks) for call in calls])
    if not isinstance(reply, list) or len(cast("list[int]", reply)) != size:
        raise ValkeyUnavailable("the limit script answered something else than its verdicts")
    numbers = cast("list[int]", reply)
    at, answers = 1, list[Verdict]()
    for call in calls:
        counts = numbers[at : at + 2 * len(call.checks)]
        at += len(counts)
        answers.append(verdict_of(call.checks, choose(_decisions(call.checks, counts))))
        if call.granted is not None:
            call.granted(call, Reply(sent, numbers[0], counts))
    return answers


def _decisions(checks: Sequence[Check], counts: Sequence[int]) -> Iterator[Decision]:
    """Derive from the script's numbers what each check says of its call."""
    for index, check in enumerate(checks):
        policy, reset = check.policy, counts[2 * index + 1]
        number = -(index + 1) if counts[2 * index] < 0 else index + 1
        wait = reset + policy.interval * (check.cost or 1) - policy.tolerance
        yield number, (policy.tolerance - reset) // policy.interval, max(wait, 0), reset
