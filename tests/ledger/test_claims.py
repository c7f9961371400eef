"""Claims of keys that wait at the same time share a statement, and none suffers from whose key is held by another."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from gateway.database.pool import Connection, Database
from gateway.ids import uuid7
from gateway.ledger.answers import Answers, Claim
from gateway.ledger.group_commit import GroupCommit
from gateway.proxy.exchange import Exchange, Keyed
from gateway.proxy.idempotency import release_key
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


async def test_a_key_is_given_back_although_its_call_is_cancelled_at_that(world: World, database_url: str) -> None:
    agent = await world.agent()
    settings = DatabaseSettings(url=database_url, pool=2)
    database, ledger = Database(settings), GroupCommit(settings, grace=timedelta(days=7))
    await database.start()
    answers = Answers(database, lifetime=timedelta(hours=1), keep=0)
    try:
        exchange = a_call()
        await answers.claim(agent.id, "key", b"", exchange.id, None)
        exchange.keyed = Keyed(agent.id, "key")
        async with database.acquire(), database.acquire():  # the key cannot be given back yet: there is no third one
            releasing = asyncio.create_task(release_key(exchange, answers, ledger))
            await asyncio.sleep(0)
            releasing.cancel()  # as a server does whose caller has hung up
            with pytest.raises(asyncio.CancelledError):
                await releasing
        async with asyncio.timeout(30):
            while (await claim(answers, agent, "key")).verdict != "claimed":
                await asyncio.sleep(0.05)
    finally:
        await ledger.stop()
        await database.stop()


def a_call() -> Exchange:
    """Return a call that nobody serves."""

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nobody serves this call")

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
    return Exchange(scope, nothing, nothing)


async def claim(answers: Answers, agent: Agent, key: str) -> Claim:
    return await answers.claim(agent.id, key, b"", uuid7(), None)
