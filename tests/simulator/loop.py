"""An event loop under the simulator's control: its clock stands still unless it is told, and when nothing can run it
asks what shall happen next.

Real sockets carry real bytes to a real PostgreSQL, but what arrives is withheld (wire.py) until it is chosen, so the
order in which the code under test sees the world depends on choices alone, never on how fast anything was.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

Events = list[tuple[selectors.SelectorKey, int]]
Poll = Callable[[float], Events]

# Which simulated process a piece of code runs in; tasks, timers and connections inherit it.
PROCESS: ContextVar[Any] = ContextVar("PROCESS", default=None)


class Network(Protocol):
    """Where connections of simulated processes go."""

    async def connect(self, factory: Callable[[], Any], open_real: Callable[..., Any]) -> tuple[Any, Any]: ...


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.idle: Callable[[Poll], Events] | None = None

    def select(self, timeout: float | None = None) -> Events:
        if self.idle is None or (timeout is not None and timeout <= 0):
            return super().select(timeout)
        return self.idle(super().select)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`idle` is called whenever no callback is ready and no timer due; it must make progress, or wait for a socket."""

    def __init__(self) -> None:
        self._now = 0.0
        self._choosing = _Selector()
        self.network: Network | None = None
        super().__init__(self._choosing)

    def begin(self, idle: Callable[[Poll], Events]) -> None:
        """Hand control to `idle`."""
        self._choosing.idle = idle

    def finish(self) -> None:
        """Be an ordinary loop again, with a clock that stands still."""
        self._choosing.idle = None

    def time(self) -> float:
        """Return simulated seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass: timers that are due then run next."""
        self._now += seconds

    def next_timer(self) -> float | None:
        """Return in how many seconds the next timer is due."""
        due = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        return max(min(due) - self._now, 0.0) if due else None

    async def create_connection(self, protocol_factory, *args, **kwargs):  # type: ignore[override]
        """Connect through the simulated network."""

        async def open_real(factory):
            return await super(SimulatedLoop, self).create_connection(factory, *args, **kwargs)

        if self.network is None or PROCESS.get() is None:
            raise RuntimeError("a connection that belongs to no simulated process: its timing would not be chosen")
        return await self.network.connect(protocol_factory, open_real)
