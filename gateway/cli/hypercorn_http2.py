"""Hypercorn's HTTP/2, made to let go of what a lost connection leaves behind.

As it comes (0.18), an answer that waits for room when its connection ends waits for ever: a call that is never settled,
a task for every such connection, and a shutdown that takes the whole drain. Mended here, in a subclass put in
hypercorn's place; nothing else about it is changed.
"""

from __future__ import annotations

from types import ModuleType

from hypercorn import protocol
from hypercorn.events import Closed, Event
from hypercorn.protocol.h2 import H2Protocol

NAME = H2Protocol.__name__


class LettingGo(H2Protocol):
    """Wakes who waits to send when the connection is gone."""

    async def handle(self, event: Event) -> None:
        """Take an event of the connection below."""
        await super().handle(event)
        if isinstance(event, Closed):
            while self.stream_buffers:
                _, buffer = self.stream_buffers.popitem()
                await buffer.close()


def install() -> None:
    """Replace hypercorn's class in this process."""
    module: ModuleType = protocol
    if not hasattr(module, NAME):
        raise RuntimeError("this hypercorn makes its HTTP/2 connections elsewhere")
    setattr(module, NAME, LettingGo)
