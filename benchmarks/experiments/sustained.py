"""A minute of prepaid calls at saturation: is the rate kept up, and is anything left to do when the last answer is out?

A gateway that answers first and books later can be fast for two seconds. So what is not booked yet is counted when the
last answer has come and once more a little later, and processor time is counted until then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from benchmarks.books import charged
from benchmarks.experiments.finding import Finding, Setting, table
from benchmarks.generator import Answers
from benchmarks.processes import memory_bytes
from benchmarks.rounds import EVERYTHING, NAMES, Used
from benchmarks.seeding import PRICE
from gateway.database.pool import connect
from gateway.ids import uuid7
from gateway.ledger.proof import verify
from gateway.settings import DatabaseSettings

CONNECTIONS = 64
SECONDS, QUICK_SECONDS = 60.0, 3.0
LATER = 5.0  # seconds after the last answer
SEEN = (
    "seconds", "ok_total", "clean", "shed", "bad_status", "last_bad", "socket_errors", "unfinished", "p50_ms", "p99_ms",
    "by_second",
)  # fmt: skip
ENDS = 10  # seconds at the beginning and at the end whose rates are compared
# What a call may leave behind, each a number of rows since a first identifier ($1).
LEFT = {
    "charges without their end": """
        SELECT count(*) FROM ledger.transfer t WHERE t.kind = 'charge' AND t.leg = 0 AND t.cause_id >= $1
           AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = t.cause_id)""",
    "holds without their end": "SELECT count(*) FROM ledger.hold WHERE status = 'pending' AND $1::uuid IS NOT NULL",
    "webhooks that wait": "SELECT count(*) FROM webhook.delivery WHERE state = 'pending' AND $1::uuid IS NOT NULL",
}


async def _left(database_url: str, since: UUID) -> dict[str, int]:
    connection = await connect(DatabaseSettings(url=database_url, command_timeout=600))
    try:
        return {what: int(await connection.fetchval(query, since)) for what, query in LEFT.items()}
    finally:
        await connection.close()


async def _proof(database_url: str) -> dict[str, Any]:
    connection = await connect(DatabaseSettings(url=database_url, command_timeout=3600))
    try:
        report = await verify(connection)
    finally:
        await connection.close()
    return {"sound": report.sound, "violations": report.violations, "transfers": report.transfers}


def run(setting: Setting) -> Finding:
    """Load our prepaid path for a minute, and see what it leaves behind."""
    stack, url = setting.stack, setting.stack.services.database_url
    case = replace(setting.usual, connections=CONNECTIONS)
    door = stack.doors[case.door]
    setting.caller.meet_everybody(case, door)
    before, since = asyncio.run(charged(stack)), uuid7()
    trees = {"proxy": door.pid, **stack.roots}
    memory = {name: memory_bytes([pid]) for name, pid in trees.items()}
    used = Used(trees)
    answers = setting.caller.load(case, door, QUICK_SECONDS if setting.quick else SECONDS)
    at_once = asyncio.run(_left(url, since))
    time.sleep(LATER)
    spent = used.until_now(answers)
    later = asyncio.run(_left(url, since))
    grown = {name: (memory[name], memory_bytes([pid])) for name, pid in trees.items()}
    owed, booked = answers.ok_total * PRICE, asyncio.run(charged(stack)) - before
    unknown = (answers.socket_errors + answers.unfinished) * PRICE
    proof = asyncio.run(_proof(url))
    sound = bool(proof["sound"]) and owed <= booked <= owed + unknown
    per_call = {name: round(seconds * 1e6 / max(answers.ok_total, 1), 1) for name, seconds in spent.items()}
    document: dict[str, Any] = {
        "case": case.name, "rate": round(answers.rate, 1), **{name: getattr(answers, name) for name in SEEN},
        "ends": ends(answers.by_second), "left_at_once": at_once, "left_later": later,
        "cpu_us_per_call": per_call, "charged": booked, "owed": owed, "proof": proof,
        "memory": {name: {"before": first, "after": last} for name, (first, last) in grown.items()},
    }  # fmt: skip
    text = _text(case.name, answers, document, grown, sound)
    return Finding("sustained", "A sustained minute", document, text, sound)


def ends(by_second: Sequence[int]) -> tuple[float, float]:
    """Return the rates of the first and the last ten seconds, or of both halves of a shorter run."""
    if len(by_second) < 2:
        return 0.0, 0.0
    number = min(ENDS, len(by_second) // 2)
    return sum(by_second[:number]) / number, sum(by_second[-number:]) / number


def _text(
    name: str, answers: Answers, document: Mapping[str, Any], grown: Mapping[str, tuple[int, int]], sound: bool
) -> str:
    first, last = document["ends"]
    proof, cpu = document["proof"], document["cpu_us_per_call"]
    money = "exact" if document["charged"] == document["owed"] else "as far as is known" if sound else "**WRONG**"
    bad = "" if answers.clean else f"; **{answers.shed} shed, {answers.bad_status + answers.socket_errors} failed**"
    rows = [(what, str(document["left_at_once"][what]), str(document["left_later"][what])) for what in LEFT]
    sizes = [
        (NAMES[who], f"{a / 2**20:.0f}", f"{b / 2**20:.0f}", f"{(b - a) / 2**20:+.0f}") for who, (a, b) in grown.items()
    ]
    return "\n\n".join(
        (
            f"{name}, {CONNECTIONS} connections in a closed loop for {answers.seconds:.0f} s: {answers.rate:.0f} calls"
            f" a second ({first:.0f} at the beginning, {last:.0f} at the end; p50 {answers.p50_ms:.1f}, p99"
            f" {answers.p99_ms:.1f} ms), {answers.ok_total} in all"
            f"{bad}. Charged: {document['charged']} atomic units for"
            f" {answers.ok_total} answers at {PRICE}: {money}. The proof of {proof['transfers']} transfers finds them"
            f" {'sound' if proof['sound'] else '**BROKEN**'}.",
            table(("left to do", "when the last answer is out", f"after {LATER:.0f} s"), rows),
            f"Processor time until {LATER:.0f} s after the last answer, us for each call: "
            + ", ".join(f"{NAMES.get(who, who)} {cpu[who]:.0f}" for who in EVERYTHING)
            + ".",
            table(("memory (PSS), MiB", "before", "after", "grown by"), sizes),
        )
    )
