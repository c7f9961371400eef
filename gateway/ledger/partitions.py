"""Partitions: what grows with every call lies in months, so that old ones can be put away whole.

What does not live here: how an old month is put away (archive.py).
"""

from __future__ import annotations

from gateway.database.pool import Database
from gateway.database.statement import Statement

MONTHS_AHEAD = 3
TABLES = ("transfer", "settlement")

MAKE_AHEAD = Statement("SELECT ledger.make_ahead($1, $2)", int, scalar=True)
SECONDS_AHEAD = Statement("SELECT ledger.seconds_ahead()", int, scalar=True)


async def make_ahead(database: Database) -> int:
    """Make the partitions of the months to come that are missing, and return for how many seconds there are some.

    A table has a transaction of its own: two locks at once could be met in the other order. Without partitions calls go
    on: what they write lies in the last one, and is moved when its month is made.
    """
    for table in TABLES:
        async with database.transaction() as connection:
            await MAKE_AHEAD.one(connection, table, MONTHS_AHEAD)
    async with database.acquire() as connection:
        return await SECONDS_AHEAD.one(connection)
