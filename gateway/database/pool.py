"""Connections to PostgreSQL: a bounded pool for everything, held connections for the hot path and for LISTEN.

Leasing from the pool costs one more round trip (asyncpg resets the connection on release), so the ledger's group
commit and the change listener hold theirs through `Held`, which reconnects after a lost server.

`database.url` may be a pooler in transaction mode (docs/operations.md): then nothing here may lean on a session. What
does (LISTEN, a lock that is held, migrations) connects by `settings.direct`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import orjson

from gateway.errors import Unavailable
from gateway.settings import DatabaseSettings

log = logging.getLogger(__name__)

Result = TypeVar("Result")
READ_TRIES = 3
Connection = Any  # asyncpg.Connection or its pool proxy: they share methods, not a base class that its stubs know
DatabaseError = asyncpg.PostgresError
UniqueViolation = asyncpg.UniqueViolationError
CheckViolation = asyncpg.CheckViolationError
LockNotAvailable = asyncpg.LockNotAvailableError
NotFinished = asyncpg.ObjectNotInPrerequisiteStateError  # what a function of ours raises when it is too early
# A server that is there and cannot: out of disk, memory or connections, an I/O error, or a standby that only reads.
# The statement did nothing.
UNABLE = (
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
)
# What a server that is lost, refuses us, shuts down or cannot looks like from asyncpg: what passes by itself.
LOST = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement met a connection that was just being lost
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TransactionRollbackError,  # a deadlock's victim, which the other side has overtaken by the next try
    *UNABLE,
)


def _dump(value: object) -> str:
    return orjson.dumps(value).decode()


async def prepare_connection(connection: Connection) -> None:
    """Teach a new connection our types: jsonb as Python objects through orjson."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=_dump, decoder=orjson.loads, schema="pg_catalog")


@contextmanager
def naming_the_database(url: str) -> Generator[None]:
    """Turn whatever keeps us from connecting into a ConnectionError that says where to and what to do."""
    try:
        yield
    except (*LOST, asyncpg.PostgresError) as error:
        parts = urlsplit(url)
        place = f"{parts.hostname}:{parts.port or 5432}" if parts.hostname else "its socket"
        reason = str(error) or type(error).__name__
        raise ConnectionError(f"no connection to the database at {place} (TOLLWAY_DATABASE_URL): {reason}") from error


STATEMENT_TIMEOUT = "SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout'"  # milliseconds


def _server_settings(settings: DatabaseSettings) -> dict[str, str]:
    """Bound statements in the server too: one that we gave up on must not run on, waiting for a lock, and commit.

    A pooler's sessions are not ours to set: there the role has to have the bound, and is asked for it.
    """
    bound = {} if settings.pooled else {"statement_timeout": str(int(settings.command_timeout * 1000))}
    return {"application_name": "tollway", **bound}


async def _prepare(connection: Connection, settings: DatabaseSettings) -> None:
    """Make a new connection ready. Raises ConnectionError when a pooler's sessions lack the bound."""
    await prepare_connection(connection)
    if not settings.pooled:
        return
    found, most = await connection.fetchval(STATEMENT_TIMEOUT), int(settings.command_timeout * 1000)
    if not 0 < found <= most:
        raise ConnectionError(
            f"statement_timeout is {found} ms behind the pooler of TOLLWAY_DATABASE_URL and must be 1 to {most}:"
            f" ALTER ROLE … SET statement_timeout = {most}, then let the pooler reconnect"
        )


async def _leave_as_is(_connection: Connection) -> None:
    """Reset nothing: behind a pooler it would be somebody else's session by now."""


async def connect(settings: DatabaseSettings) -> Connection:
    """Open one connection outside the pool. Raises ConnectionError, which is one of LOST."""
    with naming_the_database(settings.url):
        connection = await asyncpg.connect(
            settings.url,
            timeout=settings.connect_timeout,
            command_timeout=settings.command_timeout,
            statement_cache_size=512,
            server_settings=_server_settings(settings),
        )
        try:
            await _prepare(connection, settings)
        except BaseException:
            connection.terminate()
            raise
    return connection


class Database:
    """The pool. `start` before use; `acquire` and `transaction` lease a connection for a short time."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self._pool: asyncpg.Pool[Any] | None = None

    async def start(self) -> None:
        """Open the pool. Raises ConnectionError when the server does not let us in."""
        with naming_the_database(self.settings.url):
            self._pool = await asyncpg.create_pool(
                self.settings.url,
                min_size=1,
                max_size=self.settings.pool,
                timeout=self.settings.connect_timeout,
                command_timeout=self.settings.command_timeout,
                statement_cache_size=512,
                init=lambda connection: _prepare(connection, self.settings),
                reset=_leave_as_is if self.settings.pooled else None,
                server_settings=_server_settings(self.settings),
            )

    async def stop(self) -> None:
        """Close the pool, waiting briefly for leases."""
        if self._pool is None:
            return
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()

    @property
    def pool(self) -> asyncpg.Pool[Any]:
        """Return the open pool."""
        if self._pool is None:
            raise RuntimeError("the database pool is not started")
        return self._pool

    def gauges(self) -> dict[str, int]:
        """Return pool sizes for the metrics."""
        pool = self.pool
        return {"size": pool.get_size(), "idle": pool.get_idle_size(), "max": pool.get_max_size()}

    @asynccontextmanager
    async def acquire(self) -> AsyncGenerator[Connection]:
        """Lease a connection. Raises Unavailable when the server is away or the pool is exhausted."""
        try:
            connection = await self.pool.acquire(timeout=self.settings.connect_timeout)
        except LOST as error:
            log.warning("database unavailable: %s", type(error).__name__)
            raise Unavailable("The database cannot be reached; nothing was changed. Try again.") from error
        try:
            yield connection
        finally:
            with suppress(*LOST):  # what was done is done; the pool throws away a connection that it cannot reset
                await self.pool.release(connection)

    async def read(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Run a read, or other idempotent work, again on a new connection when the server was lost under it.

        Raises Unavailable when it is lost again and again, and at once when it does not answer.
        """
        for _ in range(READ_TRIES):
            try:
                async with self.acquire() as connection:
                    return await work(connection)
            except LOST as error:
                log.warning("database connection lost: %s", type(error).__name__)
                if isinstance(error, TimeoutError):
                    break
        raise Unavailable("The database cannot be reached; nothing was changed. Try again.")

    @asynccontextmanager
    async def transaction(
        self, *, isolation: str = "read_committed", readonly: bool = False
    ) -> AsyncGenerator[Connection]:
        """Lease a connection inside one transaction; rolled back when the block raises."""
        async with self.acquire() as connection, connection.transaction(isolation=isolation, readonly=readonly):
            yield connection


class Held:
    """One connection kept for one purpose, reconnected on demand.

    `prepare` runs after every (re)connect, for instance LISTEN. Not for concurrent use: the owner serialises.
    """

    def __init__(
        self, settings: DatabaseSettings, prepare: Callable[[Connection], Awaitable[None]] | None = None
    ) -> None:
        self._settings = settings
        self._prepare = prepare
        self._connection: Connection | None = None

    async def get(self) -> Connection:
        """Return the live connection, opening one if there is none. Raises one of LOST when that fails."""
        if self._connection is None or self._connection.is_closed():
            connection = await connect(self._settings)
            try:
                if self._prepare is not None:
                    await self._prepare(connection)
            except BaseException:  # also a cancellation: nobody else knows of this connection
                connection.terminate()
                raise
            self._connection = connection
        return self._connection

    def drop(self) -> None:
        """Forget the connection at once: its state is unknown."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            connection.terminate()

    async def close(self) -> None:
        """Close politely."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            await connection.close(timeout=2)
