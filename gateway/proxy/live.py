"""The calls that a worker is serving: what it waits for when it stops, and then cuts off."""

from __future__ import annotations

import asyncio
from typing import Any


class Live:
    """A register with one entry per call. Entering and leaving cost a dictionary write each."""

    __slots__ = ("calls", "cutting")

    def __init__(self) -> None:
        self.calls: dict[object, asyncio.Task[Any] | None] = {}
        self.cutting = False

    def cut(self) -> None:
        """End every call now. Each settles its money: what this process does not finish costs nothing."""
        self.cutting = True
        for task in self.calls.values():
            if task is not None:
                task.cancel()

    async def finished(self, seconds: float) -> bool:
        """Wait for the calls that there are, and return whether all have ended in time."""
        tasks = [task for task in self.calls.values() if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return not self.calls
