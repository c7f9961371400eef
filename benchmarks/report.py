"""The outcome of a run: goals, tables and plots to read, JSON to compare. docs/benchmarks.md says what is what."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import OTHER, Case
from benchmarks.experiments.finding import Chart, Finding, table
from benchmarks.goals import Goal, Results, goals, shown
from benchmarks.limits import Limit, limit_of
from benchmarks.plots import line_chart
from benchmarks.rounds import EVERYTHING, NAMES, TREES, Row

SCHEMA = 2
HEAD = (
    "conn", "case", "calls/s min", "median", "max", "p50 ms", "p99", "p99.9", "CPU us", "PG us", "Valkey us",
    "x sketch", "x Express", "x nginx", "x unpriced", "x other",
)  # fmt: skip
BASES = ("sketch", "express", "nginx", "unpriced", "other")
PEER_BASES = ("bare", "sketch", "express")
SCARCE = 0.85


@dataclass(slots=True)
class Report:
    """Everything that is known after a run."""

    name: str
    started_at: str
    options: dict[str, Any]
    machine: dict[str, Any]
    services: dict[str, Any]
    complete: bool
    missing: dict[str, str]
    disk: dict[str, float]
    proof: dict[str, Any]
    rows: list[Row]
    findings: list[Finding] = field(default_factory=list[Finding])
    generator: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def valid(self) -> bool:
        """Return whether all of our own rows are valid and the books balance everywhere."""
        ours = (row for row in self.rows if row.case.server)
        sound = self.proof.get("sound", True) and all(finding.sound for finding in self.findings)
        return bool(sound) and all(row.valid for row in ours)

    @property
    def goals(self) -> list[Goal]:
        """Return the goals with what was measured of them."""
        results = Results(self.rows, {finding.name: finding.document for finding in self.findings})
        return goals(results, self.options["server"], self.options["agents"])

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "started_at": self.started_at,
            "valid": self.valid,
            "options": self.options,
            "machine": self.machine,
            "services": self.services,
            "complete_gateway": self.complete,
            "missing": self.missing,
            "disk": self.disk,
            "generator": self.generator,
            "proof": self.proof,
            "goals": [
                {"what": goal.what, "wanted": goal.wanted, "at_least": goal.at_least, "unit": goal.unit.strip(),
                 "measured": None if goal.measured is None else round(goal.measured, 4), "reached": goal.reached}
                for goal in self.goals
            ],
            "rows": [_row_document(row, self.rows) for row in self.rows],
            "findings": {finding.name: finding.document for finding in self.findings},
        }  # fmt: skip

    def table(self) -> str:
        """Return the table of cases with aligned columns."""
        lines = [HEAD, *(_cells(row, self.rows) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column == 1 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def proof_line(self) -> str:
        """Return what the ledger's proof said, in one line."""
        proof = self.proof
        if not proof:
            return "ledger: nothing was sold in rounds"
        return (
            f"ledger: {'sound' if proof['sound'] else 'BROKEN ' + json.dumps(proof['violations'])}; {proof['charges']}"
            f" charges, {proof['refunds']} refunded, {proof['upstream']} paid requests at the upstream: difference"
            f" {proof['difference']}, of at most {proof['allowance']} calls whose end is unknown"
        )

    def markdown(self) -> str:
        """Return the same for people."""
        parts = [
            f"# Benchmark {self.name}",
            f"`{self.options['command']}`, {self.started_at}. "
            + ("All of our rows are valid." if self.valid else "**Some figures are not valid.**"),
            self._place(),
            "## Goals",
            GOALS_NOTE.format(server=self.options["server"]),
            table(("goal", "wanted", "measured", "reached"), [goal.cells() for goal in self.goals]),
        ]
        if missed := [*self._missed()]:
            parts += ["## Why some are not reached", *missed]
        if self.rows:
            parts += ["## Cases", _case_tables(self.rows), NOTES, *map(self._shown, charts(self.rows))]
            parts += ["## Open loop", OPEN_NOTE, _open_table(opened)] if (opened := _opened(self.rows)) else []
            parts += ["## What a call costs all together", self._everything_note(), _everything_table(self.rows)]
            parts += ["## Who is busy", BUSY_NOTE, _busy_table(self.rows)]
            parts += [doubts] if (doubts := _doubts(self.rows)) else []
        for finding in self.findings:
            parts += [f"## {finding.title}", finding.text, *map(self._shown, finding.charts)]
        parts += ["## What flatters, and what does not", FLATTERS]
        parts += ["## Conditions", "\n".join(self._conditions())]
        return "\n\n".join(parts) + "\n"

    def _place(self) -> str:
        """Say what it ran on, which every figure depends on."""
        machine = self.machine
        other = self.options.get("other_commit")
        return (
            f"Measured on {machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, {machine['python']},"
            f" commit {machine['commit']}{f', beside {other}' if other else ''}. Compare ratios within this report:"
            " other processors have other ratios."
        )

    def _everything_note(self) -> str:
        apart = "not in the other columns" if self.machine["softirqs_apart"] else "a part of the other columns"
        return EVERYTHING_NOTE.format(apart=apart)

    def _shown(self, chart: Chart) -> str:
        return f"![{chart.title}]({self.name}-{chart.kind}.svg)"

    def _missed(self) -> Iterator[str]:
        """Yield, by what limits them, the goals that are not reached, with what is scarce in the case of each, the
        profile that shows it, and what design would pass.
        """
        rows = {row.case: row for row in self.rows if row.door == row.case.door}
        files = {kind: one["file"] for f in self.findings if f.name == "profiles" for kind, one in f.document.items()}
        told: dict[Limit, list[str]] = {}
        for goal in self.goals:
            if goal.reached is False:
                why = f" {scarce(rows[goal.case])}" if goal.case in rows else ""
                line = f"- {goal.what}: {shown(goal.measured or 0)}{goal.unit} of {shown(goal.wanted)}{goal.unit}.{why}"
                told.setdefault(limit_of(goal.what), []).append(line)
        for limit, lines in told.items():
            kind = limit.profile
            profile = f" Profile: [{kind}, 64 connections]({files[kind]})." if kind in files else ""
            yield "\n".join([*lines, "", f"The limit: {limit.what}{profile}", "", f"What would pass: {limit.design}"])

    def _conditions(self) -> Iterator[str]:
        machine, services, disk, load = self.machine, self.services, self.disk, self.generator
        yield f"- {self.proof_line()}"
        yield (
            f"- machine: {machine['cores']} cores of {machine['cpu']}, {machine['memory_mib']} MiB, Linux"
            f" {machine['kernel']}, {machine['file_system']}, {machine['python']}; load average"
            f" {machine['load_before']} before, {machine['load_after']} after"
        )
        yield f"- disk: 4 KiB fdatasync p50 {disk.get('fdatasync_p50_ms')} ms, p99 {disk.get('fdatasync_p99_ms')} ms"
        if load:
            yield (
                f"- load generator: {load['rate']:.0f} calls/s at the bare upstream, which keeps it busy for"
                f" {load['busy']:.0%} of one core; in open loops it sent {load['late_p99_ms']:.2f} ms late (worst p99)"
            )
        if services:
            database = ", ".join(f"{name} {value}" for name, value in services["postgres"].items() if name != "version")
            yield f"- PostgreSQL {services['postgres']['version']} ({database}); Valkey {services['valkey']}; nginx" + (
                f" {services['nginx']}" if services.get("nginx") else " not there"
            )
        yield "- packages: " + ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
        yield f"- gateway: {'tollway serve' if self.complete else 'tollway serve without the admin API'}"
        for door, reason in self.missing.items():
            yield f"- left out: {door}: {reason}"

    def write(self, directory: Path) -> Path:
        """Write NAME.json, NAME.md and the plots, and return the first."""
        directory.mkdir(parents=True, exist_ok=True)
        for chart in (*charts(self.rows), *(chart for finding in self.findings for chart in finding.charts)):
            (directory / f"{self.name}-{chart.kind}.svg").write_text(chart.svg, encoding="utf-8")
        (directory / f"{self.name}.md").write_text(self.markdown(), encoding="utf-8")
        file = directory / f"{self.name}.json"
        file.write_text(json.dumps(self.document(), indent=1) + "\n", encoding="utf-8")
        return file


NOTES = """Medians of alternating rounds; ratios are medians of the ratios within a round. Latencies of open loops count
from when a call was due. CPU is microseconds per good answer of a whole process tree: the proxy's, PostgreSQL's,
Valkey's."""
BUSY_NOTE = """The share of all cores that each process tree kept busy, and everything else on the machine (others),
which should be next to nothing. Where they add up to 100 %, the processors are the limit, and nothing but doing less
helps."""


GOALS_NOTE = """Of {server}, with production's limits and targets that never repeat. Ratios to nginx are in the tables
and are no goals: they depend on the processor."""
EVERYTHING_NOTE = """Microseconds of processor time for each good answer: process trees, the rest of the machine
(others), and all of it together. Softirq is the kernel's work in soft interrupts, most of it the network's; on this
kernel it is {apart}."""
FLATTERS = """- Agents, upstream and stores are on this machine: a network between them adds to every latency and takes
nothing from the rates. They also share its cores with the gateway, which takes from the rates.
- One upstream that answers 1 KiB at once: real ones are slower, which costs the gateway open calls and no processor.
- No TLS and no HTTP/2. Clients keep their connections, and all are busy all the time, so that batches are full.
- Agents call in turn, each as often as all others, and every one has funds. Publishers have one price, no endpoints
with prices of their own, no plans, no budgets.
- Rows "targets repeat" and "limits raised" are there to show what these two bring; no goal is read from them, except
one agent against many and one publisher against many, whose rows all have the limits raised.
- What does not flatter: every target is new, the upstream's Date changes every second, a key may do 6,000 calls a
minute, every charge is durable before the call is forwarded, metrics are on, and the proof is made at the end."""


OPEN_NOTE = """Latencies in milliseconds, from when a call was due and from when it was sent, and how late the generator
was although it had a free connection: it shares the processors with what it measures, and what it is late is in the
first two columns of every row, the bare upstream's too."""


def _opened(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.case.load and row.rounds]


def _open_table(rows: Sequence[Row]) -> str:
    names = ("p50_ms", "p99_ms", "sent_p50_ms", "sent_p99_ms", "late_p50_ms", "late_p99_ms")
    lines = [(row.door_name, *(f"{row.middle(name):.2f}" for name in names)) for row in rows]
    return table(("case", "p50 from due", "p99", "p50 from sent", "p99", "late p50", "late p99"), lines)


def _case_tables(rows: Sequence[Row]) -> str:
    return table(HEAD, [_cells(row, rows) for row in rows])


def _everything_table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        shown = (who for who in EVERYTHING if who != "upstream" or row.case.kind != "bare")
        cpu = {who: f"{row.cpu(who):.0f}" for who in shown}
        cells = [cpu.get(who, "") for who in EVERYTHING]
        lines.append((str(row.case.connections), row.door_name, *cells))
    return table(("conn", "case", *(NAMES.get(who, who) for who in EVERYTHING)), lines)


def _busy_table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        shares = {who: row.busy(who) for who in NAMES if who != "upstream" or row.case.kind != "bare"}
        cells = [f"{shares.get(who, 0.0):.0%}" for who in NAMES]
        lines.append((str(row.case.connections), row.door_name, *cells, f"{sum(shares.values()):.0%}"))
    return table(("conn", "case", *NAMES, "all"), lines)


def _doubts(rows: Sequence[Row]) -> str:
    return "\n".join(f"- not valid: {row.door_name}, {row.case.connections}: {row.doubt}" for row in rows if row.doubt)


def scarce(row: Row) -> str:
    """Say what limits a case: the processors, and who uses them, or waiting."""
    shares = {who: row.busy(who) for who in NAMES}
    whole = sum(shares.values())
    users = ", ".join(f"{NAMES[who]} {share:.0%}" for who, share in shares.items() if share >= 0.005)
    spent = sum(row.cpu(who) for who in TREES)
    if whole >= SCARCE:
        return f"The processors are the limit: {whole:.0%} busy ({users}), {spent:.0f} us for each call in all."
    return f"The processors are {whole:.0%} busy ({users}); a call waits: p50 {row.middle('p50_ms'):.2f} ms."


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Return the plots of what the plain cases do as connections grow."""
    plain = [row for row in rows if row.rounds and row.case.shape == "small" and not row.case.load]
    plain = [row for row in plain if row.case.publishers == 1 and not row.case.pinned and row.case.workers == 1]
    plain = [row for row in plain if not row.case.raised and not row.case.repeats]
    numbers = sorted({row.case.connections for row in plain})
    if len(numbers) < 2:
        return []
    lines: dict[str, dict[int, Row]] = {}
    for row in plain:
        lines.setdefault(row.door_name, {})[row.case.connections] = row
    lines = {name: found for name, found in lines.items() if len(found) > 1}
    wanted = (
        (
            "throughput",
            "Good answers per second by connections",
            "calls/s, logarithmic",
            True,
            lambda row: row.middle("rate"),
        ),
        ("latency", "p99 by connections", "ms, logarithmic", True, lambda row: row.middle("p99_ms")),
        ("cpu", "CPU of the proxy by connections", "us per call, logarithmic", True, lambda row: row.cpu("proxy")),
    )
    found = []
    for kind, title, unit, log, read in wanted:
        series = {
            name: [read(line[number]) if number in line else None for number in numbers] for name, line in lines.items()
        }
        found.append(Chart(kind, title, line_chart(title, [str(number) for number in numbers], series, unit, log=log)))
    return found


def bases(row: Row, rows: Sequence[Row]) -> dict[str, Row]:
    """Return the rows of the same run that this one is compared with: same traffic, and unpriced of the same door."""
    found: dict[str, Row] = {}
    for other in rows:
        if other is row or not _same_traffic(row.case, other.case):
            continue
        case = other.case
        repeats = case.repeats == row.case.repeats
        if (case.kind in PEER_BASES and not case.repeats) or (
            case.kind == "nginx" and case.workers == row.case.workers
        ):
            found[case.kind] = other
        if case.kind == "unpriced" and row.case.kind == "prepaid" and other.door == row.door and repeats:
            found["unpriced"] = other
        if case == row.case and other.door == row.door + OTHER:
            found["other"] = other
    return found


def _same_traffic(one: Case, other: Case) -> bool:
    return (one.connections, one.shape, one.load, one.pinned) == (
        other.connections, other.shape, other.load, other.pinned,
    )  # fmt: skip


def _row_document(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    case = row.case
    middles = (
        "p50_ms", "p99_ms", "p999_ms", "first_p50_ms", "first_p99_ms", "late_p50_ms", "late_p99_ms", "sent_p50_ms",
        "sent_p99_ms",
    )  # fmt: skip
    return {
        "name": row.door_name,
        **{name: getattr(case, name) for name in Case.__slots__},
        "limits_raised": case.limits_raised,
        "valid": row.valid,
        "doubt": row.doubt,
        "calls_per_second": {
            "min": round(min(one.rate for one in row.rounds), 1),
            "median": round(row.middle("rate"), 1),
            "max": round(max(one.rate for one in row.rounds), 1),
        },
        **{name: round(row.middle(name), 4) for name in middles},
        "cpu_us_per_call": {who: row.cpu(who) for who in EVERYTHING},
        "busy": {who: row.busy(who) for who in NAMES},
        "ratio_to": {kind: round(row.ratio(base), 4) for kind, base in bases(row, rows).items()},
        "rounds": [
            {name: getattr(one.answers, name) for name in one.answers.__slots__} | {"cpu_us_per_call": one.cpu_us}
            for one in row.rounds
        ],
    }


def _cells(row: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    rates = [one.rate for one in row.rounds]
    base: Mapping[str, Row] = bases(row, rows)
    return (
        str(row.case.connections), row.door_name if row.valid else f"INVALID {row.door_name}",
        f"{min(rates):.0f}", f"{row.middle('rate'):.0f}", f"{max(rates):.0f}",
        f"{row.middle('p50_ms'):.2f}", f"{row.middle('p99_ms'):.2f}", f"{row.middle('p999_ms'):.2f}",
        f"{row.cpu('proxy'):.0f}", f"{row.cpu('postgres'):.0f}", f"{row.cpu('valkey'):.0f}",
        *(f"{row.ratio(base[kind]):.3f}" if kind in base else "" for kind in BASES),
    )  # fmt: skip
