"""Telling a service manager that the gateway serves: systemd's `Type=notify` (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)

VARIABLE = "NOTIFY_SOCKET"


def say_ready() -> None:
    """Say that this worker serves, where somebody wants to know. Of several workers each says it."""
    address = os.environ.get(VARIABLE)
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(b"READY=1", f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError as error:
        log.warning("could not tell %s=%s that this worker serves: %s", VARIABLE, address, error.strerror)
