"""The worker processes of a gateway under test."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path


def workers(parent: int) -> set[int]:
    """Return the pids of the workers that a gateway's process has."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split()
    return {int(pid) for pid in children if not _tracks_resources(int(pid))}


def _tracks_resources(pid: int) -> bool:
    """Say whether it is the helper of `multiprocessing` instead of a worker."""
    with contextlib.suppress(FileNotFoundError):
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


async def replaced(parent: int, worker: int, number: int) -> set[int]:
    """Wait until a worker has gone and `number` are there; return them."""
    async with asyncio.timeout(90):
        while True:
            now = workers(parent)
            if worker not in now and len(now) == number:
                return now
            await asyncio.sleep(0.05)
