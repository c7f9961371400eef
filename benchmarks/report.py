"""The outcome of a run: a table to read, JSON to compare, Markdown to keep. docs/benchmarks.md documents the JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rounds import Row
from benchmarks.stack import OTHER

SCHEMA = 1
HEAD = (
    "conn", "case", "req/s min", "median", "max", "p50 ms", "p99 ms", "CPU us", "PG us", "Valkey us",
    "x bare", "x nginx", "x unpriced", "x other",
)  # fmt: skip


@dataclass(slots=True)
class Report:
    """Everything that is known after a run."""

    name: str
    started_at: str
    options: dict[str, Any]
    machine: dict[str, Any]
    services: dict[str, Any]
    generator: str
    complete: bool
    disk: dict[str, float]
    proof: dict[str, Any]
    rows: list[Row]

    @property
    def valid(self) -> bool:
        """Return whether all rows are valid and the books balance."""
        return bool(self.proof.get("sound")) and all(row.valid for row in self.rows)

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
            "generator": self.generator,
            "complete_gateway": self.complete,
            "disk": self.disk,
            "proof": self.proof,
            "rows": [_row_document(row, self.rows) for row in self.rows],
        }

    def table(self) -> str:
        """Return the table with aligned columns."""
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
        return (
            f"ledger: {'sound' if proof['sound'] else 'BROKEN ' + json.dumps(proof['violations'])}; {proof['charges']}"
            f" charges, {proof['refunds']} refunded, {proof['upstream']} paid requests at the upstream: difference"
            f" {proof['difference']}, of at most {proof['allowance']} calls cut off in flight"
        )

    def markdown(self) -> str:
        """Return the same for people."""
        machine, services, disk = self.machine, self.services, self.disk
        packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
        database = ", ".join(f"{name} {value}" for name, value in services["postgres"].items() if name != "version")
        return "\n".join(
            [
                f"# Benchmark {self.name}",
                "",
                f"`{self.options['command']}`, {self.started_at}, load generator {self.generator}. "
                + ("All rows are valid." if self.valid else "**Some figures are not valid.**"),
                "",
                *_markdown_table(self.rows),
                "",
                "Figures are medians of alternating rounds; ratios are medians of the ratios within a round. CPU is"
                " microseconds per request of the whole process tree (proxy, PostgreSQL, Valkey).",
                "",
                f"- {self.proof_line()}",
                f"- machine: {machine['cores']} cores of {machine['cpu']}, {machine['memory_mib']} MiB, Linux"
                f" {machine['kernel']}, {machine['file_system']}, Python {machine['python']}",
                f"- disk: 4 KiB fdatasync p50 {disk.get('fdatasync_p50_ms')} ms, p99 {disk.get('fdatasync_p99_ms')} ms",
                f"- PostgreSQL {services['postgres']['version']} ({database}); Valkey {services['valkey']}"
                + (f"; nginx {services['nginx']}" if services.get("nginx") else ""),
                f"- packages: {packages}",
                f"- gateway: {'tollway serve' if self.complete else 'tollway serve without the admin API'}",
                "",
            ]
        )

    def write(self, directory: Path) -> Path:
        """Write NAME.json and NAME.md and return the former."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{self.name}.md").write_text(self.markdown(), encoding="utf-8")
        file = directory / f"{self.name}.json"
        file.write_text(json.dumps(self.document(), indent=1) + "\n", encoding="utf-8")
        return file


def bases(row: Row, rows: Sequence[Row]) -> dict[str, Row]:
    """Return the rows of the same run that this one is compared with; unpriced is that of the same server."""
    found: dict[str, Row] = {}
    for other in rows:
        case = other.case
        if other is row or case.connections != row.case.connections:
            continue
        if case.kind in ("bare", "nginx") or (case.kind == "unpriced" and case.server == row.case.server):
            found[case.kind] = other
        if (case.kind, case.agents, case.server) == (row.case.kind, row.case.agents, row.case.server + OTHER):
            found["other"] = other
    return found


def _row_document(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    case = row.case
    return {
        "name": case.name,
        "kind": case.kind,
        "server": case.server or None,
        "connections": case.connections,
        "agents": case.agents,
        "valid": row.valid,
        "requests_per_second": {
            "min": round(min(one.rate for one in row.rounds), 1),
            "median": round(row.middle("rate"), 1),
            "max": round(max(one.rate for one in row.rounds), 1),
        },
        "p50_ms": round(row.middle("p50_ms"), 3),
        "p99_ms": round(row.middle("p99_ms"), 3),
        "cpu_us_per_request": {who: row.cpu(who) for who in row.rounds[0].cpu_us},
        "ratio_to": {kind: round(row.ratio(base), 4) for kind, base in bases(row, rows).items()},
        "bad_status": sum(one.bad_status for one in row.rounds),
        "socket_errors": sum(one.socket_errors for one in row.rounds),
        "rounds": [
            {"requests": one.requests, "seconds": round(one.seconds, 3), "requests_per_second": round(one.rate, 1),
             "p50_ms": round(one.p50_ms, 3), "p99_ms": round(one.p99_ms, 3), "cpu_us_per_request": one.cpu_us}
            for one in row.rounds
        ],
    }  # fmt: skip


def _cells(row: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    rates = [one.rate for one in row.rounds]
    base = bases(row, rows)
    ratios = [f"{row.ratio(base[kind]):.3f}" if kind in base else "" for kind in ("bare", "nginx", "unpriced", "other")]
    marked = row.case.name if row.valid else f"INVALID {row.case.name}"
    return (
        str(row.case.connections), marked, f"{min(rates):.0f}", f"{row.middle('rate'):.0f}", f"{max(rates):.0f}",
        f"{row.middle('p50_ms'):.2f}", f"{row.middle('p99_ms'):.2f}", f"{row.cpu('proxy'):.0f}",
        f"{row.cpu('postgres'):.0f}", f"{row.cpu('valkey'):.0f}", *ratios,
    )  # fmt: skip


def _markdown_table(rows: Sequence[Row]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return [line(HEAD), line(["---"] * len(HEAD)), *(line(_cells(row, rows)) for row in rows)]
