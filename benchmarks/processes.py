"""CPU time of process trees from /proc, and which cores a process may use.

A tree's time includes children that have ended and were waited for, so a worker that is replaced does not vanish.
Linux only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return user and system seconds that the processes and all their descendants have used."""
    table = _table()
    wanted = set(roots)
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in table.items() if parent in wanted} - wanted
        grown = bool(more)
        wanted |= more
    return sum(table[pid][1] for pid in wanted if pid in table) / TICK


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


class Placement:
    """Which cores the proxies under test get and which everything else. Without `pin` nothing is bound."""

    def __init__(self, *, pin: bool) -> None:
        cores = sorted(os.sched_getaffinity(0))
        if pin and len(cores) < 2:
            raise SystemExit("--pin needs two cores: one for the gateway and one for everything else")
        self.proxy = set(cores[:1]) if pin else set(cores)
        self.rest = set(cores[1:]) if pin else set(cores)
        if pin:
            os.sched_setaffinity(0, self.rest)

    @contextlib.contextmanager
    def for_proxy(self) -> Generator[None]:
        """Let what is started inside inherit the proxies' cores."""
        os.sched_setaffinity(0, self.proxy)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.rest)
