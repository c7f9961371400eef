"""The operators' own port: metrics and the operators' API, away from the public one.

Each worker listens there, with SO_REUSEPORT, and answers for all: their metrics add up, and everything else is in the
database. The listener is our own server, inside the worker, whatever server the public port has. What does not live
here: which operations these are (admin_api/app.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from admin_api.app import build_operations
from gateway.server.asgi import Asgi
from gateway.server.connection import Service
from gateway.server.worker import bind, keep_time, limits
from gateway.services import Services

BACKLOG = 128
END_SECONDS = 1  # for answers that are under way when the worker ends


@contextlib.asynccontextmanager
async def operations_door(services: Services) -> AsyncGenerator[None]:
    """Listen meanwhile. Raises OSError when that is not possible."""
    settings, loop = services.settings.server, asyncio.get_running_loop()
    asgi = Asgi(build_operations(services))
    service = Service(limits(services.settings), asgi.open, loop.time)
    listener = bind(settings.operations_host, settings.operations_port, shared=True)
    server = await loop.create_server(service.connect, sock=listener, backlog=BACKLOG)
    clock = loop.create_task(keep_time(service, settings.keep_alive))
    try:
        yield
    finally:
        service.draining = True
        server.close()
        service.end_idle()
        if asgi.tasks:
            await asyncio.wait(asgi.tasks, timeout=END_SECONDS)
        for task in asgi.tasks:
            task.cancel()
        service.abort()
        clock.cancel()
