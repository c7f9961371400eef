"""Runs periodic work until it is stopped. One failed round is logged and the next one tried."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


class Runner:
    """A set of periodic tasks with one life."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def every(self, seconds: float, work: Callable[[], Awaitable[object]], name: str) -> None:
        """Run `work` now and then `seconds` after each end."""
        self._tasks.append(asyncio.get_running_loop().create_task(_repeat(seconds, work, name), name=name))

    async def stop(self) -> None:
        """Cancel all and wait for them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


async def _repeat(seconds: float, work: Callable[[], Awaitable[object]], name: str) -> None:
    failing = False
    while True:
        try:
            await work()
            failing = False
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a failed round must not end the job
            if not failing:  # one line when it begins, not one per round
                log.warning("job %s fails: %s: %s", name, type(error).__name__, error)
            failing = True
        await asyncio.sleep(seconds)
