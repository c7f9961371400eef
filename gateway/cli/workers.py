"""The parent of several worker processes, for servers without one of their own that lets calls in flight finish.

It passes signals on to its workers, which each handle SIGTERM as when they run alone, and puts another in the place of
one that was killed. Whoever kills workers too fast, or a worker that ends by itself, ends the service: who runs it
shall see why.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

log = logging.getLogger(__name__)

SETTLED_SECONDS = 3.0  # who is killed earlier may be killed by its start, again and again


def run(number: int, serve: Callable[..., int | None], *arguments: object) -> int:
    """Run `serve(*arguments)` in `number` processes until SIGTERM or SIGINT; 1 when a worker ended by itself.

    Both are pickled. What `serve` returns is the exit status of its process.
    """
    context = get_context("spawn")

    def made() -> SpawnProcess:
        return context.Process(target=_work, args=(serve, arguments))

    workers = [made() for _ in range(number)]
    asked: list[int] = []
    told: set[int | None] = set()

    def stop(received: int, _frame: object) -> None:
        asked.append(received)
        told.update(_terminate(workers))

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    for worker in workers:
        worker.start()
    began = time.monotonic()
    while not asked:
        ended = wait([worker.sentinel for worker in workers])
        if asked or not _replace_killed(workers, ended, made, time.monotonic() - began):
            break
        began = time.monotonic()
    # Some did not exist yet when we were asked to stop, or one cannot serve and the service ends. No worker is told
    # twice: it would take that for a second request to stop, and cut off its calls.
    _terminate([worker for worker in workers if worker.pid not in told])
    for worker in workers:
        worker.join()
    return 0 if asked else 1


def _work(serve: Callable[..., int | None], arguments: tuple[object, ...]) -> None:
    sys.exit(serve(*arguments))


def _replace_killed(
    workers: list[SpawnProcess], ended: Sequence[object], made: Callable[[], SpawnProcess], seconds: float
) -> bool:
    """Start others for workers that were killed; False when one ended by itself or within `seconds` of its start.

    `ended` are the sentinels of those that ended.
    """
    for position, worker in enumerate(workers):
        if worker.sentinel not in ended:
            continue
        worker.join()  # its sentinel closes a moment before it can be waited for, and is_alive() would still say yes
        code = worker.exitcode or 0
        if code >= 0 or seconds < SETTLED_SECONDS:
            return False
        log.error("worker %s was killed by %s: another takes its place", worker.pid, signal.Signals(-code).name)
        workers[position] = made()
        workers[position].start()
    return True


def _terminate(workers: Sequence[SpawnProcess]) -> list[int]:
    """Ask those that run to stop, and return their pids."""
    running = [(worker.pid, worker) for worker in workers if worker.pid is not None and worker.is_alive()]
    for _, worker in running:
        worker.terminate()
    return [pid for pid, _ in running]
