"""Databases that come and go with tests."""

from __future__ import annotations

import asyncio

import asyncpg

from gateway.database.pool import Connection


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
