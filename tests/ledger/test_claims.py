"""Claims of keys that wait at the same time share a statement, and none suffers from whose key is held by another."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from gateway.database.pool import Connection, Database
from gateway.ids import uuid7
from gateway.ledger.answers import Answers, Claim
from gateway.settings import DatabaseSettings
from tests.support.world import Agent, World


async def wait_for_locks(connection: Connection, many: int) -> None:
    while many > await connection.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0.01)


async def test_only_the_claim_of_a_key_that_is_held_waits(
    connection: Connection, world: World, database_url: str
) -> None:
    agent = await world.agent()
    database = Database(DatabaseSettings(url=database_url, pool=4))
    await database.start()
    answers = Answers(database, lifetime=timedelta(hours=1), keep=0)
    try:
        async with connection.transaction():  # as a worker does that is slow to store its answer
            await connection.execute(
                "INSERT INTO ledger.answer (owner_id, key, request_hash, exchange_id, expires_at)"
                " VALUES ($1, 'held', '', $2, now() + interval '1 hour')",
                agent.id, uuid7(),
            )  # fmt: skip
            claims = {key: asyncio.create_task(claim(answers, agent, key)) for key in ("free", "held", "other")}
            found = await asyncio.gather(claims["free"], claims["other"])
            assert [one.verdict for one in found] == ["claimed", "claimed"]
            assert (await claim(answers, agent, "later")).verdict == "claimed"
            await wait_for_locks(connection, 1)
            assert not claims["held"].done()
        assert (await claims["held"]).verdict == "running"
    finally:
        await database.stop()


async def claim(answers: Answers, agent: Agent, key: str) -> Claim:
    return await answers.claim(agent.id, key, b"", uuid7(), None)
