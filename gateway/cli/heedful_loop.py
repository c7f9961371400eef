"""uvloop with signals as Python has them: for servers that set their handlers with `loop.add_signal_handler`.

uvloop reads such signals from a pipe of its own. Two things follow that workers cannot do with. granian runs a worker's
loop twice, for the start of the application and to serve, and a signal between the two is forgotten: the worker served
on, and the service ended only after the whole drain, by force. And nobody can come before the server's handler, as
gateway/drain.py must.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import uvloop


class HeedfulLoop(uvloop.Loop):
    """Takes signals as Python does, and what they ask for as soon as it runs."""

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """Call back when a signal comes, or has come before this loop ran."""

        def heed(_number: int, _frame: object) -> None:
            if not self.is_closed():
                self.call_soon_threadsafe(callback, *args)

        signal.signal(sig, heed)
        signal.siginterrupt(sig, False)


def install_in_granian() -> None:
    """Have granian's workers use it."""
    from granian import loops

    loops.register("uvloop")(_made)


def _made() -> asyncio.AbstractEventLoop:
    loop = HeedfulLoop()
    asyncio.set_event_loop(loop)
    return loop
