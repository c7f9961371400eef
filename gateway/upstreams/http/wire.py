"""A transport with flow control in both directions and one lazily re-armed timer.

Not here: anything about HTTP (connection.py). Prevents memory from growing with a slow peer, and a timer handle per
read: the timer stays where it is while deadlines move later, and looks again when it fires.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

# A timer that fires this much early (loops round to milliseconds) counts as due, instead of spinning.
TICK = 0.001


class Wire(asyncio.Protocol):
    """The lower half of a connection."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._drained: asyncio.Future[None] | None = None
        self._write_paused = False
        self._read_paused = False
        # When the phase that the timer watches began, or its last sign of life.
        self._last = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio callback)."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release a writer that waits for a transport which is gone (asyncio callback)."""
        self._write_paused = False
        self._wake_writer()

    # --- Flow control ---

    def pause_reading(self) -> None:
        """The caller is behind: stop taking bytes from the socket."""
        if not self._transport.is_closing():
            self._read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The caller has caught up."""
        if self._read_paused and not self._transport.is_closing():
            self._read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The transport's buffer is full (asyncio callback)."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The transport's buffer has drained (asyncio callback)."""
        self._write_paused = False
        self._wake_writer()

    async def drain(self) -> None:
        """Wait until the peer takes more bytes or the transport is gone."""
        if self._write_paused and not self._transport.is_closing():
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    def _wake_writer(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    @property
    def tls(self) -> ssl.SSLObject | None:
        """What there is to know of the TLS session; None without one."""
        found: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        return found

    # --- The end ---

    def end_is_authentic(self) -> bool:
        """Whether the peer itself ended its stream. Over TLS an end without close_notify may be an attacker's."""
        if self.tls is None:
            return True
        try:
            return self.tls.read(1) == b""  # the loops call eof_received either way; OpenSSL knows
        except ssl.SSLError:
            return False

    # --- The timer ---

    def timer_fired(self) -> None:
        """Decide what is due; called no later than the earliest `when` given to `_arm`."""
        raise NotImplementedError

    def _arm(self, when: float) -> None:
        """Make sure the timer fires no later than `when`. An earlier one stays: it looks again when it fires."""
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        self.timer_fired()
