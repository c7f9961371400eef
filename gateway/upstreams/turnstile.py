"""How many calls of one publisher are on their way at once, in one worker; the others wait in line for a while.

Passed before a call is paid, so that one that finds no place has cost nothing. What does not live here: how many
(catalog/delivery.py) and how long a call may wait (proxy/failures.py).
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turnstile:
    """At most `limit` inside. Belongs to one event loop."""

    __slots__ = ("_inside", "_line", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._inside = 0
        self._line: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a place if one is free now, and return whether one was."""
        if self._inside >= self.limit:
            return False
        self._inside += 1
        return True

    async def enter(self, seconds: float) -> bool:
        """Take a place, waiting in line for `seconds` at most, and return whether there was one."""
        if self.take():
            return True
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn in self._line:
                self._line.remove(turn)
            if turn.done() and not turn.cancelled():  # a place was handed over in the same moment
                self.leave()
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def leave(self) -> None:
        """Give a place back, to whoever has waited longest."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)  # the place changes hands
                return
        self._inside -= 1
