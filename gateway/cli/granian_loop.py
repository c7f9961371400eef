"""The event loop of granian's workers: uvloop, with signals that count also while the loop does not run.

granian runs a worker's loop twice, for the start of the application and to serve. uvloop forgets a signal that comes
between the two: the worker served on, and the service ended only after the whole drain, by force.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import uvloop
from granian import loops


class HeedfulLoop(uvloop.Loop):
    """Takes signals as Python does, and what they ask for as soon as it runs."""

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """Call back when a signal comes, or has come before this loop ran."""

        def heed(_number: int, _frame: object) -> None:
            if not self.is_closed():
                self.call_soon_threadsafe(callback, *args)

        signal.signal(sig, heed)
        signal.siginterrupt(sig, False)


def install() -> None:
    """Have workers use it."""
    loops.register("uvloop")(_made)


def _made() -> asyncio.AbstractEventLoop:
    loop = HeedfulLoop()
    asyncio.set_event_loop(loop)
    return loop
