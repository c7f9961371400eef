"""Running the application (gateway/cli/asgi.py) on our own server, or on hypercorn for HTTP/2, with the same behaviour.

Both: uvloop, no access log, patient keep-alive, a shutdown that lets calls in flight finish, and no Server or Date
header of the server's own, because an upstream's passes through unchanged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import ssl
import tempfile
from collections.abc import Callable, Generator

from gateway.cli.inherited import Listener
from gateway.cli.watchdog import watched
from gateway.devservices.processes import ServiceError, require_port
from gateway.settings import Settings

APPLICATION = "gateway.cli.asgi:application"
BACKLOG = 2048
# The application cuts off what is still running after the drain and settles its money. Only then does the server, whose
# way of ending would leave that to the reconciler.
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
    has_parent = settings.server.workers > 1
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


SERVERS: dict[str, Callable[[Settings, str, Listener | None], int]] = {
    "tollway": _tollway,
    "hypercorn": _hypercorn,
}
