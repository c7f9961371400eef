"""The TCP connection below a request: looking it up, and resetting it when its caller takes nothing any more.

No server offers either: they close after what is written has been taken, which here is never, and keep the socket, its
buffers and their own task until the caller is kind enough to leave. So the socket is looked up among this process's own
and reset; its server notices as if the caller had done it. A walk over the open files each time.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from gateway.proxy.exchange import Scope

FILES = Path("/proc/self/fd")  # Linux; elsewhere nothing is found and the server's own way of closing remains
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time

Ends = tuple[str, int, int]  # the caller's address and port, and ours


def cut_connection(scope: Scope) -> bool:
    """Reset the connection of an HTTP/1 request; return whether it was found. One of HTTP/2 serves others as well."""
    ends = _ends_of(scope)
    connection = None if ends is None else _find_connection(ends)
    if connection is None:
        return False
    with connection:
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # gone meanwhile
            return False
    return True


def _ends_of(scope: Scope) -> Ends | None:
    """Return what names the connection of an HTTP/1 request, None when it cannot be named."""
    client, server = scope.get("client"), scope.get("server")
    if not (client and server and client[1] and server[1]) or scope.get("http_version", "1.1")[0] != "1":
        return None
    return str(client[0]), int(client[1]), int(server[1])


def _find_connection(ends: Ends) -> socket.socket | None:
    """Return a duplicate of the socket, if it is found. Close it: an open one hides the end from its caller."""
    for name in os.listdir(FILES) if FILES.is_dir() else ():
        if _ends_at(int(name)) != ends:
            continue
        try:
            duplicate = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # gone meanwhile
            continue
        if _ends(duplicate) == ends:
            return duplicate
        duplicate.close()
    return None


def _ends_at(number: int) -> Ends | None:
    """Return the ends of the connection with this file number, None for anything else."""
    try:
        borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=number)
    except OSError:  # no socket
        return None
    try:
        return _ends(borrowed)
    finally:
        borrowed.detach()  # the file belongs to somebody else


def _ends(connection: socket.socket) -> Ends | None:
    try:
        peer: tuple[str, int] = connection.getpeername()[:2]
        own: tuple[str, int] = connection.getsockname()[:2]
        return str(peer[0]), int(peer[1]), int(own[1])
    except (OSError, ValueError, IndexError):  # not connected, or a Unix socket, whose address is a path
        return None
