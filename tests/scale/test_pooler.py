"""Two gateways on three server sessions: money, keys and news are right through PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from gateway.database.pool import Connection, Database, connect
from gateway.ids import uuid7
from gateway.ledger.entries import Charge
from gateway.ledger.group_commit import GroupCommit
from gateway.settings import DatabaseSettings
from tests.support.gateway import ROOT, SECRET_KEYS, RunningGateway, free_port, start_gateway
from tests.support.pooler import BINARY, Pooler
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

pytestmark = [
    pytest.mark.skipif(BINARY is None, reason="there is no pgbouncer on this machine"),
    pytest.mark.usefixtures("sound_books"),
]

SIZE = 3  # of the pooler: fewer than one gateway holds
PRICE = 10_000


@pytest.fixture(scope="module")
def pooler(services: Services) -> Iterator[Pooler]:
    made = Pooler(services.database_url, SIZE)
    made.start()
    yield made
    made.remove()


@pytest_asyncio.fixture(scope="module")
async def pooled(pooler: Pooler, database_url: str, connection: Connection) -> DatabaseSettings:
    """Settings of this module's database through the pooler, its statements bounded as the documentation asks."""
    name = database_url.rsplit("/", 1)[1]
    await connection.execute(f"ALTER DATABASE \"{name}\" SET statement_timeout = '30s'")
    return DatabaseSettings(url=pooler.url(database_url), direct_url=database_url)


async def start(services: Services, pooled: DatabaseSettings, **settings: str) -> RunningGateway:
    return await start_gateway(services, pooled.url, DATABASE_DIRECT_URL=pooled.direct_url, **settings)


@pytest_asyncio.fixture(scope="module")
async def gateways(services: Services, pooled: DatabaseSettings) -> AsyncIterator[list[RunningGateway]]:
    running = [await start(services, pooled) for _ in range(2)]
    yield running
    for one in running:
        await one.stop()


async def known(gateways: list[RunningGateway], shop: Shop) -> None:
    """Wait until every gateway has heard of a publisher; nothing is bought."""
    async with asyncio.timeout(60):
        for one in gateways:
            while (await one.client.get(f"/publishers/{shop.slug}/x")).status_code != 402:
                await asyncio.sleep(0.02)


async def test_no_race_through_the_pooler_overdraws_and_what_fails_is_given_back(
    gateways: list[RunningGateway], world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    agents, shop = [await world.agent(20 * PRICE) for _ in range(4)], await world.publisher(PRICE)
    await known(gateways, shop)
    upstream.forget()

    async def call(number: int) -> int:
        agent, gateway = agents[number % 4], gateways[number % 2]
        path = "status/500" if number % 10 == 9 else "x"
        return (await gateway.client.get(f"/publishers/{shop.slug}/{path}", headers=agent.headers)).status_code

    statuses = Counter(await asyncio.gather(*(call(number) for number in range(200))))
    assert set(statuses) == {200, 402, 500}
    async with asyncio.timeout(60):
        while await world.earned(shop) != statuses[200] * PRICE:
            await asyncio.sleep(0.02)
    assert sum([await world.balance(agent) for agent in agents]) == 80 * PRICE - statuses[200] * PRICE
    assert upstream.calls == statuses[200] + statuses[500]
    sessions = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert sessions <= SIZE + 2  # and the two that hear


async def test_a_key_of_a_call_is_claimed_once_over_both(
    gateways: list[RunningGateway], world: World, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(20 * PRICE), await world.publisher(PRICE)
    await known(gateways, shop)
    upstream.forget()
    headers = {**agent.headers, "Idempotency-Key": "once"}

    async def call(number: int) -> int:
        return (await gateways[number % 2].client.get(f"/publishers/{shop.slug}/x", headers=headers)).status_code

    statuses = Counter(await asyncio.gather(*(call(number) for number in range(40))))
    assert statuses[200] >= 1
    assert set(statuses) <= {200, 409}
    assert upstream.calls == 1
    assert await world.balance(agent) == 19 * PRICE


@pytest.mark.parametrize(("path", "spent"), [("bytes?n=3000000", 2_862), ("status/500", 0)])
async def test_what_is_held_is_captured_or_released(
    gateways: list[RunningGateway], world: World, path: str, spent: int
) -> None:
    agent = await world.agent(100 * PRICE)
    fields: dict[str, Any] = {"price_per_mib": "0.001", "reserve_max_charge": "0.05", "pricing_model": "per_byte"}
    shop = await world.publisher(None, **fields)
    await known(gateways, shop)
    url = f"/publishers/{shop.slug}/{path}"
    answers = await asyncio.gather(*(one.client.get(url, headers=agent.headers) for one in gateways * 3))
    assert {answer.status_code for answer in answers} == {200 if spent else 500}
    async with asyncio.timeout(60):
        while await world.balance(agent) != 100 * PRICE - 6 * spent:
            await asyncio.sleep(0.02)


async def test_changes_are_heard_past_the_pooler(
    gateways: list[RunningGateway], world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(20 * PRICE), await world.publisher(0)
    url = f"/publishers/{shop.slug}/x"

    async def answered(status: int) -> None:
        async with asyncio.timeout(60):
            for one in gateways:
                while (await one.client.get(url, headers=agent.headers)).status_code != status:
                    await asyncio.sleep(0.02)

    await answered(200)
    await connection.execute("UPDATE catalog.pricing SET price_per_call = 1000000 WHERE publisher_id = $1", shop.id)
    await answered(402)
    key_id = agent.key.split("_")[1]
    await connection.execute("UPDATE identity.api_key SET revoked_at = now() WHERE key_id = $1", key_id)
    await answered(401)


async def test_a_pooler_that_dies_costs_nobody_money(
    gateways: list[RunningGateway], pooler: Pooler, world: World, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(10_000 * PRICE), await world.publisher(PRICE)
    await known(gateways, shop)
    statuses: Counter[int] = Counter()
    over = asyncio.Event()

    async def caller(gateway: RunningGateway) -> None:
        while not over.is_set():
            answer = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
            statuses[answer.status_code] += 1

    callers = [asyncio.create_task(caller(one)) for one in gateways * 4]
    async with asyncio.timeout(60):
        while statuses[200] < 50:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(pooler.kill)
        while statuses[503] < 8:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(pooler.start)
        before = statuses[200]
        while statuses[200] < before + 50:
            await asyncio.sleep(0.02)
        over.set()
        await asyncio.gather(*callers)
        assert set(statuses) == {200, 503}
        while await world.balance(agent) != (10_000 - statuses[200]) * PRICE:  # what was in doubt is given back
            await asyncio.sleep(0.05)


async def test_the_ledgers_doors_hold_on_a_session_of_the_poolers(pooled: DatabaseSettings, world: World) -> None:
    agent, shop = await world.agent(37 * PRICE), await world.publisher()
    workers = [GroupCommit(pooled, grace=timedelta(days=7)) for _ in range(6)]  # more than there are sessions

    def charge(payer: Agent) -> Charge:
        return Charge(uuid7(), payer.wallet_id, shop.id, shop.account_id, PRICE, 250)

    verdicts = await asyncio.gather(*(workers[number % 6].charge(charge(agent)) for number in range(200)))
    for worker in workers:
        await worker.stop()
    assert Counter(verdict.verdict for verdict in verdicts) == {"posted": 37, "short": 163}
    assert await world.earned(shop) == 37 * (PRICE - 250)


async def test_a_session_is_given_to_others_as_it_was(pooled: DatabaseSettings) -> None:
    """Our pool resets nothing: what RESET ALL and the like would meet is by then somebody else's."""
    database = Database(pooled)
    await database.start()
    async with database.acquire() as one:
        await one.fetchval("SELECT set_config('application_name', 'kept', false)")
    async with database.acquire() as one:
        assert await one.fetchval("SELECT current_setting('application_name')") == "kept"
    await database.stop()


def serve(pooled: DatabaseSettings, redis_url: str, direct_url: str) -> str:
    """Start a gateway that cannot start, and return what it says."""
    environment = {
        "TOLLWAY_DATABASE_URL": pooled.url, "TOLLWAY_DATABASE_DIRECT_URL": direct_url, "TOLLWAY_REDIS_URL": redis_url,
        "TOLLWAY_PORT": str(free_port()), "TOLLWAY_SECRET_KEYS": SECRET_KEYS,
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", "serve"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode != 0
    return ran.stdout + ran.stderr


async def test_a_pooler_that_was_not_named_as_one_is_found_out_at_the_start(
    services: Services, pooled: DatabaseSettings
) -> None:
    """It takes our LISTEN, and says nothing ever after."""
    ways = (asyncio.to_thread(serve, pooled, services.redis_url, direct_url) for direct_url in ("", pooled.url))
    for said in await asyncio.gather(*ways):
        assert "LISTEN hears nothing" in said


async def test_statements_without_a_bound_are_refused(
    pooler: Pooler, pooled: DatabaseSettings, database_url: str, connection: Connection
) -> None:
    name = database_url.rsplit("/", 1)[1]
    await connection.execute(f'ALTER DATABASE "{name}" RESET statement_timeout')
    pooler.kill()
    pooler.start()
    try:
        with pytest.raises(ConnectionError, match=r"ALTER ROLE … SET statement_timeout = 30000"):
            await connect(pooled)
    finally:
        await connection.execute(f"ALTER DATABASE \"{name}\" SET statement_timeout = '30s'")
        pooler.kill()
        pooler.start()
