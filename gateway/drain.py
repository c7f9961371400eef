"""Stopping a worker without losing a call, whatever server runs it.

First the farewell: the worker goes on serving, and each answer says `Connection: close`, so that clients which use
their connection in that time open the next one, and none of them meets a closing door. Then the server's own handler of
the signal is called: it stops accepting, closes idle connections and waits for calls in flight. Each does so in its own
way, and none within a limit that settles money: at their limit servers kill the worker or cancel its tasks. So the
application cuts calls off itself, a little earlier. What does not live here: what each step does (app.py).
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Protocol

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Within this time a second signal is the same request to stop, which reaches a worker twice where both its parent and
# whoever stops a group of processes pass it on.
SAME_STOP_SECONDS = 1.0


class Stoppable(Protocol):
    """What a worker does, step by step."""

    def say_farewell(self) -> None:
        """End connections with their next answers. From now on calls have the time of the drain."""
        ...

    def drain(self) -> None:
        """End what would never end by itself: the server stops accepting now."""
        ...

    def cut(self) -> None:
        """End every call now."""
        ...


def on_stop(worker: Stoppable, farewell_seconds: float) -> None:
    """Stop the worker in this event loop when a signal asks for it. Needs the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return
    stop = _Stop(worker, farewell_seconds)
    for number in SIGNALS:
        stop.listen(number)


class _Stop:
    """The steps that were taken so far."""

    def __init__(self, worker: Stoppable, farewell_seconds: float) -> None:
        self._worker, self._farewell_seconds = worker, farewell_seconds
        self._loop = asyncio.get_running_loop()
        self._asked_at: float | None = None
        self._draining = False

    def listen(self, number: signal.Signals) -> None:
        """Come before the server's handler of this signal."""
        servers_own = signal.getsignal(number)

        def tell_server() -> None:
            if callable(servers_own):
                servers_own(number, None)

        def handle(received: int, _frame: FrameType | None) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._asked, received, tell_server)

        signal.signal(number, handle)
        # As the event loops do: a system call goes on instead of failing with EINTR.
        signal.siginterrupt(number, False)

    def _asked(self, number: int, tell_server: Callable[[], None]) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            self._worker.say_farewell()
            if number == signal.SIGTERM and self._farewell_seconds:
                self._loop.call_later(self._farewell_seconds, self._drain, tell_server)
            else:  # SIGINT is somebody at a terminal, who waits
                self._drain(tell_server)
        elif now - self._asked_at >= SAME_STOP_SECONDS:
            self._drain(tell_server)
            self._worker.cut()
        elif number == signal.SIGINT:
            self._drain(tell_server)

    def _drain(self, tell_server: Callable[[], None]) -> None:
        """Hand over to the server, once: to some servers a second signal means to drop everything."""
        if not self._draining:
            self._draining = True
            self._worker.drain()
            tell_server()
