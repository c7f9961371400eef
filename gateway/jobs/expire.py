"""Takes what is left in expired promotional lots back to the platform's expense.

An expired lot cannot be spent from the moment it expires (every charge looks at the clock); this job only books it.
"""

from __future__ import annotations

from gateway.database.pool import Database
from gateway.ledger.wallets import EXPIRE_LOTS

ROUND = 200


async def expire_lots(database: Database) -> int:
    """Expire all that is due, in short transactions, and return how many lots that were."""
    total = 0
    while True:
        async with database.transaction() as connection:
            swept = await EXPIRE_LOTS.one(connection, ROUND)
        total += swept
        if swept < ROUND:
            return total
