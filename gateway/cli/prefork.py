"""Several hypercorn workers that drain.

hypercorn's own parent sends SIGTERM to every worker as soon as the first of them has finished, and its workers leave
that signal to its default: a worker that is still answering dies (seen with 0.18.0, two workers, one call in flight).
Here each worker handles SIGTERM itself, as it does when it runs alone, and the parent passes signals on and puts
another worker in the place of one that was killed.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

from hypercorn.asyncio.run import uvloop_worker
from hypercorn.config import Config, Sockets

from gateway.cli import hypercorn_http2, hypercorn_protocol

log = logging.getLogger(__name__)

SETTLED_SECONDS = 3.0  # who is killed earlier may be killed by its start, again and again


def run(config: Config) -> int:
    """Serve with `config.workers` processes until SIGTERM or SIGINT; 1 when a worker ended by itself."""
    sockets = config.create_sockets()
    context = get_context("spawn")

    def made() -> SpawnProcess:
        return context.Process(target=_serve, args=(config, sockets))

    workers = [made() for _ in range(config.workers)]
    asked: list[int] = []

    def stop(number: int, _frame: object) -> None:
        asked.append(number)
        _terminate(workers)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    for worker in workers:
        worker.start()
    began = time.monotonic()
    while not asked:
        ended = wait([worker.sentinel for worker in workers])
        if asked or not _replace_killed(workers, ended, made, time.monotonic() - began):
            break
        began = time.monotonic()
    _terminate(workers)  # asked while some of them did not exist yet; or one cannot serve, which who runs us shall see
    for worker in workers:
        worker.join()
    for sock in (*sockets.secure_sockets, *sockets.insecure_sockets):
        sock.close()
    return 0 if asked else 1


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


def _serve(config: Config, sockets: Sockets) -> None:
    """Run one worker (in its own process)."""
    hypercorn_http2.install()
    hypercorn_protocol.install()
    uvloop_worker(config, sockets)


def _terminate(workers: list[SpawnProcess]) -> None:
    for worker in workers:
        if worker.pid is not None and worker.is_alive():
            worker.terminate()
