"""Takes what is left in expired promotional lots back to the platform's expense, and forgets expired answers.

An expired lot cannot be spent from the moment it expires (every charge looks at the clock); this job only books it.
"""

from __future__ import annotations

from gateway.database.pool import Database
from gateway.ledger.answers import expire_answers
from gateway.ledger.operation_keys import expire_operation_keys
from gateway.ledger.wallets import EXPIRE_LOTS

ROUND = 200
ANSWERS_ROUND = 1000


async def expire_lots(database: Database) -> int:
    """Expire all that is due, in short transactions, and return how many lots that were."""
    total = 0
    while True:
        async with database.transaction() as connection:
            swept = await EXPIRE_LOTS.one(connection, ROUND)
        total += swept
        if swept < ROUND:
            return total


async def expire_stored_answers(database: Database) -> int:
    """Remove answers whose keys have expired, of calls and of operations, and return how many."""
    total = 0
    while True:
        async with database.transaction() as connection:
            removed = await expire_answers(connection) + await expire_operation_keys(connection)
        total += removed
        if removed < ANSWERS_ROUND:
            return total
