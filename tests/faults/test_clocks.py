"""Clocks are set, back and forward, under running gateways: of their host, of the database, of Valkey.

Calls go on, nobody alive is taken for dead, whoever is dead is found, and the log and the metrics say what was noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from gateway.catalog.assets import store_assets
from gateway.database.migrate import migrate
from gateway.database.pool import Connection, connect
from gateway.devservices import postgres, valkey
from gateway.devservices.processes import bare_environment
from gateway.ledger import proof
from gateway.settings import DatabaseSettings
from tests.support.clocks import LIBRARIES, MISSING, SettableClock
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.stores import temporary_stores
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not LIBRARIES, reason=MISSING)]
HOUR, PRICE, FUNDS = 3_600, 10_000, 10**9
DEAD_AFTER = "6"


@pytest.fixture(scope="module")
def stores_clock() -> SettableClock:
    """The clock of PostgreSQL and Valkey."""
    return SettableClock()


@pytest.fixture
def host_clock() -> SettableClock:
    """The clock of a gateway's host."""
    return SettableClock()


@pytest.fixture(scope="module")
def stores(stores_clock: SettableClock) -> Iterator[Services]:
    def environment() -> dict[str, str]:
        return {**bare_environment(), **stores_clock.environment}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "bare_environment", environment)
        patch.setattr(valkey, "bare_environment", environment)
        with temporary_stores() as running:
            yield running.services


@pytest_asyncio.fixture(scope="module")
async def ledger(stores: Services) -> AsyncIterator[Connection]:
    """The database, migrated, whose books balance at the end."""
    await migrate(stores.database_url)
    connection = await connect(DatabaseSettings(url=stores.database_url))
    await store_assets(connection)
    yield connection
    report = await proof.verify(connection)
    assert report.sound, report.violations
    assert not report.open_exchanges
    await connection.close()


class Shopping:
    """An agent who calls a shop."""

    def __init__(self, world: World, agent: Agent, shop: Shop) -> None:
        self.world, self.agent, self.shop = world, agent, shop

    async def call(self, gateway: RunningGateway, path: str = "x") -> None:
        """Make one call, which must be answered."""
        answer = await gateway.client.get(f"/publishers/{self.shop.slug}/{path}", headers=self.agent.headers)
        assert answer.status_code == 200, f"{answer.text}\n{gateway.output()}"

    async def until(self, gateway: RunningGateway, text: str, times: int = 1) -> None:
        """Call again and again until the gateway has logged something so many times."""
        async with asyncio.timeout(90):
            while gateway.output().count(text) < times:
                await self.call(gateway)
                await asyncio.sleep(0.02)

    async def paid(self) -> int:
        """Return how many calls are paid for."""
        return (FUNDS - await self.world.balance(self.agent)) // PRICE


@pytest_asyncio.fixture
async def shopping(ledger: Connection, upstream: RecordingUpstream) -> Shopping:
    world = World(ledger, upstream.url)
    return Shopping(world, await world.agent(FUNDS), await world.publisher(PRICE))


@contextlib.asynccontextmanager
async def gateway_on(services: Services, clock: SettableClock | None = None) -> AsyncIterator[RunningGateway]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (clock.environment if clock else {}).items():
            patch.setenv(name, value)
        running = await start_gateway(services, services.database_url, MONEY_DEAD_AFTER=DEAD_AFTER)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            await running.stop()


@pytest.mark.parametrize(
    "steps", [(-HOUR, 0), (HOUR, 0), (-300, -HOUR)], ids=["back", "forward and corrected", "again"]
)
async def test_the_hosts_clock_is_set(
    stores: Services, shopping: Shopping, host_clock: SettableClock, steps: tuple[int, ...]
) -> None:
    """Every call succeeds; what is open when the gateway dies after that is refunded."""
    async with gateway_on(stores, host_clock) as gateway:
        for number, offset in enumerate(steps, 1):
            await shopping.call(gateway)
            host_clock.set(offset)
            await shopping.until(gateway, "the clock of the host was set", number)
            await shopping.until(gateway, "the clock of the host was set", number)
        metrics = (await gateway.client.get("/metrics")).text
        assert 'tollway_clock_steps_total{direction="back",of="host"}' in metrics
        for _ in range(20):
            await shopping.call(gateway)
        before = await shopping.paid()
        left = asyncio.create_task(shopping.call(gateway, "x?ms=60000"))
        async with asyncio.timeout(60):
            while await shopping.paid() == before:
                await asyncio.sleep(0.02)
        await gateway.kill()
        await asyncio.gather(left, return_exceptions=True)
    async with gateway_on(stores), asyncio.timeout(90):
        while await shopping.paid() != before:
            await asyncio.sleep(0.05)


async def test_the_databases_clock_is_set(stores: Services, stores_clock: SettableClock, shopping: Shopping) -> None:
    """Of two gateways neither takes the other for dead, and calls go on at both."""
    async with gateway_on(stores) as one, gateway_on(stores) as other:
        for number, offset in enumerate((HOUR, 0, -300, 0), 1):
            long = asyncio.create_task(shopping.call(other, "x?ms=3000"))
            await asyncio.sleep(0)
            stores_clock.set(offset)
            await shopping.until(one, "the clock of the database was set", number)
            await shopping.until(other, "the clock of the database was set", number)
            await long
        assert "taken for dead" not in one.output() + other.output()
        assert 'tollway_clock_steps_total{direction="forward",of="database"}' in (await one.client.get("/metrics")).text


async def test_a_worker_that_dies_before_the_clock_is_set_back_is_found(
    stores: Services, stores_clock: SettableClock, shopping: Shopping
) -> None:
    async with gateway_on(stores) as one, gateway_on(stores) as other:
        left = asyncio.create_task(shopping.call(other, "x?ms=60000"))
        async with asyncio.timeout(60):
            while await shopping.paid() == 0:
                await asyncio.sleep(0.02)
        await other.kill()
        await asyncio.gather(left, return_exceptions=True)
        stores_clock.set(-HOUR)
        try:
            async with asyncio.timeout(90):
                while await shopping.paid():
                    await asyncio.sleep(0.05)
        finally:
            stores_clock.set(0)
        await shopping.until(one, "the clock of the database was set", 2)
