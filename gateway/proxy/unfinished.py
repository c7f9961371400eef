"""Bounding the message that a caller never ends, where the server does not: on granian.

granian hands over whole messages, collects up to 64 MiB for each, and has no setting for less. So this compares, many
times a second, what each connection took from the network with the messages that arrived, and ends those that took far
more than one message may have. The kernel counts the bytes (Linux; elsewhere granian's own bound remains). What comes
between two looks is not bounded. Nothing is done per message.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from time import monotonic

from gateway.proxy.cut import Ends, ends_of, find_connections
from gateway.proxy.exchange import Scope
from gateway.proxy.relay import Relay

# Seconds between two looks, so that looking takes a twentieth of the time at most.
SOONEST, LATEST = 0.025, 0.25
SHARE = 20
# Twice the message leaves room for the headers of small fragments; this is for control frames and what is read ahead.
SLACK = 256 * 1024
INFO_BYTES = 136
RECEIVED_AT = 128  # tcpi_bytes_received in struct tcp_info, which only ever grows at its end


class Inflow:
    """What one connection has taken from the network since the last look at which a message had arrived."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._arrived = 0
        self._mark = self._taken()

    def pending(self, arrived: int) -> int:
        """Return the bytes that no message accounts for; `arrived` is how many messages there were. Raises OSError."""
        taken = self._taken()
        if arrived != self._arrived:
            self._arrived, self._mark = arrived, taken
        return taken - self._mark

    def close(self) -> None:
        """Give up the socket: as long as it is open, the caller does not see the end of the connection."""
        self._connection.close()

    def _taken(self) -> int:
        info = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES)
        if len(info) < INFO_BYTES:
            raise OSError("this kernel does not count the bytes received")
        received: int = struct.unpack_from("=Q", info, RECEIVED_AT)[0]
        # Still in the kernel, because the application takes no message now.
        waiting: int = struct.unpack("=i", fcntl.ioctl(self._connection, termios.FIONREAD, bytes(4)))[0]
        return received - waiting


class Unfinished:
    """Looks at the connections of one worker."""

    def __init__(self, max_message: int) -> None:
        self._most = 2 * max_message + SLACK
        self._new: dict[Ends, Relay] = {}  # looked up together, because that is a walk over all open files
        self._inflows: dict[Relay, Inflow] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._took = 0.0  # the last look

    def watch(self, relay: Relay, scope: Scope) -> None:
        """Bound what the caller of a connection leaves unfinished, until the connection ends.

        Called before the connection is accepted, so that what comes first counts as well; with so many open files that
        looking it up takes long, it counts from the next look on.
        """
        ends = ends_of(scope)
        if ends is None:
            return
        self._new[ends] = relay
        relay.when_ended(lambda: self.leave(relay))
        if self._took * SHARE <= SOONEST:
            began = monotonic()
            self._begin()
            self._took = monotonic() - began
        self._look_later()

    def leave(self, relay: Relay) -> None:
        """Look at a connection no more. May be called twice."""
        self._new = {ends: other for ends, other in self._new.items() if other is not relay}
        inflow = self._inflows.pop(relay, None)
        if inflow is not None:
            inflow.close()

    def _look_later(self) -> None:
        if self._looking is None and (self._new or self._inflows):
            pause = min(max(SOONEST, self._took * SHARE), LATEST)
            self._looking = asyncio.get_running_loop().call_later(pause, self._look)

    def _look(self) -> None:
        began = monotonic()
        self._looking = None
        self._begin()
        for relay, inflow in list(self._inflows.items()):
            try:
                pending = inflow.pending(relay.arrived)
            except OSError:
                self.leave(relay)
                continue
            if pending > self._most:
                relay.too_large()
        self._took = monotonic() - began
        self._look_later()

    def _begin(self) -> None:
        new, self._new = self._new, {}
        for ends, connection in (find_connections(new) if new else {}).items():
            try:
                self._inflows[new[ends]] = Inflow(connection)
            except (AttributeError, OSError):  # another system, or gone already
                connection.close()
