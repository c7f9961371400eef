"""hypercorn's workers, one or several, that drain.

hypercorn's own parent sends SIGTERM to every worker as soon as the first of them has finished, and its workers leave
that signal to its default: a worker that is still answering dies (seen with 0.18.0, two workers, one call in flight).
Here each worker handles SIGTERM itself, as it does when it runs alone, below our own parent (workers.py), and on a loop
that lets the application hear of it first.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from hypercorn.asyncio.run import worker_serve  # pyright: ignore[reportUnknownVariableType]
from hypercorn.config import Config, Sockets
from hypercorn.utils import load_application

from gateway.cli import hypercorn_http2, hypercorn_protocol, workers
from gateway.cli.heedful_loop import HeedfulLoop


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; 1 when a worker ended by itself. One worker is this process."""
    sockets = config.create_sockets()
    try:
        if config.workers > 1:
            return workers.run(config.workers, _serve, config, sockets)
        _serve(config, sockets)
        return 0
    finally:
        for sock in (*sockets.secure_sockets, *sockets.insecure_sockets):
            sock.close()


def _serve(config: Config, sockets: Sockets) -> None:
    """Run one worker, in this process."""
    hypercorn_http2.install()
    hypercorn_protocol.install()
    application = load_application(config.application_path, config.wsgi_max_body_size)
    with asyncio.Runner(loop_factory=HeedfulLoop) as runner:
        runner.get_loop().set_exception_handler(_note)
        runner.run(worker_serve(application, config, sockets=sockets))


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what went wrong in the loop, but for TLS that a client did not come to terms with."""
    if not isinstance(context.get("exception"), ssl.SSLError):
        loop.default_exception_handler(context)
