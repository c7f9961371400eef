"""One worker and two, each on a core of its own as far as there are cores: what does a second one bring?

Where a machine has too few cores, the second worker takes the core of what serves both. So beside what was measured
there is a model: each worker is busy all the time, and everything else has cores enough. Then two workers do as many
calls as fit into two cores at what a call takes of them, which is measured with both.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.cases import OURS
from benchmarks.experiments.finding import Finding, Setting, table
from benchmarks.processes import Layout
from benchmarks.rounds import EVERYTHING, NAMES, Row, measure
from benchmarks.stack import RAISED_LIMITS, Doors

CONNECTIONS = 64
WORKERS = (1, 2)
ROUNDS, SECONDS, QUICK_SECONDS = 3, 3.0, 0.5


def run(setting: Setting) -> Finding:
    """Measure both in alternating rounds, on gateways of their own."""
    stack = setting.stack
    cores = sorted(os.sched_getaffinity(0))
    usual = replace(setting.usual, connections=CONNECTIONS, pinned=True)
    limits = RAISED_LIMITS if usual.limits_raised else {}
    with contextlib.ExitStack() as children:
        begin = Doors(children, stack.directory, stack.services, stack.upstream, stack.complete)
        doors = {number: begin.gateway(setting.server, number, stack.world, **limits) for number in WORKERS}
        for number, door in doors.items():
            setting.caller.meet_everybody(replace(usual, workers=number), door)
        rows = [Row(replace(usual, kind=kind, workers=number), "") for kind in OURS for number in WORKERS]
        for _ in range(1 if setting.quick else ROUNDS):
            for row in rows:
                seconds = QUICK_SECONDS if setting.quick else SECONDS
                row.rounds.append(measure(setting.caller, row, doors[row.case.workers], stack.roots, seconds, rate=0.0))
    layouts = {number: Layout.of(cores, number) for number in WORKERS}
    document = {
        "rows": [_document(row) for row in rows],
        "layouts": {str(number): str(layout) for number, layout in layouts.items()},
        "gains": {kind: gain(*(row for row in rows if row.case.kind == kind)) for kind in OURS},
    }
    return Finding("workers", "One worker and two, pinned", document, _text(rows, document))


def gain(one: Row, two: Row) -> dict[str, float]:
    """Return what the second worker brings as measured and by the model, and the cores that the model needs."""
    cpu = {1: one.cpu("proxy"), 2: two.cpu("proxy")}
    calls = 2e6 / cpu[2] if cpu[2] else 0.0  # a second, by the model
    return {
        "measured": round(two.ratio(one), 3),
        "model": round(2 * cpu[1] / cpu[2], 3) if cpu[2] else 0.0,
        "model_calls_per_second": round(calls, 1),
        "model_postgres_cores": round(calls * two.cpu("postgres") / 1e6, 2),
        "model_valkey_cores": round(calls * two.cpu("valkey") / 1e6, 2),
    }


def _document(row: Row) -> dict[str, Any]:
    return {
        "kind": row.case.kind,
        "workers": row.case.workers,
        "valid": row.valid,
        "doubt": row.doubt,
        "calls_per_second": round(row.middle("rate"), 1),
        "p50_ms": row.middle("p50_ms"),
        "p99_ms": row.middle("p99_ms"),
        "cpu_us_per_call": {who: row.cpu(who) for who in EVERYTHING},
    }


def _text(rows: Sequence[Row], document: dict[str, Any]) -> str:
    cells = [
        (
            row.case.kind if row.valid else f"INVALID {row.case.kind}: {row.doubt}", str(row.case.workers),
            f"{row.middle('rate'):.0f}", f"{row.middle('p50_ms'):.2f} / {row.middle('p99_ms'):.2f}",
            *(f"{row.cpu(who):.0f}" for who in EVERYTHING),
        )
        for row in rows
    ]  # fmt: skip
    lines = [
        f"- {kind}: two workers do {one['measured']:.2f} of what one does here, and {one['model']:.2f} by the model, in"
        f" which nobody shares a core: {one['model_calls_per_second']:.0f} calls/s, for which PostgreSQL works"
        f" {one['model_postgres_cores']:.2f} cores and Valkey {one['model_valkey_cores']:.2f}."
        for kind, one in document["gains"].items()
    ]
    where = [f"- {number} worker{'s' * (number != '1')}: {words}" for number, words in document["layouts"].items()]
    head = ("case", "workers", "calls/s", "p50 / p99 ms", *(f"{NAMES.get(who, who)} us" for who in EVERYTHING))
    server = rows[0].case.server
    return "\n\n".join(
        (f"On {server}, {CONNECTIONS} connections. Which core does what:", "\n".join(where), table(head, cells),
         "\n".join(lines))
    )  # fmt: skip
