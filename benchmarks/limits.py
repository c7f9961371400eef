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
        ("unpriced against the sketch", "gateway's CPU per unpriced call"),
        "unpriced",
        "The number of Python steps. The sketch parses two heads and writes two. A call through the ASGI"
        " application is a task and a dozen coroutines that await each other, an object of fifty fields, messages to"
        " and from the server, and a question to Valkey. No function has more than a"
        " few percent, so there is no hot spot to remove. Compiled code hardly helps: Cython took 6 % off, `python -O`"
        " nothing.",
        "A call that walks from its parsed head to the write on a pooled upstream connection in one go, on our own"
        " server's Protocol, without task, future or ASGI message; limits leased from Valkey in small shares. A"
        " prototype of this took 34 us of CPU per unpriced call where the gateway on granian took 103.",
    ),
    Limit(
        ("prepaid against Express", "prepaid against LiteLLM", "gateway's CPU per prepaid call"),
        "prepaid",
        "The steps of an unpriced call, and a share of a batch of charges: about 10 us in Python to encode a charge,"
        " read its verdict and wake its call, and the settlement with its hashes. PostgreSQL, the upstream and the"
        " load generator use the same two cores, so what they need per call is missing here.",
        "The shorter walk, in which a charge's verdict calls back instead of resolving a future. A prototype took 48"
        " us where the gateway on granian took 141.",
    ),
    Limit(
        ("PostgreSQL's CPU per prepaid call",),
        "prepaid",
        "A batch of charges costs PostgreSQL about 0.3 ms whatever it holds, and 15 us for each charge in it. Few"
        " calls that wait at the same time share the fixed part: some 7 at 16 connections, some 25 at 64.",
        "A smaller fixed part; or one durable row per batch that is posted to the ledger later.",
    ),
    Limit(
        ("added latency p50 at half load", "added latency p99 at half load"),
        "prepaid",
        "Most of it is the ledger: a charge waits for its own batch, and on average for seven tenths of the one"
        " before. After that comes the queue for the one thread that walks all calls, in bursts, because the calls of"
        " one batch go on at the same time; then the round trip of the limit check. How late the generator was by"
        " itself is in the table of the open loop.",
        "A shorter batch, a shorter walk, and leased limits: with the walk and the leases alone a prototype was at"
        " 2.1 ms (p50) and 6.6 ms (p99) where the gateway was at 5.2 and 13.",
    ),
    Limit(
        ("p99 of admitted calls at twice the capacity",),
        "prepaid",
        "The gateway begins to refuse calls only after the queue has been too long for a quarter of a second, and by"
        " then it is half a second long. Each refusal costs processor time as well, because it is built by the same"
        " thread. Where the figure is higher, something else has taken processor time away.",
        "Refusals by the server before a call is built, and a bound on the queue that follows the measured rate.",
    ),
    Limit(
        ("two workers against one",),
        "prepaid",
        "Two workers split the calls that wait into two smaller batches, and each batch has its fixed cost in the"
        " worker and in PostgreSQL. So a call costs more with two workers than with one.",
        "A smaller fixed cost of a batch.",
    ),
    Limit(
        ("x402 deferred against the official",),
        "none",
        "Where callers wait for their block the chain is the limit, for everybody alike; where they do not, ours"
        " are limited by the signature's recovery and the gateway's walk of a call, theirs by a process per step.",
        "Recovery on a thread of its own beside the loop, and a shorter walk.",
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
        (
            "one agent against",
            "one publisher against",
            "start to ready",
            "money wrong",
            "left to book",
            "calls refused under overload",
        ),
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
