"""Twice as many calls as we can serve, by the clock: are some refused early, the rest served in time, and all paid?"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.books import charged
from benchmarks.cases import Case
from benchmarks.experiments.finding import Finding, Setting
from benchmarks.seeding import PRICE

TIMES = 2.0
CONNECTIONS = 2_048


def run(setting: Setting) -> Finding:
    """Offer twice the capacity for a while, then compare what was answered with what was charged."""
    case = Case("prepaid", setting.server, connections=CONNECTIONS, agents=len(setting.stack.world.agents))
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
        "refused_p99_ms": answers.other_p99_ms,
        "charged": booked,
        "owed": owed,
        "sound": sound,
    }
    text = (
        f"{offered:.0f} calls a second were due over {CONNECTIONS} connections for {answers.seconds:.0f} s, twice the"
        f" {setting.capacity:.0f} of the closed loop. {answers.rate:.0f} a second were served (p50"
        f" {answers.p50_ms:.0f}, p99 {answers.p99_ms:.0f}, at most {answers.max_ms:.0f} ms from when they were due),"
        f" {answers.shed} refused with 503 (p99 {answers.other_p99_ms:.0f} ms; {answers.shed_without_retry_after} of"
        f" them without Retry-After), {answers.unsent} had no connection, {answers.bad_status} had another status,"
        f" {answers.socket_errors} broke, {answers.unfinished} had no answer. Charged: {booked} atomic units for"
        f" {answers.ok_total} answers at {PRICE}:"
        f" {'exact' if booked == owed else 'as far as is known' if sound else '**WRONG**'}."
    )
    return Finding("overload", "Overload", document, text, sound)
