"""Does a call get slower when the ledger grows? Two databases, one that stays small and one that is given a past.

Each has a gateway of its own; rounds alternate between the two, so that drift of the machine cancels out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import generator
from benchmarks.experiments.finding import Chart, Finding, table
from benchmarks.plots import line_chart
from benchmarks.processes import cpu_seconds
from benchmarks.seeding import World, give_a_past, prepare
from benchmarks.stack import Doors, Running, Services, directory, services, start_upstream
from benchmarks.steady import settle_wal
from benchmarks.traffic import SHAPES, heads, write_heads
from gateway.database.pool import connect
from gateway.ledger.proof import verify
from gateway.settings import DatabaseSettings

STEPS = (1_000, 100_000, 1_000_000, 10_000_000)
QUICK_STEPS = (1_000, 20_000)
AGENTS, QUICK_AGENTS = 100_000, 1_000
CONNECTIONS = 64
# Totals for the store's pages follow the ledger; the past has been added up long ago, as on a running server.
CAUGHT_UP = "SELECT analytics.rebuild()"


@dataclass(frozen=True, slots=True)
class Side:
    """One database with its gateway."""

    stores: Services
    world: World
    gateway: Running
    heads: Path


def run(server: str, quick: bool, rounds: int, seconds: float, upto: int) -> Finding:
    """Measure both sides after each step, up to so many charges. Takes minutes, most of them for making the past."""
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(directory())
        stores = stack.enter_context(services(data))
        upstream = start_upstream(stack, data)
        asyncio.run(_create(stores, "grown"))
        sides = [
            _side(stack, data, place, upstream, server, QUICK_AGENTS if quick else AGENTS)
            for place in (stores, stores.database("grown"))
        ]
        small, grown = sides
        asyncio.run(give_a_past(small.stores.database_url, small.world, 0, STEPS[0]))
        present, found = 0, []
        for wanted in QUICK_STEPS if quick else (step for step in STEPS if step <= upto):
            asyncio.run(_grow(grown, present, wanted))
            present = wanted
            found.append({"rows": wanted, **_compare(stores, small, grown, rounds, seconds)})
        return _finding(server, found, asyncio.run(_proof(grown)), len(grown.world.agents))


async def _create(stores: Services, name: str) -> None:
    connection = await connect(DatabaseSettings(url=stores.database_url))
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()


def _side(
    stack: contextlib.ExitStack, data: Path, stores: Services, upstream: Running, server: str, agents: int
) -> Side:
    world = asyncio.run(prepare(stores.database_url, upstream.port, agents))
    gateway = Doors(stack, data, stores, upstream, complete=True).gateway(server, 1, world)
    targets = [f"/publishers/{world.paid[0]}"]
    file = data / f"heads-{gateway.port}"
    write_heads(file, heads(SHAPES["small"], targets, [agent.key for agent in world.agents]))
    return Side(stores, world, gateway, file)


async def _grow(side: Side, present: int, wanted: int) -> None:
    await give_a_past(side.stores.database_url, side.world, present, wanted)
    connection = await connect(DatabaseSettings(url=side.stores.database_url, command_timeout=3600))
    try:
        await connection.execute(CAUGHT_UP)
    finally:
        await connection.close()
    await settle_wal(side.stores.admin_url)


def _compare(stores: Services, small: Side, grown: Side, rounds: int, seconds: float) -> dict[str, Any]:
    """Return rates, the ratio and the database's CPU per call of both, medians over the rounds."""
    names = {"small": small, "grown": grown}
    for side in names.values():
        # Every agent once: a key is looked up at its first call, which is no part of how the ledger grows.
        generator.load(side.gateway.port, side.heads, CONNECTIONS, max(seconds, 2.0))
    seen: dict[str, list[generator.Answers]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, side in names.items():
            before = cpu_seconds([stores.postgres_pid])
            answers = generator.load(side.gateway.port, side.heads, CONNECTIONS, seconds)
            cpu[name].append((cpu_seconds([stores.postgres_pid]) - before) * 1e6 / max(answers.ok_total, 1))
            seen[name].append(answers)
    pairs = zip(seen["grown"], seen["small"], strict=True)
    return {
        "calls_per_second": {name: round(median(one.rate for one in seen[name]), 1) for name in names},
        "p99_ms": {name: round(median(one.p99_ms for one in seen[name]), 3) for name in names},
        "postgres_us": {name: round(median(cpu[name]), 1) for name in names},
        "ratio": round(median(mine.rate / other.rate for mine, other in pairs if other.rate), 4),
        "clean": all(one.clean for side in seen.values() for one in side),
    }


async def _proof(side: Side) -> dict[str, Any]:
    connection = await connect(DatabaseSettings(url=side.stores.database_url, command_timeout=3600))
    try:
        began = time.monotonic()
        report = await verify(connection)
        size = await connection.fetchval("SELECT pg_database_size(current_database())")
        return {
            "sound": report.sound,
            "violations": report.violations,
            "transfers": report.transfers,
            "verify_seconds": round(time.monotonic() - began, 1),
            "database_bytes": size,
        }
    finally:
        await connection.close()


def _finding(server: str, found: Sequence[dict[str, Any]], proof: dict[str, Any], agents: int) -> Finding:
    rows = [
        (
            f"{one['rows']:,}", f"{one['calls_per_second']['small']:.0f}", f"{one['calls_per_second']['grown']:.0f}",
            f"{one['ratio']:.3f}", f"{one['p99_ms']['small']:.1f} / {one['p99_ms']['grown']:.1f}",
            f"{one['postgres_us']['small']:.0f} / {one['postgres_us']['grown']:.0f}",
        )
        for one in found
    ]  # fmt: skip
    text = (
        f"Prepaid calls on {server} with {agents:,} agents over {CONNECTIONS} connections, beside a ledger of"
        f" {STEPS[0]:,} charges in the same run. In the end {proof['transfers']:,} transfers in"
        f" {proof['database_bytes'] / 2**20:,.0f} MiB; the proof took {proof['verify_seconds']} s and finds them"
        f" {'sound' if proof['sound'] else '**BROKEN**'}.\n\n"
        + table(
            ("charges before", "calls/s small", "grown", "ratio", "p99 ms small / grown", "PG us small / grown"), rows
        )
    )
    document = {"agents": agents, "steps": list(found), "proof": proof}
    title, across = "Prepaid calls by what the ledger held before", [f"{one['rows']:,}" for one in found]
    sides = {name: [one["calls_per_second"][name] for one in found] for name in ("grown", "small")}
    chart = Chart("growth", title, line_chart(title, across, sides, "calls/s"))
    return Finding("growth", "Growth of the ledger", document, text, bool(proof["sound"]), [chart])
