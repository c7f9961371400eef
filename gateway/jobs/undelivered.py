"""Gives back what was paid on a chain for calls that brought nothing: of dead workers, and what had to wait.

A payment that is on its way when its call fails can be neither cancelled nor returned; it is noted (chain.undelivered)
and ended here as soon as its chain has said what became of it.
"""

from __future__ import annotations

import logging
from uuid import UUID

from gateway.database.pool import Connection, Database
from gateway.payments.calls import ABANDON, FIND_UNDELIVERED, GIVE_BACK

log = logging.getLogger(__name__)

ROUND = 500


async def give_back_undelivered(database: Database) -> int:
    """End every undelivered call that can be ended now, and return how many there were."""
    async with database.acquire() as connection:
        return await _end_all(connection)


async def abandon_calls(connection: Connection, worker_id: int, settled_through: UUID) -> int:
    """End the calls that a dead worker left without an end; those whose payment is on its way are noted."""
    left = await ABANDON.run(connection, worker_id, settled_through)
    if left:
        log.warning("worker %d left %d calls that were to be paid on a chain: given back", worker_id, left)
        await _end_all(connection)
    return left


async def _end_all(connection: Connection) -> int:
    found = await FIND_UNDELIVERED.all(connection, ROUND)
    for one in found:
        await GIVE_BACK.one(connection, one.payment_id, one.reason, one.status)
    return len(found)
