"""Several hypercorn workers that drain.

hypercorn's own parent sends SIGTERM to every worker as soon as the first of them has finished, and its workers leave
that signal to its default: a worker that is still answering dies (seen with 0.18.0, two workers, one call in flight).
Here each worker handles SIGTERM itself, as it does when it runs alone, and the parent only passes signals on.
"""

from __future__ import annotations

import signal
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

from hypercorn.asyncio.run import uvloop_worker
from hypercorn.config import Config, Sockets

from gateway.cli import hypercorn_http2, hypercorn_protocol


def run(config: Config) -> int:
    """Serve with `config.workers` processes until SIGTERM or SIGINT; 1 when a worker ended by itself."""
    sockets = config.create_sockets()
    context = get_context("spawn")
    workers = [context.Process(target=_serve, args=(config, sockets)) for _ in range(config.workers)]
    asked: list[int] = []

    def stop(number: int, _frame: object) -> None:
        asked.append(number)
        _terminate(workers)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    for worker in workers:
        worker.start()
    if asked:
        _terminate(workers)  # asked while some of them did not exist yet
    wait([worker.sentinel for worker in workers])
    if not asked:
        _terminate(workers)  # one has died: whoever runs us shall see it, rather than half a service
    for worker in workers:
        worker.join()
    for sock in (*sockets.secure_sockets, *sockets.insecure_sockets):
        sock.close()
    return 0 if asked else 1


def _serve(config: Config, sockets: Sockets) -> None:
    """Run one worker (in its own process)."""
    hypercorn_http2.install()
    hypercorn_protocol.install()
    uvloop_worker(config, sockets)


def _terminate(workers: list[SpawnProcess]) -> None:
    for worker in workers:
        if worker.pid is not None and worker.is_alive():
            worker.terminate()
