"""Running the ASGI application on each of four servers, with the same behaviour as far as each allows.

Everywhere: uvloop, no access log, patient keep-alive, a shutdown that lets calls in flight finish, and no Server or
Date header of the server's own, because an upstream's passes through unchanged. The application is gateway/cli/asgi.py.
"""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType

from gateway.cli.inherited import Listener
from gateway.cli.watchdog import watched
from gateway.devservices.processes import ServiceError, require_port
from gateway.settings import Settings

APPLICATION = "gateway.cli.asgi:application"
BACKLOG = 2048
# The application cuts off what is still running after the drain and settles its money. Only then does the server, whose
# way of ending (granian kills) would leave that to the reconciler.
CUT_SECONDS = 3.0
UNLIMITED_REQUESTS = 2**31


def run(settings: Settings, target: str = APPLICATION, listener: Listener | None = None) -> int:
    """Serve `target` until SIGTERM or SIGINT and return the exit status. Raises ServiceError when it cannot listen.

    It listens on `listener` where that was handed over.
    """
    if listener is None:
        # Asked first: a server that sets SO_REUSEPORT would silently share the port with another gateway.
        require_port(settings.server.port, settings.server.host)
    if operations_port := settings.server.operations_port:
        names = ("TOLLWAY_SERVER_OPERATIONS_PORT", "TOLLWAY_SERVER_OPERATIONS_HOST")
        require_port(operations_port, settings.server.operations_host, *names)
    check_certificate(settings)
    has_parent = settings.server.kind == "granian" or settings.server.workers > 1
    with shared_metrics(settings.server.workers), watched(settings.server.hang if has_parent else 0):
        return SERVERS[settings.server.kind](settings, target, listener)


def check_certificate(settings: Settings) -> None:
    """Say in one line what is wrong with the TLS files, before a server says it in many."""
    certificate, key = settings.server.tls_certificate, settings.server.tls_key
    if not certificate:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        what = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ServiceError(
            f"TLS with {certificate} and {key}: {what}; they must be PEM files that belong together, without a password"
        ) from None


def _no_password() -> str:
    raise ValueError("the key has a password")


@contextlib.contextmanager
def shared_metrics(workers: int) -> Generator[None]:
    """Let several workers add up their metrics, in files of a fresh directory.

    Before anything imports prometheus_client, which reads the variable once. Files of an earlier run would be counted.
    """
    if workers == 1:
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        yield
        return
    directory = tempfile.mkdtemp(prefix="tollway-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
    owner = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == owner:  # a forked worker that leaves through here must not take it away from the others
            shutil.rmtree(directory, ignore_errors=True)


def _granian(settings: Settings, target: str, listener: Listener | None) -> int:
    from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    from gateway.cli.granian_listener import InheritingServer
    from gateway.cli.heedful_loop import install_in_granian

    install_in_granian()
    server = InheritingServer(
        target,
        address=settings.server.host,
        port=settings.server.port,
        interface=Interfaces.ASGI,
        workers=settings.server.workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=math.ceil(settings.server.keep_alive * 1_000)),
        websockets=True,
        backlog=BACKLOG,
        # Connections that it accepts; who waits for that hears nothing. The application turns away what is too much.
        backpressure=settings.proxy.calls + settings.websocket.connections,
        log_access=False,
        log_level=LogLevels.warning,
        # A lone worker that dies ends the service at once, and whoever runs it sees why.
        respawn_failed_workers=settings.server.workers > 1,
        workers_kill_timeout=_whole(settings.server.drain + CUT_SECONDS),
        ssl_cert=Path(settings.server.tls_certificate) if settings.server.tls_certificate else None,
        ssl_key=Path(settings.server.tls_key) if settings.server.tls_key else None,
        ssl_protocol_min=SSLProtocols.tls12,
    )
    server.listener = listener
    # A forked worker inherits the parent's handlers, which in it do nothing: a SIGTERM before it has its own would be
    # lost, and the end would take the whole drain. With the default action it just ends; it has served nobody yet.
    os.register_at_fork(after_in_child=_default_signals)
    server.on_startup(pass_on_again)
    server.serve()
    return 0


def _uvicorn(settings: Settings, target: str, listener: Listener | None) -> int:
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    from gateway.cli.uvicorn_http import StrictProtocol
    from gateway.cli.uvicorn_sockets import PatientProtocol

    config = uvicorn.Config(
        target,
        host=settings.server.host,
        port=settings.server.port,
        workers=settings.server.workers,
        loop="uvloop",
        http=StrictProtocol,
        ws=PatientProtocol,
        ws_max_size=settings.websocket.max_message,
        ws_per_message_deflate=False,  # a compressed message is bounded only when it has been unpacked
        ws_ping_interval=settings.websocket.ping_interval,
        ws_ping_timeout=None,  # while a caller's messages wait for its upstream, its pongs wait behind them
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,  # whom to believe is decided by settings.server.trusted_proxies, not here
        backlog=BACKLOG,
        timeout_keep_alive=_whole(settings.server.keep_alive),
        timeout_graceful_shutdown=_whole(settings.server.drain + CUT_SECONDS),
        ssl_certfile=settings.server.tls_certificate or None,
        ssl_keyfile=settings.server.tls_key or None,
    )
    if settings.server.workers > 1:
        parent = Multiprocess(config, sockets=[listener or config.bind_socket()])
        pass_on_again()
        parent.run()
        # uvicorn itself exits 0 when its workers could not start.
        return 1 if any(worker.exitcode == STARTUP_FAILURE for worker in parent.processes) else 0
    # uvicorn raises the signal again when it has finished; without a handler that would end us with -15 instead of 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _done)
    server = uvicorn.Server(config)
    server.run(sockets=[listener] if listener else None)
    return 0 if server.started else 1


def _hypercorn(settings: Settings, target: str, listener: Listener | None) -> int:
    from hypercorn.config import Config

    from gateway.cli import prefork

    config = Config()
    config.application_path = target
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    config.bind = [f"fd://{listener.detach()}" if listener else f"{host}:{settings.server.port}"]
    config.certfile = settings.server.tls_certificate or None
    config.keyfile = settings.server.tls_key or None
    config.workers = settings.server.workers
    config.backlog = BACKLOG
    config.accesslog = None
    # A logger instead of a name: hypercorn would give it a handler of its own, past the redacting one.
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.include_date_header = False
    config.keep_alive_timeout = settings.server.keep_alive
    # Its own bound of 16 KiB is below ours and would depend on how the bytes arrive.
    config.h11_max_incomplete_size = settings.proxy.max_header_bytes + settings.proxy.max_target
    config.keep_alive_max_requests = UNLIMITED_REQUESTS
    config.graceful_timeout = settings.server.drain + CUT_SECONDS
    config.websocket_max_message_size = settings.websocket.max_message
    config.websocket_ping_interval = settings.websocket.ping_interval
    return prefork.run(config)


def _tollway(settings: Settings, target: str, listener: Listener | None) -> int:
    from gateway.cli import workers
    from gateway.server import worker

    try:
        listener = listener or worker.bind(settings.server.host, settings.server.port)
    except OSError as error:
        raise ServiceError(f"cannot listen on {settings.server.host}: {error.strerror or error}") from None
    with listener:
        if settings.server.workers == 1:
            return worker.serve(settings, target, listener)
        return workers.run(settings.server.workers, worker.serve, settings, target, listener)


def pass_on_again() -> None:
    """Have this parent pass a second SIGTERM or SIGINT on to its workers, which then cut off what is still running.

    The servers pass the first one on and then only wait.
    """
    received: list[int] = []

    def chain(number: signal.Signals) -> None:
        servers_own = signal.getsignal(number)

        def handle(of: int, frame: FrameType | None) -> None:
            received.append(of)
            if len(received) > 1:
                for worker in multiprocessing.active_children():
                    worker.terminate()
            if callable(servers_own):
                servers_own(of, frame)

        signal.signal(number, handle)

    for number in (signal.SIGTERM, signal.SIGINT):
        chain(number)


def _default_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _done(_number: int, _frame: object) -> None:
    """Do nothing: the server has already stopped."""


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))


SERVERS: dict[str, Callable[[Settings, str, Listener | None], int]] = {
    "tollway": _tollway,
    "granian": _granian,
    "uvicorn": _uvicorn,
    "hypercorn": _hypercorn,
}
