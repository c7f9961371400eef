"""`python -m benchmarks.profile`: where a gateway's time goes under load.

Two tools look at once: py-spy at the Python functions (only threads that hold the GIL are counted, so waiting is not),
and perf, where it is installed, at everything, the kernel included.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks import tools
from benchmarks.cases import DEFAULT_SERVER, MANY, OURS, SERVERS, Case
from benchmarks.generator import Answers
from benchmarks.processes import tree
from benchmarks.rounds import Caller
from benchmarks.stack import Stack, running

SAMPLES_PER_SECOND = 250
STARTING = 0.95
PERF_LINE = re.compile(r"^ +(\d+\.\d+)% +(\S+) +\[(.)\] (.+)$")


@dataclass(frozen=True, slots=True)
class Profile:
    """Shares of the samples: Python functions by themselves and with all they call, and native symbols by object."""

    case: Case
    answers: Answers
    alone: list[tuple[str, float]]
    within: list[tuple[str, float]]
    native: list[tuple[str, float]]
    objects: list[tuple[str, float]]

    def markdown(self, top: int) -> str:
        """Return the tables."""
        parts = [
            f"# {self.case.name}, {self.case.connections} connections",
            f"{self.answers.rate:.0f} calls/s while sampled, which costs some. Shares of the samples of the gateway's"
            " process tree.",
        ]
        tables = (
            ("Where the processor is (perf)", self.objects),
            ("Functions of any kind by themselves (perf)", self.native),
            ("Python functions by themselves (py-spy, holding the GIL)", self.alone),
            ("Python functions with what they call", self.within),
        )
        for title, shares in tables:
            if shares:
                lines = [f"| {share:.1%} | `{name}` |" for name, share in shares[:top]]
                parts += [f"## {title}", "\n".join(["| share | what |", "|---|---|", *lines])]
        return "\n\n".join(parts) + "\n"


def sample(stack: Stack, caller: Caller, case: Case, seconds: int, *, lines: bool = False) -> Profile:
    """Load one case and look at its process tree meanwhile, with one tool after the other."""
    door = stack.doors[case.door]
    caller.load(case, door, 2)
    folded, recorded = stack.directory / "stacks", stack.directory / "perf.data"
    spy: list[str | Path] = [
        tools.spy(), "record", "-p", str(door.pid), "--subprocesses", "-d", str(seconds), "-r", str(SAMPLES_PER_SECOND),
        "-f", "raw", "--gil", *([] if lines else ["--function"]), "-o", folded,
    ]  # fmt: skip
    answers = _loaded(caller, stack, case, seconds, spy)
    native: list[tuple[str, float]] = []
    objects: list[tuple[str, float]] = []
    perf = shutil.which("perf")
    if perf:
        pids = ",".join(map(str, tree([door.pid])))
        _loaded(
            caller, stack, case, seconds,
            [perf, "record", "-q", "-F", "499", "-p", pids, "-o", recorded, "--", "sleep", str(seconds)],
        )  # fmt: skip
        native, objects = _native(perf, recorded)
    alone, within = count(folded.read_text(encoding="utf-8"))
    return Profile(case, answers, alone, within, native, objects)


def _loaded(caller: Caller, stack: Stack, case: Case, seconds: int, command: list[str | Path]) -> Answers:
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(caller.load, case, stack.doors[case.door], seconds + 1)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
        if done.returncode:
            print(f"{Path(command[0]).name}: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return loading.result()


def count(folded: str) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Return the shares of each function by itself and with what it calls, the largest first, of folded stacks."""
    alone, within, total = Counter[str](), Counter[str](), 0
    for frames, samples in _read(folded):
        total += samples
        alone[frames[-1]] += samples
        for frame in set(frames):
            within[frame] += samples
    # What is below nearly all samples is how a process starts.
    inner = [(name, one / total) for name, one in within.most_common() if one < STARTING * total]
    return [(name, one / total) for name, one in alone.most_common()], inner


def _read(folded: str) -> Iterator[tuple[list[str], int]]:
    for line in folded.splitlines():
        frames, _, samples = line.rpartition(" ")
        # What stands first is the process and its thread.
        kept = [frame for frame in frames.split(";") if not frame.startswith(("process ", "thread "))]
        if kept:
            yield [_place_hidden(frame) for frame in kept], int(samples)


def _place_hidden(frame: str) -> str:
    """Return a frame with its file and one directory: where things are installed is nobody's business."""
    return re.sub(r"\(/[^)]*/([^/)]+/[^/)]+)\)", r"(\1)", frame)


def _native(perf: str, recorded: Path) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    done = subprocess.run(
        [perf, "report", "-i", recorded, "--stdio", "--no-children", "-F", "overhead,dso,symbol", "-g", "none"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return native_shares(done.stdout)


def native_shares(report: str) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Return the shares of symbols, and of the objects that they are in, the largest first, of perf's report."""
    symbols: dict[str, float] = {}
    objects: dict[str, float] = {}
    for line in report.splitlines():
        found = PERF_LINE.match(line)
        if found:
            share, where = float(found[1]) / 100, "kernel" if found[3] == "k" else found[2]
            name = "(no name)" if found[4].startswith("0x") else found[4].strip()
            for shares, key in ((symbols, f"{where}: {name}"), (objects, where)):
                shares[key] = shares.get(key, 0.0) + share
    return _largest_first(symbols), _largest_first(objects)


def _largest_first(shares: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda one: -one[1])


@click.command()
@click.option("--kind", type=click.Choice(OURS), default="prepaid", show_default=True)
@click.option("--server", type=click.Choice(SERVERS), default=DEFAULT_SERVER, show_default=True)
@click.option("--connections", type=click.IntRange(1, 10_000), default=64, show_default=True)
@click.option("--agents", type=click.IntRange(1, 100_000), default=MANY, show_default=True)
@click.option("--seconds", type=click.IntRange(2, 600), default=8, show_default=True)
@click.option("--lines", is_flag=True, help="By source line instead of by function.")
@click.option("--top", type=click.IntRange(1, 500), default=30, show_default=True)
def main(*, kind: str, server: str, connections: int, agents: int, seconds: int, lines: bool, top: int) -> None:
    """Load one case and sample its process tree meanwhile."""
    case = Case("prepaid" if kind == "prepaid" else "unpriced", server, connections=connections, agents=agents)
    with running([case.door], agents=agents) as stack:
        print(sample(stack, Caller(stack), case, seconds, lines=lines).markdown(top))


if __name__ == "__main__":
    main()
