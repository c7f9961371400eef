"""One measured round of one case: load it for a while, and take the CPU times of everybody concerned around it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.plain_http import HOST
from benchmarks.processes import cpu_seconds
from benchmarks.stack import ROOT

LUA = Path(__file__).with_name("load.lua")


@dataclass(frozen=True, slots=True)
class Case:
    """What is called: a proxy (or the upstream itself), a target, and how many agents take turns.

    `kind` is bare, nginx, unpriced or prepaid; `server` the gateway's server, empty for the others.
    """

    kind: str
    server: str
    connections: int
    agents: int
    port: int
    target: str
    pid: int

    @property
    def name(self) -> str:
        """Return how the tables call it."""
        if self.kind in ("bare", "nginx"):
            return {"bare": "bare upstream", "nginx": "nginx"}[self.kind]
        callers = "one agent" if self.agents == 1 else f"{self.agents} agents"
        return f"{self.kind}, {self.server}, {callers}"


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement. CPU figures are microseconds per request of a process tree; `proxy` is what is under test."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    bad_status: int
    socket_errors: int
    cpu_us: dict[str, float]

    @property
    def rate(self) -> float:
        """Return requests per second."""
        return self.requests / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Row:
    """A case with its rounds. Valid when it answered something and every answer was 2xx."""

    case: Case
    rounds: list[Round] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Return whether the figures mean what they say."""
        return bool(self.rounds) and all(
            one.requests > 0 and not one.bad_status and not one.socket_errors for one in self.rounds
        )

    def middle(self, name: str) -> float:
        """Return the median of a figure over the rounds."""
        return median(getattr(one, name) for one in self.rounds)

    def cpu(self, who: str) -> float:
        """Return the median CPU per request of one process tree."""
        return median(one.cpu_us.get(who, 0.0) for one in self.rounds)

    def ratio(self, base: Row) -> float:
        """Return the median of this row's rate over the base's, round by round: drift between rounds cancels out."""
        return median(
            mine.rate / other.rate if other.rate else 0.0 for mine, other in zip(self.rounds, base.rounds, strict=False)
        )


class Generator:
    """wrk, or the built-in generator where wrk is missing."""

    def __init__(self, choice: str, keys: Mapping[int, Path]) -> None:
        self._wrk = shutil.which("wrk") if choice in ("auto", "wrk") else None
        if choice == "wrk" and self._wrk is None:
            raise SystemExit("--generator wrk: there is no wrk on PATH (Debian: apt-get install wrk)")
        self._keys = keys

    @property
    def name(self) -> str:
        """Return which one it is."""
        return "wrk" if self._wrk else "builtin"

    def load(self, case: Case, seconds: float) -> dict[str, float]:
        """Load a case and return the summary. Raises RuntimeError with what the generator said instead of one."""
        keys = str(self._keys[case.agents]) if case.agents else "-"
        done = subprocess.run(self._command(case, keys, seconds), cwd=ROOT, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            if line.startswith("SUMMARY "):
                return json.loads(line.removeprefix("SUMMARY "))
        raise RuntimeError(f"the load generator gave no summary: {done.stdout[-500:]}{done.stderr[-500:]}")

    def _command(self, case: Case, keys: str, seconds: float) -> Sequence[str]:
        if self._wrk is None:
            return [
                sys.executable, "-m", "benchmarks.generator",
                str(case.port), case.target, keys, str(case.connections), str(seconds),
            ]  # fmt: skip
        return [
            self._wrk, "-t1", f"-c{case.connections}", f"-d{_wrk_seconds(seconds)}s", "--timeout", "30s",
            "-s", str(LUA), f"http://{HOST}:{case.port}", "--", case.target, keys,
        ]  # fmt: skip


def _wrk_seconds(seconds: float) -> int:
    """wrk knows whole seconds only."""
    return max(1, round(seconds))


def measure(generator: Generator, case: Case, seconds: float, others: Mapping[str, int]) -> Round:
    """Run one round; `others` are the processes beside the case's own whose CPU time is wanted."""
    roots = {"proxy": case.pid, **others}
    before = {name: cpu_seconds([pid]) for name, pid in roots.items()}
    summary = generator.load(case, seconds)
    after = {name: cpu_seconds([pid]) for name, pid in roots.items()}
    requests = int(summary["requests"])
    return Round(
        requests,
        summary["seconds"],
        summary["p50_ms"],
        summary["p99_ms"],
        int(summary["bad_status"]),
        int(summary["socket_errors"]),
        {name: round((after[name] - before[name]) * 1e6 / max(requests, 1), 1) for name in roots},
    )
