"""The connections to one origin: a bound, waiters in order, and the most recently used connection first.

Lives here: who may use which connection. Decisions change state without awaiting, so that no cancellation can fall
between taking a slot and recording it. Not here: parsing or timeouts of an exchange (connection.py).

A *slot* is the right to one connection. `_open` counts slots: live connections and those being dialled. A waiter is
handed either a connection or, when one was closed, its slot.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from gateway.upstreams.http.connection import Connection
from gateway.upstreams.http.errors import ConnectError, PoolTimeout

# Opens one connection owned by the given pool, within the given seconds.
Open: TypeAlias = Callable[["OriginPool", float], Awaitable[Connection]]


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """Gauges. `open` includes connections being dialled; `in_use` is `open` less `idle`."""

    open: int = 0
    idle: int = 0
    in_use: int = 0
    waiting: int = 0

    def __add__(self, other: PoolCounts) -> PoolCounts:
        """Return the sums."""
        return PoolCounts(
            self.open + other.open, self.idle + other.idle, self.in_use + other.in_use, self.waiting + other.waiting
        )


class OriginPool:
    """At most `limit` connections; up to `max_idle` are kept for up to `idle_seconds`."""

    def __init__(self, dial: Open, *, limit: int, max_idle: int, idle_seconds: float) -> None:
        self.idle_seconds = idle_seconds
        self._dial = dial
        self._limit = limit
        self._max_idle = max_idle
        self._open = 0
        self._idle: deque[Connection] = deque()
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._acquiring = 0
        self._alive: set[Connection] = set()
        self._closed = False
        self._all_gone: asyncio.Future[None] | None = None

    @property
    def counts(self) -> PoolCounts:
        """The gauges of this origin."""
        idle = len(self._idle)
        return PoolCounts(self._open, idle, self._open - idle, len(self._waiters))

    @property
    def unused(self) -> bool:
        """Whether nothing refers to this pool, so that it may be forgotten."""
        return not self._open and not self._acquiring and not self._alive

    def take(self, now: float) -> Connection | None:
        """Return the most recently used connection that is fit for use, without awaiting."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable and now - connection.idle_since < self.idle_seconds:
                return connection
            connection.dispose()
        return None

    async def acquire(self, timeout: float, *, fresh: bool = False) -> Connection:
        """Return a connection: an idle one unless `fresh`, else a new one, else wait in line for one."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout
        self._acquiring += 1
        try:
            while True:
                if self._closed:
                    raise ConnectError("the client is closed")
                connection = None if fresh else self.take(loop.time())
                if connection is None and not self._take_slot(fresh=fresh):
                    connection = await self._wait(ends - loop.time(), timeout)
                    if connection is not None and fresh:
                        connection.dispose(keep_slot=True)
                        connection = None
                    elif connection is not None and not connection.usable:
                        connection.dispose()  # died between being handed over and now: start again
                        continue
                return connection or await self._connect(max(ends - loop.time(), 0.001))
        finally:
            self._acquiring -= 1

    def release(self, connection: Connection) -> None:
        """Take back a connection that stands between two messages."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if self._closed or self._max_idle == 0:
            connection.dispose()
            return
        if len(self._idle) >= self._max_idle:
            self._idle.popleft().dispose()  # the one that has been idle longest
        self._idle.append(connection)

    def discard(self, connection: Connection) -> None:
        """Free the slot of a connection that has been closed. One that dies while dialled has none yet."""
        if connection in self._idle:
            self._idle.remove(connection)
        if connection in self._alive:
            self._free_slot()

    def gone(self, connection: Connection) -> None:
        """Forget a connection whose transport has finished closing."""
        self._alive.discard(connection)
        if not self._alive and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    async def aclose(self) -> None:
        """Close everything, fail those in line, and return when the transports have gone."""
        self._closed = True
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(ConnectError("the client is closed"))
        for connection in list(self._alive):
            connection.fail(ConnectError("the client is closed", sent=True))
        if self._alive:
            self._all_gone = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._all_gone,), timeout=2.0)

    def _take_slot(self, *, fresh: bool) -> bool:
        if self._open < self._limit:
            self._open += 1
            return True
        if fresh and self._idle:
            self._idle.popleft().dispose(keep_slot=True)
            return True
        return False

    def _free_slot(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the slot changes hands; `_open` stays
                return
        self._open -= 1

    async def _connect(self, timeout: float) -> Connection:
        try:
            connection = await self._dial(self, timeout)
            if self._closed or not connection.usable:
                connection.dispose()
                raise ConnectError("the client is closed" if self._closed else "the connection was closed at once")
        except BaseException:
            self._free_slot()
            raise
        self._alive.add(connection)
        return connection

    async def _wait(self, seconds: float, timeout: float) -> Connection | None:
        """Return a handed-over connection, or None when a slot was handed over."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection | None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(seconds, self._expire, waiter, timeout)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._give_back(waiter)
            raise
        finally:
            timer.cancel()

    def _expire(self, waiter: asyncio.Future[Connection | None], timeout: float) -> None:
        if not waiter.done():
            self._waiters.remove(waiter)
            waiter.set_exception(PoolTimeout(f"no free connection within {timeout:g} s"))

    def _give_back(self, waiter: asyncio.Future[Connection | None]) -> None:
        """Undo a hand-over that its receiver, cancelled in the same moment, will not use."""
        if waiter.cancelled():
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        elif waiter.exception() is None:
            connection = waiter.result()
            if connection is None:
                self._free_slot()
            elif connection.usable:
                self.release(connection)
            else:
                connection.dispose()
