"""Twice as many calls as we can serve, by the clock: are some refused early, the rest served in time, and all paid?"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import replace
from typing import Any

from benchmarks.books import charged
from benchmarks.experiments.finding import Finding, Setting
from benchmarks.rounds import OPEN_CONNECTIONS
from benchmarks.seeding import PRICE

TIMES = 2.0
# So many that callers do not run out of them while calls wait: their own queue would hold the surplus back.
CONNECTIONS, QUICK_CONNECTIONS = 8_192, 2_048
RESERVE = 1_000  # descriptors for everything else


def run(setting: Setting) -> Finding:
    """Offer twice the capacity for a while, then compare what was answered with what was charged."""
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE
    connections = min(QUICK_CONNECTIONS if setting.quick else CONNECTIONS, max(room, OPEN_CONNECTIONS))
    case = replace(setting.usual, connections=connections)
    before = asyncio.run(charged(setting.stack))
    offered = TIMES * setting.capacity
    answers = setting.caller.load(case, setting.stack.doors[case.door], 2.0 if setting.quick else 10.0, rate=offered)
    after = asyncio.run(charged(setting.stack))
    booked, owed = after - before, answers.ok_total * PRICE
    # A call whose connection broke, or that had no answer when we stopped waiting, may be paid: nobody knows.
    unknown = (answers.socket_errors + answers.unfinished) * PRICE
    sound = owed <= booked <= owed + unknown
    done = answers.answers / answers.seconds
    document: dict[str, Any] = {
        "capacity": round(setting.capacity, 1),
        "offered": round(offered, 1),
        "answered": round(done, 1),
        "admitted": round(answers.rate, 1),
        "shed": answers.shed,
        "shed_without_retry_after": answers.shed_without_retry_after,
        "other_statuses": answers.bad_status,
        "socket_errors": answers.socket_errors,
        "unfinished": answers.unfinished,
        "unsent": answers.unsent,
        "p50_ms": answers.p50_ms,
        "p99_ms": answers.p99_ms,
        "p999_ms": answers.p999_ms,
        "max_ms": answers.max_ms,
        "connections": connections,
        "queued_p99_ms": answers.queued_p99_ms,
        "late_p99_ms": answers.late_p99_ms,
        "refused_p99_ms": answers.other_p99_ms,
        "charged": booked,
        "owed": owed,
        "sound": sound,
    }
    text = (
        f"{offered:.0f} calls a second were due over {connections} connections for {answers.seconds:.0f} s, twice the"
        f" {setting.capacity:.0f} of the closed loop. {answers.rate:.0f} a second were served (p50"
        f" {answers.p50_ms:.0f}, p99 {answers.p99_ms:.0f}, at most {answers.max_ms:.0f} ms from when they were due; the"
        f" p99 of what they waited before they were sent is {answers.queued_p99_ms:.0f} ms),"
        f" {answers.shed} refused with 503 (p99 {answers.other_p99_ms:.0f} ms; {answers.shed_without_retry_after} of"
        f" them without Retry-After), {answers.unsent} had no connection, {answers.bad_status} had another status,"
        f" {answers.socket_errors} broke, {answers.unfinished} had no answer. Charged: {booked} atomic units for"
        f" {answers.ok_total} answers at {PRICE}:"
        f" {'exact' if booked == owed else 'as far as is known' if sound else '**WRONG**'}."
    )
    return Finding("overload", "Overload", document, text, sound)
