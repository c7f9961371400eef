"""The simulator's own eyes on the database, on a connection and a loop of their own in another thread.

The simulated loop stands still while the observer looks, so what it sees is one moment.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import TypeVar

from gateway.database.pool import Connection, connect
from gateway.settings import DatabaseSettings

Result = TypeVar("Result")


class Observer:
    """A connection that the simulation does not control. Use as a context manager."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="observer", daemon=True)

    def __enter__(self) -> Observer:
        self._thread.start()
        self.connection: Connection = self._wait(connect(DatabaseSettings(url=self._url, command_timeout=120)))
        return self

    def __exit__(self, *_exc: object) -> None:
        self._wait(self.connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def look(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Run work on the connection and wait for it."""
        return self._wait(work(self.connection))

    def blockers(self, pids: Iterable[int]) -> dict[int, list[int]]:
        """Return for each backend which others it waits for; only those that exist are in the answer."""

        async def ask(connection: Connection) -> dict[int, list[int]]:
            rows = await connection.fetch(
                "SELECT pid, pg_blocking_pids(pid) AS by FROM pg_stat_activity WHERE pid = ANY ($1::int[])", list(pids)
            )
            return {row["pid"]: row["by"] for row in rows}

        return self.look(ask)

    def cancel(self, pid: int) -> None:
        """Cancel what a backend does."""
        self.look(lambda connection: connection.execute("SELECT pg_cancel_backend($1)", pid))

    def set_clock(self, moment: datetime) -> None:
        """Tell the database what time it is, for every transaction that begins from now on."""
        self.look(lambda connection: connection.execute("SELECT simulator.set_clock($1)", moment))

    def name_backend(self, pid: int, number: int) -> None:
        """Give a backend a number that does not depend on the machine."""
        self.look(
            lambda connection: connection.execute(
                "INSERT INTO simulator.backend VALUES ($1, $2) ON CONFLICT (pid) DO UPDATE SET number = $2", pid, number
            )
        )

    def _wait(self, work: Awaitable[Result]) -> Result:
        async def run() -> Result:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(120)
