"""A read replica: the proof and what people ask about sales run on it as on the primary, and nothing can be written."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from gateway.catalog.earnings import earnings_of
from gateway.catalog.usage import usage_of
from gateway.database.pool import Connection, connect
from gateway.ids import uuid7
from gateway.ledger import proof
from gateway.ledger.entries import Charge, Settlement, post
from gateway.ledger.exchanges import refund
from gateway.ledger.receipts import find_receipt
from gateway.ledger.wallets import BALANCES, HISTORY
from gateway.settings import DatabaseSettings
from tests.support.replica import Replica, replica_of
from tests.support.services import Services
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.slow
DAYS = """
    SELECT date_trunc('day', t.created_at, 'UTC') AS day, p.slug, count(*) AS calls, sum(t.amount - t.fee) AS earned
      FROM ledger.transfer t JOIN ledger.account a ON a.id = t.credit_account
      JOIN catalog.publisher p ON p.id = a.publisher_id
     WHERE t.kind = 'charge' AND t.cause_id >= ledger.id_at(now() - interval '7 days')
     GROUP BY 1, 2 ORDER BY 1, 2
"""


@pytest_asyncio.fixture(scope="module")
async def replica(services: Services, database_url: str) -> AsyncIterator[Replica]:
    async with replica_of(services) as made:
        yield made


@pytest_asyncio.fixture
async def reader(replica: Replica, database_url: str) -> AsyncIterator[Connection]:
    opened = await connect(DatabaseSettings(url=replica.url(database_url)))
    yield opened
    await opened.close()


async def sell(connection: Connection, agent: Agent, shop: Shop, calls: int) -> list[Charge]:
    charges = [Charge(uuid7(), agent.wallet_id, shop.id, shop.account_id, 100, 7) for _ in range(calls)]
    assert {one.verdict for one in await post(connection, charges, None, [])} == {"posted"}
    await post(connection, [], None, [Settlement(one.exchange_id, "delivered", 200, 0, 9) for one in charges])
    await refund(connection, charges[0].exchange_id, reason="x", status=None, grace=timedelta(days=7), only_open=False)
    return charges


async def answers(connection: Connection, agent: Agent, shop: Shop, charge: Charge) -> list[Any]:
    """Return what the reads of the gateway and of people say."""
    return [
        await usage_of(connection, [shop.id]), await earnings_of(connection, shop.id),
        await HISTORY.all(connection, agent.wallet_id, 100, 0), await BALANCES.all(connection, agent.wallet_id),
        await find_receipt(connection, charge.exchange_id), [tuple(row) for row in await connection.fetch(DAYS)],
    ]  # fmt: skip


async def verified(database_url: str, direct_url: str) -> dict[str, Any]:
    """Return the report of `tollway ledger verify` with the replica in place of the database for this one command."""
    env = {**os.environ, "TOLLWAY_DATABASE_URL": database_url, "TOLLWAY_DATABASE_DIRECT_URL": direct_url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli.main", "ledger", "verify", "--json", env=env,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said
    return json.loads(said)


async def test_a_replica_says_what_the_primary_says(
    replica: Replica, reader: Connection, connection: Connection, database_url: str, world: World
) -> None:
    agent, shop = await world.agent(10_000), await world.publisher()
    for calls in (3, 5):
        charges = await sell(connection, agent, shop, calls)
        await replica.caught_up(connection, reader)
        here, there = [await answers(one, agent, shop, charges[1]) for one in (connection, reader)]
        assert there == here
        assert here[4] is not None
        reports = [await verified(database_url, url) for url in (database_url, replica.url(database_url))]
        assert reports[0] == reports[1]
        assert reports[1]["transfers"] > 0


async def test_a_proof_on_the_replica_sees_one_moment_while_calls_go_on(
    replica: Replica, reader: Connection, connection: Connection, world: World
) -> None:
    agent, shop = await world.agent(100_000), await world.publisher()

    async def calls() -> None:
        for _ in range(20):
            await sell(connection, agent, shop, 3)

    calling = asyncio.create_task(calls())
    while not calling.done():
        assert (await proof.verify(reader)).sound
    await calling


async def test_nothing_can_be_written_there(reader: Connection, world: World) -> None:
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await reader.execute("UPDATE ledger.account SET balance = 0")
    with pytest.raises(asyncpg.PostgresError, match="read-only"):
        await reader.fetchval("SELECT ledger.make_ahead('transfer', 9)")
