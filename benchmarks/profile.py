"""`python -m benchmarks.profile`: where a gateway's Python time goes under load, by py-spy (pip install py-spy).

Only threads that hold the GIL are counted, so waiting is not. Prints the functions with the largest share of samples:
by themselves, and with all that they call.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.__main__ import SERVERS, cases, key_files
from benchmarks.processes import Placement
from benchmarks.rounds import Generator
from benchmarks.stack import running


@click.command()
@click.option("--kind", type=click.Choice(["unpriced", "prepaid"]), default="prepaid", show_default=True)
@click.option("--server", type=click.Choice(SERVERS), default="granian", show_default=True)
@click.option("--connections", type=click.IntRange(1, 10_000), default=64, show_default=True)
@click.option("--agents", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--seconds", type=click.IntRange(2, 600), default=8, show_default=True)
@click.option("--lines", is_flag=True, help="By source line instead of by function.")
@click.option("--top", type=click.IntRange(1, 500), default=30, show_default=True)
@click.option("--stacks", type=click.Path(path_type=Path, dir_okay=False), help="Keep the folded stacks here.")
def main(
    *, kind: str, server: str, connections: int, agents: int, seconds: int, lines: bool, top: int, stacks: Path | None
) -> None:
    """Load one case and sample its process tree meanwhile."""
    spy = shutil.which("py-spy")
    if spy is None:
        raise SystemExit("there is no py-spy on PATH: pip install py-spy")
    with running([server], agents=agents, workers=1, nginx=False, placement=Placement(pin=False)) as stack:
        generator = Generator("auto", key_files(stack, [agents]))
        case = next(case for case in cases(stack, [connections], [agents]) if case.kind == kind)
        generator.load(case, 2)
        folded = stack.directory / "stacks"
        command = [
            spy,
            "record",
            "-p",
            str(case.pid),
            "--subprocesses",
            "-d",
            str(seconds),
            "-r",
            "250",
            "-f",
            "raw",
            "--gil",
        ]
        names = [] if lines else ["--function"]
        with subprocess.Popen([*command, *names, "-o", folded], stdout=sys.stderr, stderr=sys.stderr) as recorder:
            summary = generator.load(case, seconds)
            recorder.wait(60)
        print(f"{case.name}: {summary['requests'] / summary['seconds']:.0f} req/s while sampled")
        if stacks is not None:
            shutil.copyfile(folded, stacks)
        _print(folded, top)


def _print(folded: Path, top: int) -> None:
    alone, within, total = Counter[str](), Counter[str](), 0
    for frames, samples in _read(folded):
        total += samples
        alone[frames[-1]] += samples
        for frame in set(frames):
            within[frame] += samples
    for title, counter in (("by itself", alone), ("with what it calls", within)):
        print(f"\n{title}:")
        for frame, samples in counter.most_common(top):
            print(f"  {samples / total:6.1%}  {frame}")


def _read(folded: Path) -> Iterator[tuple[list[str], int]]:
    for line in folded.read_text(encoding="utf-8").splitlines():
        frames, _, samples = line.rpartition(" ")
        # What stands first is the process and its thread.
        kept = [frame for frame in frames.split(";") if not frame.startswith(("process ", "thread "))]
        if kept:
            yield kept, int(samples)


if __name__ == "__main__":
    main()
