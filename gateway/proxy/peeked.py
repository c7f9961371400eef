"""Waiting for the caller's next message for a while only, or beside something else, without losing it.

A `receive` that is cancelled may take what it had with it (ASGI promises nothing about that). So it goes on in a task,
and whoever receives next gets its message. Made only for calls that have to wait: a task costs more than a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

from gateway.proxy.exchange import Exchange, Message, Receive


class Peeked:
    """One call's `receive`, with the message that is waited for."""

    __slots__ = ("_receive", "_task")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[Message] | None = None

    @classmethod
    def of(cls, exchange: Exchange) -> Peeked:
        """Return an exchange's own, through which it receives from now on."""
        if exchange.peeked is None:
            exchange.peeked = cls(exchange.receive)
            exchange.receive = exchange.peeked.receive
        return exchange.peeked

    def coming(self) -> asyncio.Task[Message]:
        """Return the task of the next message; the message stays to be received."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(cast(Coroutine[Any, Any, Message], self._next()))
        return self._task

    async def soon(self, seconds: float | None) -> bool:
        """Return whether the next message comes in time."""
        task = self.coming()
        await asyncio.wait((task,), timeout=seconds)
        return task.done()

    async def receive(self) -> Message:
        """Receive the next message (ASGI)."""
        task, self._task = self._task, None
        return await (self._receive() if task is None else task)

    def stop(self) -> None:
        """Wait no more: the call is over."""
        if self._task is not None:
            self._task.cancel()

    async def _next(self) -> Message:
        return await self._receive()
