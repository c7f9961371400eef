"""Databases that come and go with tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from gateway.database.pool import Connection, connect
from gateway.settings import DatabaseSettings
from tests.support import books, leaks


def replaced(url: str, database: str) -> str:
    """Return a database URL with another database name."""
    return f"{url.rsplit('/', 1)[0]}/{database}"


@asynccontextmanager
async def copied_database(server_url: str, template: str, name: str) -> AsyncIterator[str]:
    """Make a copy of a database, yield its URL, and drop it.

    Nothing secret may be on record in it by then, and no money in it that came from nowhere.
    """
    server, url = await asyncpg.connect(server_url), replaced(server_url, name)
    # As files, not page by page through the log: a third faster, and hundreds are made.
    await server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    yield url
    reading = await connect(DatabaseSettings(url=url))
    leaked, made = await leaks.found_in_records(reading), await books.made_of_nothing(reading)
    await reading.close()
    await drop_database(server, name)
    await server.close()
    assert not leaked, f"secrets are on record: {leaked[:5]}"
    assert not made, f"money came from nowhere, or went there: {made}"


async def drop_database(connection: Connection, name: str) -> None:
    """Drop a database and whoever is still in it.

    The server's own vacuum may be in it, which the gateway's role may not end: then it is over soon. And a backend that
    sorts or copies does not look up at once.
    """
    async with asyncio.timeout(120):
        while True:
            try:
                return await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            except (asyncpg.InsufficientPrivilegeError, asyncpg.ObjectInUseError):
                await asyncio.sleep(0.2)
