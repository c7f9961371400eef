"""A few connections per publisher's database, opened to checked addresses, closed when idle or old.

One publisher's slow or full database takes its own connections and nobody else's. A connection is handed out clean:
whatever a query left behind (settings, locks, a transaction) is undone before it is used again, or it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import asyncpg

from gateway.upstreams.again import again
from gateway.upstreams.egress import EgressGuard, EgressRefused, ResolutionFailed
from gateway.upstreams.http.dial import alternating
from gateway.upstreams.postgres.address import Address, distrust, tls_context
from gateway.upstreams.postgres.errors import LOST, DatabaseAway, DatabaseBusy, DatabaseUnreachable

CONNECT_SECONDS = 5.0
WAIT_SECONDS = 2.0
IDLE_SECONDS = 60.0
LIFE_SECONDS = 600.0
CLEAN_SECONDS = 2.0
CLEANING_SECONDS = 0.1
STATEMENTS = 64
# Session locks and settings survive a rollback; so does anything after a transaction that was ended by other means.
CLEAN = "ROLLBACK; SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL"

UNREACHABLE = "The publisher's database cannot be reached."

Session = asyncpg.Connection


@dataclass(slots=True)
class _Kept:
    session: Session
    opened: float
    freed: float


class DatabasePool:
    """The connections to one publisher's database, at most `size`.

    One may take `connect` seconds to come about, and is tried `retries` times more; nobody waits longer for a free one.
    """

    def __init__(
        self, address: Address, guard: EgressGuard, *, size: int, connect: float = CONNECT_SECONDS, retries: int = 0
    ) -> None:
        self._address = address
        self._guard = guard
        self._connect_seconds, self._retries = connect, retries
        self._free: list[_Kept] = []
        self._slots = asyncio.Semaphore(size)
        self._closed = False
        self._cleaning: set[asyncio.Task[None]] = set()
        self.used = time.monotonic()

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncGenerator[Session]:
        """Lend a session. Raises DatabaseBusy or DatabaseUnreachable; it comes back clean or is closed."""
        try:
            async with asyncio.timeout(min(WAIT_SECONDS, self._connect_seconds)):
                await self._slots.acquire()
        except TimeoutError:
            raise DatabaseBusy("All connections to this publisher's database are busy.") from None
        self.used = time.monotonic()
        kept: _Kept | None = None
        try:
            if not self._free and self._cleaning:  # sooner there than a new one
                await asyncio.wait(set(self._cleaning), timeout=CLEANING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            kept = await self._take()
            yield kept.session
        finally:
            if kept is not None:
                # In the background: whoever has its rows need not wait for a round trip that cleans up behind it.
                task = asyncio.get_running_loop().create_task(self._give_back(kept))
                self._cleaning.add(task)
                task.add_done_callback(self._cleaning.discard)
            else:
                self._slots.release()

    @property
    def idle(self) -> bool:
        """Return whether a session is free at once, without a new connection."""
        return bool(self._free) and not self._slots.locked()

    def close(self) -> None:
        """Close what is free now; what is lent is closed when it comes back."""
        self._closed = True
        while self._free:
            self._free.pop().session.terminate()

    def trim(self, now: float) -> None:
        """Close what has been idle too long."""
        kept = [one for one in self._free if now - one.freed < IDLE_SECONDS]
        for one in self._free:
            if one not in kept:
                one.session.terminate()
        self._free = kept

    async def _take(self) -> _Kept:
        now = time.monotonic()
        while self._free:
            kept = self._free.pop()
            if not kept.session.is_closed() and now - kept.opened < LIFE_SECONDS and now - kept.freed < IDLE_SECONDS:
                return kept
            kept.session.terminate()
        return _Kept(await again(self._retries, self._open, _may_come_about), now, now)

    async def _give_back(self, kept: _Kept) -> None:
        try:
            if not self._closed and not kept.session.is_closed():
                async with asyncio.timeout(CLEAN_SECONDS):
                    await kept.session.execute(CLEAN)
                if not self._closed:
                    kept.freed = time.monotonic()
                    self._free.append(kept)
                    return
        except (*LOST, asyncpg.PostgresError):
            pass
        finally:
            self._slots.release()
        kept.session.terminate()

    async def _open(self) -> Session:
        address = self._address
        try:
            async with asyncio.timeout(self._connect_seconds):
                found = await self._guard.addresses(address.host, address.port)
                return await self._first(alternating(found))
        except EgressRefused as refusal:
            raise DatabaseUnreachable(f"The database's address is refused: {refusal}.") from None
        except ResolutionFailed:
            raise DatabaseAway("The database's host name cannot be resolved.") from None
        except ssl.SSLCertVerificationError as error:
            raise DatabaseUnreachable(distrust(error, address.host)) from None
        except asyncpg.TooManyConnectionsError:
            raise DatabaseBusy("The publisher's database has no more connections.") from None
        except asyncpg.InvalidAuthorizationSpecificationError:
            raise DatabaseUnreachable("The publisher's database refuses the login.") from None
        except ConnectionError as error:
            if "rejected SSL upgrade" in str(error):
                raise DatabaseUnreachable("The publisher's database does not speak TLS.") from None
            raise DatabaseAway(UNREACHABLE) from None
        except (*LOST, asyncpg.PostgresError, ValueError):
            raise DatabaseAway(UNREACHABLE) from None

    async def _first(self, found: tuple[str, ...]) -> Session:
        failure: Exception | None = None
        for position, literal in enumerate(found):
            share = self._connect_seconds / len(found) if position + 1 < len(found) else None
            try:
                async with asyncio.timeout(share):
                    return await self._connect(literal)
            except OSError as error:  # asyncio's timeout is one as well
                failure = error
        raise failure or OSError("no address")

    async def _connect(self, literal: str) -> Session:
        address = self._address
        return await asyncpg.connect(
            host=literal,
            port=address.port,
            user=address.user,
            password=address.password,
            database=address.database,
            ssl=tls_context(address),
            timeout=self._connect_seconds,
            statement_cache_size=STATEMENTS,
            max_cacheable_statement_size=16_384,
            server_settings={"application_name": "tollway"},
        )


def _may_come_about(error: Exception) -> bool:
    """Return whether a connection may come about if it is tried again."""
    return isinstance(error, DatabaseAway)
