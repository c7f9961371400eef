"""The calls that a worker is serving: what it waits for when it stops, and what it cuts off."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.proxy.exchange import Exchange, Message, Scope, Send, nobody


class Live:
    """A register with one entry per call. Entering and leaving cost a dictionary write each."""

    __slots__ = ("calls", "cutting")

    def __init__(self) -> None:
        self.calls: dict[Exchange, asyncio.Task[Any] | None] = {}
        self.cutting = False

    def cut(self) -> None:
        """End every call now. Each settles its money: what this process does not finish costs nothing."""
        self.cutting = True
        for task in self.calls.values():
            if task is not None:
                task.cancel()

    def cut_stalled(self, before: float) -> None:
        """End the calls whose whole answer was handed over before then (perf_counter) and not taken until now.

        One look at all of them now and then, because a timer per call would cost more than sending its answer.
        """
        for call, task in self.calls.items():
            if 0 < call.handed < before and task is not None and not call.stalled:
                call.stalled = True
                task.cancel()

    def end_connections(self) -> None:
        """Have the answers that have not begun say that their connections end."""
        for call in self.calls:
            if not call.head_sent and call.send is not nobody:
                call.send = ending_connection(call.scope, call.send)

    async def finished(self, seconds: float) -> bool:
        """Wait for the calls that there are, and return whether all have ended in time."""
        tasks = [task for task in self.calls.values() if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return not self.calls


def ending_connection(scope: Scope, send: Send) -> Send:
    """Return a way to send an answer that says that its connection ends; in HTTP/2 answers do not say so."""
    if scope["http_version"].startswith("2"):
        return send

    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start" and all(name != b"connection" for name, _ in message["headers"]):
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return send_last
