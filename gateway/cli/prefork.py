"""Several hypercorn workers that drain.

hypercorn's own parent sends SIGTERM to every worker as soon as the first of them has finished, and its workers leave
that signal to its default: a worker that is still answering dies (seen with 0.18.0, two workers, one call in flight).
Here each worker handles SIGTERM itself, as it does when it runs alone, below our own parent (workers.py).
"""

from __future__ import annotations

from hypercorn.asyncio.run import uvloop_worker
from hypercorn.config import Config, Sockets

from gateway.cli import hypercorn_http2, hypercorn_protocol, workers


def run(config: Config) -> int:
    """Serve with `config.workers` processes until SIGTERM or SIGINT; 1 when a worker ended by itself."""
    sockets = config.create_sockets()
    try:
        return workers.run(config.workers, _serve, config, sockets)
    finally:
        for sock in (*sockets.secure_sockets, *sockets.insecure_sockets):
            sock.close()


def _serve(config: Config, sockets: Sockets) -> None:
    """Run one worker (in its own process)."""
    hypercorn_http2.install()
    hypercorn_protocol.install()
    uvloop_worker(config, sockets)
