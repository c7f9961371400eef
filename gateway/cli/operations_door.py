"""The operators' own port: metrics and the operators' API, away from the public one.

Each worker listens there, with SO_REUSEPORT, and answers for all: their metrics add up, and everything else is in the
database. The listener is a small uvicorn inside the worker, whatever server the public port has. What does not live
here: which operations these are (admin_api/app.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator

import uvicorn

from admin_api.app import build_operations
from gateway.cli.uvicorn_http import StrictProtocol
from gateway.services import Services

BACKLOG = 128
END_SECONDS = 1  # for answers that are under way when the worker ends


class _Server(uvicorn.Server):
    """Leaves the signals to the server of the public port."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def operations_door(services: Services) -> AsyncGenerator[None]:
    """Listen meanwhile. Raises OSError when that is not possible."""
    settings = services.settings.server
    config = uvicorn.Config(
        build_operations(services),
        http=StrictProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=END_SECONDS,
    )
    server, listener = _Server(config), _listen(settings.operations_host, settings.operations_port)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
