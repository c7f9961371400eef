"""Resetting the TCP connection of a caller who takes nothing any more.

No server offers it: they close after what is written has been taken, which here is never, and keep the socket, its
buffers and their own task until the caller is kind enough to leave. So the socket is looked up among this process's own
and reset; its server notices as if the caller had done it. Rare, and a walk over the open files each time.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from gateway.proxy.exchange import Scope

FILES = Path("/proc/self/fd")  # Linux; elsewhere nothing is found and the server's own way of closing remains
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


def cut_connection(scope: Scope) -> bool:
    """Reset the connection of an HTTP/1 request; return whether it was found. One of HTTP/2 serves others as well."""
    client, server = scope.get("client"), scope.get("server")
    if not (client and server and client[1] and server[1]) or scope.get("http_version", "1.1")[0] != "1":
        return False
    ends = (str(client[0]), int(client[1])), int(server[1])
    for name in os.listdir(FILES) if FILES.is_dir() else ():
        try:
            with socket.socket(fileno=os.dup(int(name))) as found:
                if found.family in (socket.AF_INET, socket.AF_INET6) and _joins(found, *ends):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    found.shutdown(socket.SHUT_RDWR)
                    return True
        except OSError:  # no socket, not connected, or gone meanwhile
            continue
    return False


def _joins(found: socket.socket, client: tuple[str, int], port: int) -> bool:
    return found.getpeername()[:2] == client and found.getsockname()[1] == port
