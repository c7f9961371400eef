"""Which plan a key is known to have: that of the moment, without news and without a look at the database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.database.pool import Connection, Database
from gateway.identity.principals import Identities
from gateway.ids import uuid7
from gateway.plans import load_plans
from gateway.settings import DatabaseSettings
from tests.support.world import World

PLANS = load_plans()


async def has(
    connection: Connection, organization_id: UUID, name: str, begins: datetime, ends: datetime | None
) -> None:
    plan = PLANS.named(name)
    assert plan is not None
    await connection.execute(
        "INSERT INTO identity.organization_plan (id, organization_id, plan_id, terms, started_at, ends_at)"
        " VALUES ($1, $2, $3, '{}', $4, $5)",
        uuid7(), organization_id, plan.id, begins, ends,
    )  # fmt: skip


async def test_a_plan_that_ends_is_followed_by_the_next_in_its_moment(
    database_url: str, connection: Connection, world: World
) -> None:
    agent, now = await world.agent(), datetime.now(UTC)
    ends = now + timedelta(seconds=3)
    await has(connection, agent.organization_id, "pro", now - timedelta(days=1), ends)
    await has(connection, agent.organization_id, "starter", ends, None)
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    try:
        identities = Identities(database, PLANS)
        identities.listening = True  # so that keys are kept for minutes, if nothing else makes them old
        names: list[str | None] = []
        async with asyncio.timeout(60):
            while names[-1:] != ["starter"]:
                plan = (await identities.resolve(agent.headers["Authorization"])).plan
                names.append(plan and plan.name)
                await asyncio.sleep(0.05)
        assert set(names) <= {"pro", "starter"}
        assert datetime.now(UTC) >= ends
        misses = identities.misses
        await identities.resolve(agent.headers["Authorization"])
        assert identities.misses == misses
        free = Identities(database)
        assert (await free.resolve(agent.headers["Authorization"])).plan is None
    finally:
        await database.stop()
