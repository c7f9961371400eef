"""A worker of the server: it starts an ASGI application, listens, and stops without losing a call.

On SIGTERM or SIGINT it stops accepting, ends connections with the answers on them and idle ones a moment later, waits
for calls in flight as long as it may, and ends the application last. What does not live here: several workers
(cli/workers.py), and what the application does about the signal itself (gateway/drain.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import signal
import socket
import ssl
from typing import Any

import uvloop

from gateway.server.asgi import ASGI, Application, Asgi, Message
from gateway.server.connection import Service
from gateway.server.seam import Limits
from gateway.server.websocket import Sockets
from gateway.settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 2_048
LOOK_SECONDS = 1.0
HANDSHAKE_SECONDS = 10.0
SHUTDOWN_SECONDS = 5.0
# At the end: how long a connection waits for a request that is on its way, and how long for the loop to have read it.
LAST_REQUEST_SECONDS, LAST_READ_SECONDS = 0.25, 0.05
# The application cuts off what is still running after the drain and settles its money; only then does this worker.
CUT_SECONDS = 3.0
HEAD_SLACK = 1_024
FAILED = 1


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that is bound and does not listen yet; `shared` ports may be bound again. Raises OSError."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def serve(settings: Settings, target: str, listener: socket.socket) -> int:
    """Serve the application named `module:name` until a signal; return the exit status."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Worker(settings).run(target, listener))


class Worker:
    """One process's part of the server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()

    async def run(self, target: str, listener: socket.socket) -> int:
        """Start, serve and stop."""
        loop = asyncio.get_running_loop()
        self._listen_to_signals(loop)
        settings = self._settings
        application = _load(target)
        lifespan = Lifespan(application)
        if not await lifespan.start():
            return FAILED
        sockets = Sockets(settings.websocket.max_message, settings.websocket.ping_interval)
        # An application that can say from a head alone that it has no room for a request, is asked that first.
        asgi = Asgi(application, sockets.open, getattr(application, "shed", None))
        service = Service(limits(settings), asgi.open, loop.time)
        tls = tls_context(settings)
        server = await loop.create_server(
            service.connect,
            sock=listener,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS if tls else None,
        )
        clock = loop.create_task(keep_time(service, settings.server.keep_alive))
        await self._stopping.wait()
        service.draining = True
        server.close()
        await self._drain(service, asgi)
        clock.cancel()
        await lifespan.stop()
        return 0

    def _listen_to_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop on the first signal. As Python's own handler, so that the application may come before it."""

        def stop(_number: int, _frame: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._stopping.set)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
            signal.siginterrupt(number, False)

    async def _drain(self, service: Service, asgi: Asgi) -> None:
        """Wait for calls in flight; cut off those that take longer than they may."""
        await asyncio.sleep(LAST_REQUEST_SECONDS)
        await asyncio.sleep(LAST_READ_SECONDS)  # the loop may have stood still, and reads first what came meanwhile
        service.end_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.server.drain + CUT_SECONDS):
                while asgi.tasks:
                    await asyncio.wait(asgi.tasks)
                while any(connection.busy for connection in service.connections):  # noqa: ASYNC110
                    await asyncio.sleep(LAST_READ_SECONDS)
        for task in asgi.tasks:
            task.cancel()
        if asgi.tasks:
            await asyncio.wait(asgi.tasks, timeout=CUT_SECONDS)
        service.abort()
        await asyncio.sleep(0)


class Lifespan:
    """The start and the end of an application (ASGI)."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._to = asyncio.Queue[Message]()
        self._from = asyncio.Queue[Message]()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> bool:
        """Start it, and return whether it has started."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        answer = await self._ask("lifespan.startup")
        if answer["type"] == "lifespan.startup.complete":
            return True
        log.error("the application did not start: %s", answer.get("message", ""))
        return False

    async def stop(self) -> None:
        """End it."""
        await self._ask("lifespan.shutdown")
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=CUT_SECONDS)

    async def _ask(self, kind: str) -> Message:
        self._to.put_nowait({"type": kind})
        return await self._from.get()

    async def _run(self) -> None:
        try:
            await self._application({"type": "lifespan", "asgi": ASGI}, self._to.get, self._from.put)
        except Exception as error:
            log.error("the application failed", exc_info=error)
        self._from.put_nowait({"type": "lifespan.failed", "message": "it ended"})


def limits(settings: Settings) -> Limits:
    """Return what a connection may take. The application's own bounds come first where a head is read at all."""
    proxy = settings.proxy
    head = proxy.max_header_bytes + proxy.max_target + HEAD_SLACK
    return Limits(head=head, target=proxy.max_target, idle=settings.server.keep_alive)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return how connections are encrypted, None when they are not. Raises OSError for files that do not fit."""
    certificate = settings.server.tls_certificate
    if not certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, settings.server.tls_key or None)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def keep_time(service: Service, idle: float) -> None:
    """Have every connection look at the time, for as long as this runs."""
    while True:
        await asyncio.sleep(min(LOOK_SECONDS, idle / 4))
        service.expire()


def _load(target: str) -> Application:
    module, _, name = target.partition(":")
    application: Any = getattr(importlib.import_module(module), name)
    return application
