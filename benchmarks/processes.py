"""CPU time, memory and cores of process trees from /proc.

A tree's time includes children that have ended and were waited for, so a worker that is replaced does not vanish.
Linux only.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Iterable
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
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
    fields = [int(ticks) for ticks in Path("/proc/stat").read_bytes().split(b"\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, irq, softirq, stolen = fields
    return (user + nice + system + irq + softirq + stolen) / TICK


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


@contextlib.contextmanager
def pinned(proxy: int, others: Iterable[int]) -> Generator[None]:
    """Keep a proxy's tree on the first core, and ourselves and the other trees on the rest; undo it afterwards."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("pinning needs two cores: one for the proxy and one for everything else")
    rest = [os.getpid(), *(pid for pid in others if pid != proxy)]
    _bind(tree(rest), set(cores[1:]))
    _bind(tree([proxy]), set(cores[:1]))  # last: it is our child too
    try:
        yield
    finally:
        _bind(tree([*rest, proxy]), set(cores))


def _bind(processes: Iterable[int], cores: set[int]) -> None:
    for pid in processes:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(thread), cores)
