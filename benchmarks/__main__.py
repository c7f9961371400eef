"""`python -m benchmarks`: what a call through the gateway costs, beside what users would pick instead."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks import machine
from benchmarks.books import prove
from benchmarks.cases import (
    DEFAULT_SERVER,
    KINDS,
    MANY,
    OTHER,
    OURS,
    PLANS,
    QUICK_MANY,
    SERVERS,
    Case,
    Plan,
    Sweep,
    read_door,
)
from benchmarks.experiments import growth, idle, overload, profiles, startup, sustained, workers, writes, x402
from benchmarks.experiments.finding import Finding, Setting
from benchmarks.options import Listed, interrupt, without_places
from benchmarks.report import Report
from benchmarks.rounds import Caller, Row, measure
from benchmarks.stack import ROOT, Stack, running
from benchmarks.steady import settle_wal
from benchmarks.tools import MissingTool
from gateway.devservices import valkey
from gateway.devservices.processes import ServiceError

WARM_SECONDS = 1.0
OPEN_TIMES = 3  # so much longer are rounds of the open loop: their p99 is what is asked for
QUICK_SEGMENTS = 4
INSIDE: dict[str, Callable[[Setting], Finding]] = {
    "writes": writes.run,
    "overload": overload.run,
    "idle": idle.run,
    "startup": startup.run,
    "workers": workers.run,
    "sustained": sustained.run,
    "profiles": profiles.run,
}  # on the stack of the rounds; the others start their own


@click.command()
@click.option("--plan", type=click.Choice(sorted(PLANS)), default="standard", show_default=True)
@click.option("--quick", is_flag=True, help="The plan quick, or another one on a small scale: does it work at all?")
@click.option(
    "--connections", type=Listed("numbers"), help="Cases of your own instead of the plan's; also the next three."
)
@click.option("--kinds", type=Listed("kinds", KINDS), help="Which rows.")
@click.option("--workers", type=Listed("numbers"), help="Of each gateway and nginx.")
@click.option("--agents", type=Listed("numbers"), help="Who pay in turn.")
@click.option("--servers", type=Listed("servers", SERVERS), help="Of the gateway, in all cases; goals are the first's.")
@click.option("--pin", is_flag=True, help="A core for each worker, everything else on the others; cases of your own.")
@click.option("--seconds", type=click.FloatRange(0.1, 600), help="Length of a round; default the plan's.")
@click.option("--rounds", type=click.IntRange(1, 100), help="Default the plan's.")
@click.option("--rows", type=click.IntRange(1_000), help="Up to which ledger growth is measured; default the plan's.")
@click.option("--extras", default=None, help="Which measurements beside the rounds, or none; default the plan's.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "benchmarks" / "reports")
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="Another checkout to measure in the same run.",
)
@click.option("--name", default="", help="Of the report's files; default the date and time.")
def main(*, plan: str, quick: bool, output: Path, name: str, against: Path | None, **options: Any) -> None:
    """Measure the bare upstream, other proxies and the gateway, with free and durably paid calls, in one run."""
    signal.signal(signal.SIGTERM, interrupt)
    name = name or datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    try:
        plan = "quick" if quick and plan == "standard" else plan
        report = Run(plan, options | {"quick": quick}, against, output, name).report()
    except (ServiceError, MissingTool) as error:
        raise SystemExit(f"benchmarks: {error}") from None
    print(report.table(), report.proof_line(), sep="\n\n")
    for goal in report.goals:
        if goal.reached is not None:
            print("  ".join(goal.cells()))
    print(f"report: {report.write(output).name} in {output}")
    sys.exit(0 if report.valid else 1)


def chosen(plan: Plan, options: dict[str, Any]) -> Plan:
    """Return the plan with what the options say instead."""
    own = {name: options[name] for name in ("connections", "kinds", "workers", "agents") if options.get(name)}
    if options.get("pin"):
        own["pinned"] = True
    if own and options.get("quick"):
        own.setdefault("agents", [QUICK_MANY])
    sweeps, extras = ([Sweep(**own)], ()) if own else (plan.sweeps, plan.extras)
    if servers := options.get("servers"):
        sweeps = replace(plan, sweeps=sweeps).on(servers).sweeps
    if options.get("extras") is not None:
        extras = tuple(word for word in options["extras"].split(",") if word != "none")
    rounds, seconds = options.get("rounds") or plan.rounds, options.get("seconds") or plan.seconds
    return Plan(sweeps, rounds, seconds, extras, options.get("rows") or plan.rows, plan.blocks)


class Run:
    """One run: everything that belongs to a report."""

    def __init__(self, plan: str, options: dict[str, Any], against: Path | None, output: Path, name: str) -> None:
        self.quick = options["quick"] or plan == "quick"
        self.plan = chosen(PLANS[plan], options)
        self.cases = self.plan.cases()
        self.against, self.output, self.name = against, output, name
        ours = [case for case in self.cases if case.kind in OURS]
        self.server = ours[0].server if ours else (options.get("servers") or [DEFAULT_SERVER])[0]
        self.agents = max((case.agents for case in ours), default=QUICK_MANY if self.quick else MANY)
        self.usual = Case("prepaid", self.server, connections=64, agents=self.agents)
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.load_before = _load()
        command = shlex.join(["python", "-m", "benchmarks", *without_places(sys.argv[1:])])
        self.options = {
            "command": command, "plan": plan, "rounds": self.plan.rounds, "seconds": self.plan.seconds,
            "server": self.server, "agents": self.agents, "against": against is not None,
            "other_commit": machine.commit(against) if against else None,
        }  # fmt: skip

    def report(self) -> Report:
        """Start everything, measure, prove the books, and return what was found."""
        inside = [name for name in self.plan.extras if name in INSIDE]
        found = Report(self.name, self.started, self.options, {}, {}, True, {}, {}, {}, [])
        if self.cases or inside:
            doors = [*(case.door for case in self.cases), self.usual.door]
            publishers = max((case.publishers for case in self.cases), default=1)
            with running(doors, agents=self.agents, publishers=publishers, against=self.against) as stack:
                asyncio.run(settle_wal(stack.services.admin_url, *([QUICK_SEGMENTS] if self.quick else [])))
                self._on(stack, found, inside)
        self._outside(found)
        found.machine |= machine.machine_facts(ROOT) if not found.machine else {}
        found.machine |= {"load_before": self.load_before, "load_after": _load()}
        return found

    def _on(self, stack: Stack, found: Report, inside: Sequence[str]) -> None:
        caller, disk = Caller(stack), machine.Disk(stack.services.home)
        found.missing |= stack.missing
        found.complete = stack.complete
        found.rows = [*self._rows(stack)]
        capacity = self._measure(stack, caller, found.rows, disk)
        seen = [one.answers for row in found.rows for one in row.rounds]
        unknown = sum(one.unfinished + one.socket_errors for one in seen)
        if found.rows:
            found.proof = asyncio.run(prove(stack, allowance=unknown))
        setting = Setting(stack, caller, self.usual, capacity, self.quick, self.output, self.name)
        for name in inside:
            self._look(found, name, lambda experiment=INSIDE[name]: experiment(setting))
        found.disk = disk.facts()
        found.machine = machine.machine_facts(stack.services.home)
        found.generator = _generator(found.rows)
        found.services = {
            "postgres": asyncio.run(machine.database_facts(stack.services.database_url)),
            "valkey": machine.program_version(valkey._binary(), "--version"),
            "nginx": machine.program_version("nginx", "-v") if "nginx" in stack.doors else None,
        }

    def _rows(self, stack: Stack) -> Iterator[Row]:
        for case in self.cases:
            for door in (case.door, case.door + OTHER):
                if door in stack.doors:
                    yield Row(case, door)

    def _measure(self, stack: Stack, caller: Caller, rows: Sequence[Row], disk: machine.Disk) -> float:
        """Warm up, then measure all rows in alternating rounds. Returns what our prepaid path can do."""
        seconds = self.plan.seconds
        for row in rows:
            if not row.case.load:
                caller.load(row.case, stack.doors[row.door], min(seconds, WARM_SECONDS))
        for door in (name for name in stack.doors if name.startswith(SERVERS)):
            caller.meet_everybody(replace(self.usual, workers=read_door(door)[2]), stack.doors[door])
        capacity = caller.load(self.usual, stack.doors[self.usual.door], seconds).rate
        for number in range(1, self.plan.rounds + 1):
            disk.sample()
            for row in rows:
                rate, length = row.case.load * capacity, seconds * (OPEN_TIMES if row.case.load else 1)
                row.rounds.append(measure(caller, row, stack.doors[row.door], stack.roots, length, rate))
                _say(
                    f"round {number}/{self.plan.rounds}  {row.case.connections:>4}  {row.door_name:<56}"
                    f" {row.rounds[-1].rate:>8.0f} calls/s"
                )
        return capacity

    def _outside(self, found: Report) -> None:
        """Run what starts a stack of its own."""
        if "x402" in self.plan.extras:
            rounds, blocks = 3 if self.options["plan"] == "report" else 1, [*self.plan.blocks]
            self._look(found, "x402", lambda: x402.run(self.server, rounds=rounds, seconds=8, blocks=blocks))
        if "growth" in self.plan.extras:
            rounds, seconds, rows = self.plan.rounds, self.plan.seconds, self.plan.rows
            self._look(found, "growth", lambda: growth.run(self.server, self.quick, rounds, seconds, rows))

    def _look(self, found: Report, name: str, experiment: Callable[[], Finding]) -> None:
        """Add what an experiment finds. One that fails takes nothing from the others, and the report says so."""
        _say(name)
        try:
            found.findings.append(experiment())
        except MissingTool as reason:
            found.missing[name] = str(reason)
        except (ServiceError, RuntimeError, AssertionError) as error:
            found.findings.append(Finding(name, name, {}, f"**It failed**: {error}", sound=False))


def _generator(rows: Sequence[Row]) -> dict[str, float]:
    """Return how fast and how busy the generator is at the bare upstream, and how late it was in open loops."""
    bare = [row for row in rows if row.case.kind == "bare" and not row.case.load and row.case.shape == "small"]
    if not bare:
        return {}
    base = min(bare, key=lambda row: abs(row.case.connections - 64))
    late = [one.answers.late_p99_ms for row in rows if row.case.load for one in row.rounds]
    busy = max(one.answers.cpu_seconds / one.answers.seconds for one in base.rounds)
    return {"rate": base.middle("rate"), "busy": round(busy, 4), "late_p99_ms": max(late, default=0.0)}


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
