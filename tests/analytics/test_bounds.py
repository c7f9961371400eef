"""What is booked at the very moment of the mark is added once: by the round that begins there."""

from __future__ import annotations

from datetime import timedelta

from gateway.analytics.rollups import ROLL_UP, differences
from gateway.database.pool import Connection
from gateway.ids import uuid7
from tests.support.world import World

CALLS = "SELECT coalesce(sum(calls), 0)::bigint FROM analytics.day WHERE account_id = $1"


async def test_a_round_ends_before_its_bound_and_the_next_begins_at_it(connection: Connection, world: World) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    call = uuid7()
    await connection.execute(
        "SELECT ledger.post_charge($1, $2, $3, $4, 100, 0, NULL)", call, agent.wallet_id, shop.id, shop.account_id
    )
    bound = await connection.fetchval("SELECT created_at FROM ledger.transfer WHERE cause_id = $1", call)
    await ROLL_UP.one(connection, bound)
    assert await connection.fetchval(CALLS, shop.account_id) == 0
    await ROLL_UP.one(connection, bound + timedelta(seconds=1))
    assert await connection.fetchval(CALLS, shop.account_id) == 1
    assert await differences(connection) == []
