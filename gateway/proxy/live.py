"""The calls that a worker is serving: what it waits for when it stops, and what it cuts off."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol


class Call(Protocol):
    """What is known of a call here (see Exchange)."""

    handed: float
    stalled: bool


class Live:
    """A register with one entry per call. Entering and leaving cost a dictionary write each."""

    __slots__ = ("calls", "cutting")

    def __init__(self) -> None:
        self.calls: dict[Call, asyncio.Task[Any] | None] = {}
        self.cutting = False

    def cut(self) -> None:
        """End every call now. Each settles its money: what this process does not finish costs nothing."""
        self.cutting = True
        for task in self.calls.values():
            if task is not None:
                task.cancel()

    def cut_stalled(self, before: float) -> None:
        """End the calls whose whole answer was handed over before then (perf_counter) and not taken until now.

        One look at all of them now and then, because a timer per call would cost more than sending its answer.
        """
        for call, task in self.calls.items():
            if 0 < call.handed < before and task is not None and not call.stalled:
                call.stalled = True
                task.cancel()

    async def finished(self, seconds: float) -> bool:
        """Wait for the calls that there are, and return whether all have ended in time."""
        tasks = [task for task in self.calls.values() if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return not self.calls
