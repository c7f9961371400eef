"""A listening socket that another process has opened and keeps: systemd's socket activation (sd_listen_fds(3)).

The socket outlives each gateway that serves on it. A connection that is made while one gateway ends and the next one
starts waits in the socket's queue, and several gateways can serve on it at once. SO_REUSEPORT would not do: each
process has a queue of its own then, and what waits in it is reset when the process ends.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

from gateway.devservices.processes import ServiceError

log = logging.getLogger(__name__)

Listener = socket.socket
FIRST_DESCRIPTOR = 3  # of the protocol
VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
DEFER_SECONDS = 1


def take_listener() -> Listener | None:
    """Return the socket that this process was started with; None where there is none. Raises ServiceError.

    Whoever is no systemd may leave LISTEN_PID out. Our children are not told of it.
    """
    count, pid, _names = (os.environ.pop(name, "") for name in VARIABLES)
    if not count or count == "0":
        return None
    if pid not in ("", str(os.getpid())):
        log.warning(
            "LISTEN_FDS is meant for process %s and not for this one: the gateway opens a socket of its own."
            " Start it with `exec` where a shell does",
            pid,
        )
        return None
    if sys.platform != "linux":
        raise ServiceError(f"LISTEN_FDS={count}: sockets can be handed over on Linux only")
    if count != "1":
        raise ServiceError(f"LISTEN_FDS={count}: hand over one socket, for the public port")
    listener = _opened(FIRST_DESCRIPTOR)
    listener.set_inheritable(False)
    # As the servers set it where they listen themselves; connections take it over.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A connection is accepted with its first bytes: a server that stops leaves the others to whoever comes next.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_SECONDS)
    return listener


def _opened(descriptor: int) -> Listener:
    name = f"LISTEN_FDS=1: file descriptor {descriptor}"
    try:
        listener = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ServiceError(f"{name} is no socket ({error.strerror})") from None
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or listener.type != socket.SOCK_STREAM:
        raise ServiceError(f"{name} is a socket of another kind: it must be TCP (ListenStream= with a port)")
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ServiceError(f"{name} does not listen (Accept=no in the socket's unit)")
    return listener


def address_of(listener: Listener) -> str:
    """Return where it listens, as in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
