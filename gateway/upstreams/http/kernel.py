"""What the operating system knows of a connection and the event loop does not tell.

Lives here: how much of what was written the peer's system has acknowledged, and bytes that have arrived but were not
read. Both answer money questions: may the upstream have seen the request, and did it answer before it broke off? Where
the system does not say, the answer is the careful one: elsewhere than on Linux, and on uvloop for an end of TLS without
close_notify, which it tells of when the socket is gone. Not here: what follows from it (connection.py).
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from asyncio import BaseTransport
from collections.abc import Iterator

# linux/sockios.h: bytes in the send queue, not sent or not acknowledged. Kept when the connection is reset.
_SIOCOUTQ = 0x5411
_MOST = 1 << 20


def unacknowledged(transport: BaseTransport) -> int | None:
    """Return how many written bytes the peer's system has not acknowledged; None where it cannot be known.

    Every TCP segment says what its sender's system had received by then, so an answer, or an end, that arrived before
    any byte of a request was acknowledged was sent by a server that had not read that request.
    """
    descriptor = _descriptor(transport)
    if descriptor is None or sys.platform != "linux":
        return None
    try:
        return int(struct.unpack("i", fcntl.ioctl(descriptor, _SIOCOUTQ, bytes(4)))[0])
    except OSError:
        return None


def left_to_read(transport: BaseTransport) -> Iterator[bytes]:
    """Yield what arrived before a connection was lost in writing: the loops then give up without reading it.

    Nothing over TLS, where these bytes are not the peer's words yet.
    """
    descriptor = _descriptor(transport)
    if descriptor is None or transport.get_extra_info("sslcontext") is not None:
        return
    size = 0
    while size < _MOST:
        try:
            data = os.read(descriptor, 65_536)
        except OSError:
            return
        if not data:
            return
        size += len(data)
        yield data


def _descriptor(transport: BaseTransport) -> int | None:
    raw = transport.get_extra_info("socket")
    number = -1 if raw is None else int(raw.fileno())
    return None if number < 0 else number
