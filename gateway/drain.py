"""Hearing of SIGTERM and SIGINT inside a worker, whatever server runs it.

The servers stop accepting and wait for calls in flight, each in its own way and none beyond a limit that settles money:
granian kills the worker, uvicorn and hypercorn cancel its tasks. So the application acts itself, a little earlier. The
server's own handler stays and is called as before. What does not live here: what is done then (app.py).
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_stop(begin: Callable[[], None]) -> None:
    """Have `begin` called in this event loop each time the process is asked to stop. Needs the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    told: list[int] = []
    for number in SIGNALS:
        _chain(number, loop, begin, told)


def _chain(number: signal.Signals, loop: asyncio.AbstractEventLoop, begin: Callable[[], None], told: list[int]) -> None:
    servers_own = signal.getsignal(number)

    def handle(received: int, frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(begin)
        # The server hears of the first one only: a granian worker (2.8) that is told a third time stands still.
        if callable(servers_own) and not told:
            told.append(received)
            servers_own(received, frame)

    signal.signal(number, handle)
    # As the event loops do: a system call goes on instead of failing with EINTR.
    signal.siginterrupt(number, False)
