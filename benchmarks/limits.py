"""Why goals are out of reach: what the limit is, which profile shows it, and what design would pass it. Plain words.

A report prints what belongs to the goals that it has missed; docs/benchmarks.md has all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Limit:
    """What stands in the way of the goals whose names begin with one of `goals`; `profile` is what shows it."""

    goals: tuple[str, ...]
    profile: Literal["unpriced", "prepaid", "none"]
    what: str
    design: str


LIMITS = (
    Limit(
        ("unpriced against nginx",),
        "unpriced",
        "One thread of Python walks every call. Half of its time is the interpreter's own, a third the kernel's"
        " (reading and writing two sockets), the rest the server's and the parser's; no function has more than a few"
        " percent, so there is none left to make faster. nginx does the same in compiled code with a fifth of the"
        " time.",
        "The walk of a call that costs nothing but forwarding (head, match, limit, headers, upstream connection) in"
        " compiled code inside the server, which calls Python only to decide; that leaves the kernel's part, about"
        " twice nginx's. More workers on more cores multiply throughput, but not this ratio.",
    ),
    Limit(
        ("prepaid against unpriced",),
        "prepaid",
        "A charge adds one statement, one commit and one flush per batch of calls, and what a batch costs whatever"
        " it holds (in the gateway about 0.1 ms, in PostgreSQL 0.2 ms) is shared by the calls that wait at the same"
        " time: 7 at 16 connections, some 25 at 64. PostgreSQL works on the same two cores.",
        "Charges from money that a worker has set aside for a wallet beforehand, written to a log of its own with"
        " one flush and posted later: no statement on the way of a call. It makes a crashed worker's log a part of"
        " the ledger's truth, which we have not wanted. PostgreSQL on cores of its own helps as far as they compete.",
    ),
    Limit(
        ("prepaid against Express", "prepaid against LiteLLM", "gateway's CPU per prepaid call"),
        "prepaid",
        "The CPU of one thread, again: the walk of an unpriced call, the call's share of a batch for the limit"
        " check and of one for the charge, and the receipt's hashes and headers. The profile is flat: the"
        " interpreter has more than half, the kernel a quarter to a third. Besides reading and writing two sockets a"
        " call costs some three futexes, for the server's thread and the loop's hand the interpreter's lock to each"
        " other.",
        "The compiled walk of above, in the server's own thread, with the charge's encoding and decoding in it. It"
        " takes a call from about 100 us to the 50 that these goals need; reordering the steps in Python has been"
        " tried and is used up.",
    ),
    Limit(
        ("added latency p50 at half load",),
        "prepaid",
        "A paid call that waits for nobody takes about 1 ms more than the bare upstream (the row of one"
        " connection): the limit check's round trip, a durable commit, and five turns of one thread. At half load"
        " that thread is busy for three quarters of the time, because batches hold few calls and each costs the"
        " same, so every turn waits behind those of other calls, and the commit behind the one before it.",
        "The compiled walk, which brings the thread's share below a third; or more workers on cores of their own at"
        " the same load, which this machine has not. Limits leased to the worker would save one of the five turns.",
    ),
    Limit(
        ("added latency p99 at half load",),
        "prepaid",
        "The same queue as for the p50, in bursts: calls of one batch go on at the same time, and the next ones"
        " wait for all of them. The generator, PostgreSQL and the gateway share two cores; how late the generator"
        " was by itself is in the table of the open loop. Full collections of garbage (50 ms) and new upstream"
        " connections for every second call were found by tracing single calls, and are gone.",
        "As for the p50. Going on with the calls of a batch in portions, between which new arrivals have their"
        " turn, would even out bursts at the price of more turns.",
    ),
    Limit(
        ("p99 of admitted calls at twice the capacity",),
        "prepaid",
        "It takes until the first calls have waited for a quarter of a second, and as long again in which none was"
        " in time, before anybody is refused, and by then the line is half a second long, and longer by what the"
        " refusals cost. Where it is longer than the goal, something else has taken processor time away.",
        "Refusals in the server before Python sees the call, and a bound from the measured rate, without waiting"
        " for anybody to be late.",
    ),
    Limit(
        ("x402 deferred against the official",),
        "none",
        "Where callers wait for their block the chain is the limit, for everybody alike; where they do not, ours"
        " are limited by the signature's recovery and the gateway's walk of a call, theirs by a process per step.",
        "Recovery on a thread of its own beside the loop, and the compiled walk.",
    ),
    Limit(
        ("memory of an idle event stream",),
        "none",
        "An open stream holds a task, its coroutines and their frames, two sockets' buffers and a parser.",
        "Streams handed to compiled code once their head is through, with nothing but two descriptors and a counter.",
    ),
    Limit(
        ("prepaid beside 10^7 ledger rows",),
        "none",
        "Indexes that no longer fit into the database's memory; which, the table of growth and the share of"
        " PostgreSQL say.",
        "Smaller partitions, or more memory.",
    ),
    Limit(
        ("one agent against", "one publisher against", "start to ready", "money wrong", "calls refused under overload"),
        "none",
        "This has been reached before, so it is a fault of this version or of this run.",
        "None is needed: look for what has changed.",
    ),
)


def limit_of(goal: str) -> Limit:
    """Return what stands in the way of a goal. Raises KeyError when nobody has written it down."""
    for limit in LIMITS:
        if goal.startswith(limit.goals):
            return limit
    raise KeyError(goal)
