"""CPU time, memory and cores of process trees from /proc.

A tree's time includes children that have ended and were waited for, so a worker that is replaced does not vanish.
Linux only.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
STATES = ("user", "nice", "system", "idle", "waiting", "irq", "softirq", "stolen")
PSS = re.compile(rb"^Pss: +(\d+) kB", re.M)


def tree(roots: Iterable[int]) -> dict[int, int]:
    """Return the processes and all their descendants, with the clock ticks that each has used."""
    table = _table()
    wanted = set(roots)
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in table.items() if parent in wanted} - wanted
        grown = bool(more)
        wanted |= more
    return {pid: table[pid][1] for pid in wanted if pid in table}


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return user and system seconds that the processes and all their descendants have used."""
    return sum(tree(roots).values()) / TICK


def machine_seconds() -> float:
    """Return the seconds of all cores in which anybody has worked, and what the host has given to other machines."""
    return sum(seconds for name, seconds in _machine().items() if name not in ("idle", "waiting"))


def kernel_seconds(name: str) -> float:
    """Return the seconds of all cores in `softirq`, `irq` or `system`."""
    return _machine()[name]


def _machine() -> dict[str, float]:
    ticks = Path("/proc/stat").read_bytes().split(b"\n", 1)[0].split()[1:9]
    return {name: int(number) / TICK for name, number in zip(STATES, ticks, strict=True)}


@cache
def softirqs_are_apart() -> bool:
    """Return whether soft interrupts are no part of the time of the process that they interrupt.

    That is how a kernel was built (CONFIG_IRQ_TIME_ACCOUNTING). Where it does not say so, it is taken from whether it
    has ever counted time in hard interrupts, which by clock ticks alone is nearly impossible.
    """
    with contextlib.suppress(OSError):
        return b"\nCONFIG_IRQ_TIME_ACCOUNTING=y" in gzip.decompress(Path("/proc/config.gz").read_bytes())
    return kernel_seconds("irq") > 0


def memory_bytes(roots: Iterable[int]) -> int:
    """Return what process trees have in memory; what several processes share is divided among them (PSS)."""
    total = 0
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            found = PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_bytes())
            total += int(found[1]) * 1024 if found else 0
    return total


def _table() -> dict[int, tuple[int, int]]:
    """Return parent and clock ticks of every process; those that end while we look are left out."""
    table: dict[int, tuple[int, int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
            table[int(entry)] = int(fields[1]), sum(map(int, fields[11:15]))
    return table


@dataclass(frozen=True, slots=True)
class Layout:
    """Which cores a gateway's workers, PostgreSQL and everything else run on."""

    workers: tuple[int, ...]  # a core each
    postgres: tuple[int, ...]
    rest: tuple[int, ...]

    @classmethod
    def of(cls, cores: Sequence[int], workers: int) -> Layout:
        """Give each worker a core of its own, PostgreSQL half of what is left, and everything else the other half.

        Where one core is left, PostgreSQL shares it with everything else; where none is left, both have all cores.
        """
        own, left = tuple(cores[index % len(cores)] for index in range(workers)), tuple(cores[workers:])
        if len(left) < 2:
            shared = left or tuple(cores)
            return cls(own, shared, shared)
        half = len(left) // 2
        return cls(own, left[:half], left[half:])

    @property
    def cores(self) -> int:
        """Return how many cores there are in all."""
        return len({*self.workers, *self.postgres, *self.rest})

    def __str__(self) -> str:
        """Say it in words."""
        workers = "; ".join(f"worker {number} on core {core}" for number, core in enumerate(self.workers, 1))
        rest = "Valkey, the upstream, the load generator"
        if self.postgres == self.rest:
            return f"{workers}; PostgreSQL, {rest} on {_cores(self.rest)}"
        return f"{workers}; PostgreSQL on {_cores(self.postgres)}; {rest} on {_cores(self.rest)}"


def _cores(numbers: Sequence[int]) -> str:
    return f"core{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


@contextlib.contextmanager
def pinned(layout: Layout, proxy: int, roots: Mapping[str, int]) -> Generator[None]:
    """Bind a proxy's workers, PostgreSQL, ourselves and all other trees as it is laid out; undo it afterwards.

    A gateway's workers are those of its processes that have worked most so far, so it must have been loaded before.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("pinning needs two cores: one for the proxy and one for everything else")
    everybody = [os.getpid(), *roots.values()]
    _bind(tree(everybody), set(layout.rest))
    _bind(tree([roots["postgres"]]), set(layout.postgres))
    mine = tree([proxy])  # last: it is our child too
    busiest = sorted(mine, key=lambda pid: -mine[pid])[: len(layout.workers)]
    _bind(mine.keys() - {*busiest}, set(layout.workers))
    for pid, core in zip(busiest, layout.workers, strict=False):
        _bind([pid], {core})
    try:
        yield
    finally:
        _bind(tree(everybody), set(cores))


def _bind(processes: Iterable[int], cores: set[int]) -> None:
    for pid in processes:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(thread), cores)
