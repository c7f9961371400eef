"""uvloop with signals as Python has them: for hypercorn, which sets its handlers with `loop.add_signal_handler`.

uvloop reads such signals from a pipe of its own: nobody can come before the server's handler, as gateway/drain.py must.
"""

from __future__ import annotations

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
