"""One measured round of one case: load it for a while, and take the CPU times of everybody concerned around it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from benchmarks import generator
from benchmarks.cases import OTHER, OURS, Case
from benchmarks.generator import Answers
from benchmarks.processes import Layout, cpu_seconds, kernel_seconds, machine_seconds, pinned, softirqs_are_apart
from benchmarks.seeding import FREE
from benchmarks.stack import PEER_KEYS, PEER_TARGETS, Running, Stack
from benchmarks.traffic import SHAPES, heads, write_heads

NAMES = {
    "proxy": "the proxy", "postgres": "PostgreSQL", "valkey": "Valkey", "upstream": "the upstream",
    "generator": "the load generator", "others": "others",
}  # fmt: skip
TREES = tuple(name for name in NAMES if name != "others")
EVERYTHING = (*NAMES, "softirq", "all")  # softirq: a part of the others' figures, or apart (softirqs_are_apart)
OPEN_CONNECTIONS = 256  # of an open loop, where a case names fewer
WARM_CONNECTIONS, WARM_SECONDS, WARM_MOST = 64, 1.0, 30.0
MEETINGS = 4  # calls of each agent for each of several workers


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement. CPU figures are microseconds per good answer of a process tree; `proxy` is what is under test.

    `busy` is the share of all cores that each tree kept busy, the load generator among them; `others` is everything
    else on the machine, `all` is both together, and `softirq` what the kernel did in soft interrupts, which is most of
    the network's part (processes.softirqs_are_apart says whether it is a part of the trees' figures).
    """

    answers: Answers
    cpu_us: dict[str, float]
    busy: dict[str, float]

    @property
    def rate(self) -> float:
        """Return good answers per second."""
        return self.answers.rate


@dataclass(slots=True)
class Row:
    """A case with its rounds through one door: Case.door, or that of another checkout."""

    case: Case
    door: str
    rounds: list[Round] = field(default_factory=list)

    @property
    def door_name(self) -> str:
        """Return how the tables call it."""
        return self.case.name + (OTHER if self.door.endswith(OTHER) else "")

    @property
    def valid(self) -> bool:
        """Return whether it answered something in each round and every answer was good."""
        return bool(self.rounds) and all(one.answers.clean for one in self.rounds)

    @property
    def doubt(self) -> str:
        """Return what went wrong, in words; empty when nothing did."""
        if self.valid:
            return ""
        seen = [one.answers for one in self.rounds]
        if not all(one.ok for one in seen):
            return "no good answer within a round"
        bad = {one.last_bad for one in seen if one.last_bad}
        return (
            f"{sum(one.shed for one in seen)} shed, {sum(one.bad_status for one in seen)} other statuses {sorted(bad)},"
            f" {sum(one.socket_errors for one in seen)} broken, {sum(one.unfinished for one in seen)} unfinished"
        )

    def middle(self, name: str) -> float:
        """Return the median of one of Answers' figures over the rounds."""
        return median(getattr(one.answers, name) for one in self.rounds)

    def cpu(self, who: str) -> float:
        """Return the median CPU per answer of one process tree."""
        return median(one.cpu_us.get(who, 0.0) for one in self.rounds)

    def busy(self, who: str) -> float:
        """Return the median share of all cores that one process tree kept busy."""
        return median(one.busy.get(who, 0.0) for one in self.rounds)

    def ratio(self, base: Row) -> float:
        """Return the median of this row's rate over the base's, round by round: drift between rounds cancels out."""
        return median(
            mine.rate / other.rate if other.rate else 0.0 for mine, other in zip(self.rounds, base.rounds, strict=False)
        )


class Caller:
    """Loads cases of one stack; writes what is sent into files once."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._files: dict[tuple[object, ...], Path] = {}

    def load(self, case: Case, door: Running, seconds: float, rate: float = 0.0) -> Answers:
        """Load one door with a case's traffic; `rate` 0 is a closed loop."""
        shape = SHAPES[case.shape]
        connections = max(case.connections, OPEN_CONNECTIONS) if rate else case.connections
        return generator.load(door.port, self.file(case), connections, seconds, rate=rate, body=shape.body)

    def meet_everybody(self, case: Case, door: Running) -> None:
        """Load a door until every agent of the case has called: a worker looks a key up at its first call.

        Nobody chooses which of several workers a call comes to: after some calls most agents have come to each.
        """
        wanted = case.agents * (1 if case.workers == 1 else MEETINGS * case.workers)
        case = replace(case, connections=WARM_CONNECTIONS, pinned=False)
        called = self.load(case, door, WARM_SECONDS).started
        if called < wanted:
            self.load(case, door, min(1.3 * WARM_SECONDS * wanted / max(called, 1), WARM_MOST))

    def file(self, case: Case) -> Path:
        """Return the file of request heads of a case."""
        group = "ours" if case.kind in OURS else case.kind
        content = (group, case.kind == "prepaid", case.shape, case.agents, case.publishers, case.spread, case.repeats)
        if content not in self._files:
            bases, keys = self._bases(case), self._keys(case)
            lines = heads(SHAPES[case.shape], bases, keys, case.spread, repeats=case.repeats)
            self._files[content] = write_heads(self._stack.directory / f"heads-{len(self._files)}", lines)
        return self._files[content]

    def _bases(self, case: Case) -> Sequence[str]:
        world = self._stack.world
        if case.kind == "prepaid":
            return [f"/publishers/{slug}" for slug in world.paid[: case.publishers]]
        return [f"/publishers/{FREE}" if case.kind in OURS else PEER_TARGETS.get(case.kind, "/bare")]

    def _keys(self, case: Case) -> Sequence[str]:
        if case.kind in OURS:
            return [agent.key for agent in self._stack.world.agents[: case.agents]]
        return PEER_KEYS.get(case.kind, [])


def measure(caller: Caller, row: Row, door: Running, others: Mapping[str, int], seconds: float, rate: float) -> Round:
    """Run one round of a row; `others` are the processes beside the door's own whose CPU time is wanted."""
    roots = {"proxy": door.pid, **others}
    layout = Layout.of(sorted(os.sched_getaffinity(0)), row.case.workers)
    place = pinned(layout, door.pid, roots) if row.case.pinned else contextlib.nullcontext()
    with place:
        used = Used(roots)
        answers = caller.load(row.case, door, seconds, rate)
        spent, elapsed = used.until_now(answers), used.elapsed()
    cores = layout.cores * elapsed
    return Round(
        answers,
        {name: round(used * 1e6 / max(answers.ok_total, 1), 1) for name, used in spent.items()},
        {name: round(used / cores, 4) for name, used in spent.items()},
    )


class Used:
    """Processor time from now on, of process trees by name and of the whole machine."""

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._roots = roots
        self._began = time.monotonic()
        self._all, self._softirq, self._trees = machine_seconds(), kernel_seconds("softirq"), self._read()

    def _read(self) -> dict[str, float]:
        return {name: cpu_seconds([pid]) for name, pid in self._roots.items()}

    def elapsed(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._began

    def until_now(self, answers: Answers) -> dict[str, float]:
        """Return the seconds of each tree, the generator, soft interrupts, others, and all together."""
        trees, whole, softirq = self._read(), machine_seconds() - self._all, kernel_seconds("softirq") - self._softirq
        spent = {name: trees[name] - self._trees[name] for name in trees} | {"generator": answers.cpu_seconds}
        # The bare upstream is its own proxy, and is counted once.
        twice = spent["upstream"] if self._roots["upstream"] == self._roots["proxy"] else 0.0
        known = sum(spent.values()) - twice + (softirq if softirqs_are_apart() else 0.0)
        return spent | {"softirq": softirq, "others": max(whole - known, 0.0), "all": max(whole, known)}
