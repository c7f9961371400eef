"""The outcome of a comparison: Markdown to read and JSON to compare."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.x402.rounds import PaidRow

HEAD = (
    "seller", "calls/s min", "median", "max", "settled/s", "p50 ms", "p99 ms", "server us", "facilitator us", "PG us",
    "chain us", "x fastapi", "x express",
)  # fmt: skip
GOALS = {"deferred": 5.0, "before_response": 2.0}

NOTES = """`calls/s` are answered calls, each with a fresh payment; `settled/s` counts a round's payments until the last
one is on the chain, the {connections} calls included that were cut off. CPU is microseconds per call of a process tree,
settlement included; `server` is the gateway with its relayer, or the official server. The last columns are calls/s over
the better of an official server's two figures (with its own facilitator), the median of the ratios within a round."""


@dataclass(slots=True)
class PaidReport:
    """Everything that is known after a run. `capacity` is calls per second of the generator without a seller."""

    name: str
    started_at: str
    command: str
    options: dict[str, Any]
    machine: dict[str, Any]
    load: list[str]
    capacity: float
    proof: dict[str, Any]
    rows: list[PaidRow]

    @property
    def valid(self) -> bool:
        """Return whether the books agree with the chain and all of our rows are valid."""
        return bool(self.proof["sound"]) and all(row.valid for row in self.rows if row.seller.sdk == "tollway")

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "schema": 1,
            "name": self.name,
            "started_at": self.started_at,
            "command": self.command,
            "valid": self.valid,
            "options": self.options,
            "machine": self.machine,
            "load_average": self.load,
            "generator_calls_per_second": self.capacity,
            "proof": self.proof,
            "goals": [*self._goals()],
            "rows": [self._row_document(row) for row in self.rows],
        }

    def markdown(self) -> str:
        """Return the report for people."""
        machine = self.machine
        parts = [
            f"# Calls paid on a chain, {self.name}",
            f"`{self.command}`, {self.started_at}, load average {', '.join(self.load)} on {machine['cores']} cores. "
            + ("All of our rows are valid." if self.valid else "**Some figures are not valid.**"),
        ]
        for blocks in dict.fromkeys(row.blocks for row in self.rows):
            rows = [row for row in self.rows if row.blocks == blocks]
            parts.append(f"## {blocks.name}")
            parts.append("\n".join([_line(HEAD), _line(["---"] * len(HEAD)), *(_line(self._cells(r)) for r in rows)]))
        parts.append(NOTES.format(connections=self.rows[0].connections))
        parts.append("\n".join([
            *(f"- {goal['policy']}, {goal['blocks']}: {goal['ratio']:.1f} times the official Python server, at least"
              f" {goal['wanted']:.0f} wanted" for goal in self._goals()),
            f"- {self.proof_line()}",
            f"- the generator does {self.capacity:.0f} such calls a second where nothing has to be paid",
            f"- machine: {machine['cpu']}, {machine['memory_mib']} MiB, Linux {machine['kernel']}, Python"
            f" {machine['python']}; chain: anvil",
        ]))  # fmt: skip
        return "\n\n".join(parts) + "\n"

    def proof_line(self) -> str:
        """Return what chain and books say of each other, in one line."""
        proof = self.proof
        return (
            f"books: {'sound' if proof['sound'] else 'BROKEN ' + json.dumps(proof['violations'])};"
            f" {proof['payments_booked']} payments booked, {proof['payments_settled_on_chain']} on the chain, the"
            f" treasury gained {proof['treasury_gained']} and the ledger received {proof['ledger_received']} atomic"
            f" units; {proof['answers']} answers, {proof['served_by_the_upstream']} calls of the upstream;"
            f" {proof['open']} open, {proof['failed_or_cancelled']} failed or cancelled"
        )

    def write(self, directory: Path) -> Path:
        """Write NAME.json and NAME.md and return the latter."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{self.name}.json").write_text(json.dumps(self.document(), indent=1) + "\n", encoding="utf-8")
        file = directory / f"{self.name}.md"
        file.write_text(self.markdown(), encoding="utf-8")
        return file

    def _goals(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            base = base_of(row, "fastapi", self.rows)
            if row.seller.sdk == "tollway" and row.seller.way in GOALS and base is not None:
                wanted, ratio = GOALS[row.seller.way], row.ratio(base)
                yield {"policy": row.seller.way, "blocks": row.blocks.name, "ratio": round(ratio, 2), "wanted": wanted}

    def _row_document(self, row: PaidRow) -> dict[str, Any]:
        return {
            "seller": row.seller.sdk,
            "way": row.seller.way,
            "blocks": row.blocks.name,
            "connections": row.connections,
            "valid": row.valid,
            "ratio_to": {sdk: round(row.ratio(base), 3) for sdk, base in self._bases(row)},
            "rounds": [
                {"calls": one.calls, "seconds": round(one.seconds, 3), "calls_per_second": round(one.rate, 2),
                 "settled": one.settled, "settled_per_second": round(one.settled_rate, 2),
                 "drained_seconds": round(one.drained, 2), "p50_ms": round(one.p50_ms, 2),
                 "p99_ms": round(one.p99_ms, 2), "served": one.served, "bad_status": one.bad_status,
                 "socket_errors": one.socket_errors, "exhausted": one.exhausted, "cpu_us_per_call": one.cpu_us}
                for one in row.rounds
            ],
        }  # fmt: skip

    def _bases(self, row: PaidRow) -> Iterator[tuple[str, PaidRow]]:
        for sdk in ("fastapi", "express"):
            base = base_of(row, sdk, self.rows)
            if base is not None and base is not row:
                yield sdk, base

    def _cells(self, row: PaidRow) -> Sequence[str]:
        rates, ratios = [one.rate for one in row.rounds], {sdk: row.ratio(base) for sdk, base in self._bases(row)}
        return (
            row.seller.name if row.valid else f"INVALID {row.seller.name}",
            f"{min(rates):.1f}", f"{row.middle('rate'):.1f}", f"{max(rates):.1f}", f"{row.middle('settled_rate'):.1f}",
            f"{row.middle('p50_ms'):.0f}", f"{row.middle('p99_ms'):.0f}", f"{row.cpu('server'):.0f}",
            f"{row.cpu('facilitator'):.0f}" if "facilitator" in row.rounds[0].cpu_us else "",
            f"{row.cpu('postgres'):.0f}", f"{row.cpu('chain'):.0f}",
            *(f"{ratios[sdk]:.1f}" if sdk in ratios else "" for sdk in ("fastapi", "express")),
        )  # fmt: skip


def base_of(row: PaidRow, sdk: str, rows: Sequence[PaidRow]) -> PaidRow | None:
    """Return the official server with its own facilitator that a row is compared with, if it was measured."""
    return next(
        (
            one
            for one in rows
            if one.seller.sdk == sdk and one.seller.way == "own facilitator" and one.blocks == row.blocks
        ),
        None,
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
