"""What a gateway says and does while it is cut off from its database, or may only read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.ledger import exactly
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.switch import Switch
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("sound_books")
PRICE, FUNDS = 10_000, 1_000_000


@pytest_asyncio.fixture(scope="module")
async def cable(database_url: str) -> AsyncIterator[Switch]:
    """What leads to the database."""
    async with Switch(database_url) as switch:
        yield switch


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, cable: Switch, database_url: str) -> AsyncIterator[RunningGateway]:
    running = await start_gateway(services, cable.url)
    yield running
    await running.stop()


async def test_free_calls_with_known_keys_go_on_while_the_database_is_cut_off(
    gateway: RunningGateway, cable: Switch, world: World
) -> None:
    agent, free, priced = await world.agent(FUNDS), await world.publisher(0), await world.publisher(PRICE)
    for shop in (free, priced):
        await gateway.hears(shop.slug)

    async def call(slug: str, key: str = agent.key) -> int:
        answer = await gateway.client.get(f"/publishers/{slug}/x", headers={"Authorization": f"Bearer {key}"})
        return answer.status_code

    assert (await call(free.slug), await call(priced.slug)) == (200, 200)
    stranger = await world.agent(FUNDS)
    await cable.off()
    assert await call(priced.slug) == 503, "the first one as well"
    for _ in range(8):  # longer than a key is believed without news
        assert (await call(free.slug), await call(priced.slug)) == (200, 503)
        await asyncio.sleep(0.4)
    assert await call(free.slug, stranger.key) == 503, "a key that nobody knows cannot be looked up"
    await cable.on()
    async with asyncio.timeout(60):
        while await call(priced.slug) != 200:
            await asyncio.sleep(0.05)
    assert await call(free.slug, stranger.key) == 200


def test_a_call_is_refused_within_a_second() -> None:
    assert sum(exactly.RETRY_SECONDS) < 1


async def test_a_database_that_can_only_be_read_is_not_ready(
    services: Services, gateway: RunningGateway, connection: Connection
) -> None:
    assert (await gateway.client.get("/health/ready")).status_code == 200
    name = await connection.fetchval("SELECT current_database()")
    admin = await asyncpg.connect(services.admin_url)

    async def allow(what: str) -> None:
        await admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {what}')
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> $2",
            name, connection.get_server_pid(),
        )  # fmt: skip

    await allow("on")
    try:
        async with asyncio.timeout(60):
            while "read" not in (answer := await gateway.client.get("/health/ready")).json()["checks"]["database"]:
                await asyncio.sleep(0.05)
        assert answer.status_code == 503
        assert answer.json()["missing"] == ["database"]
        assert (await gateway.client.get("/health/live")).status_code == 200
    finally:
        await allow("off")
        await admin.close()
    async with asyncio.timeout(60):
        while (await gateway.client.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.05)
