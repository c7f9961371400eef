"""The stores fail under a running gateway: PostgreSQL crashes, hangs, is full or has no connection left, Valkey is away.

Calls get clear 503 problems, nothing is delivered unpaid nor paid undelivered, and the gateway that was running goes on
by itself as soon as the store is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from gateway.catalog.assets import store_assets
from gateway.database.migrate import migrate
from gateway.database.pool import Connection, connect
from gateway.ledger import proof
from gateway.settings import DatabaseSettings
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.stores import Stores, temporary_stores
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

PRICE = 10_000
FUNDS = 10**9


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with temporary_stores() as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def database(stores: Stores) -> str:
    """The gateway's own database on these stores, migrated."""
    await migrate(stores.postgres.url)
    connection = await connect(DatabaseSettings(url=stores.postgres.url))
    await store_assets(connection)
    await connection.close()
    return stores.postgres.url


@dataclass
class Market:
    """One running gateway with an agent and a shop, on stores that will fail."""

    stores: Stores
    gateway: RunningGateway
    url: str
    agent: Agent
    shop: Shop
    upstream: RecordingUpstream
    answers: Counter[str] = field(default_factory=Counter)

    async def ask(self, work: Callable[[Connection, World], Awaitable[int | bool]]) -> int | bool:
        """Ask the database something over a connection of its own: others may have been lost."""
        connection = await connect(DatabaseSettings(url=self.url))
        try:
            return await work(connection, World(connection))
        finally:
            await connection.close()

    async def paid(self) -> int:
        """Return how many calls the agent has paid for."""
        balance = await self.ask(lambda _connection, world: world.balance(self.agent))
        earned = await self.ask(lambda _connection, world: world.earned(self.shop))
        assert FUNDS - balance == earned
        return earned // PRICE

    async def call(self, *, key: str | None = None, path: str = "x") -> httpx.Response | None:
        """Make one call and note what came of it; None when the connection was cut, or nothing came for a minute."""
        headers = {**self.agent.headers, **({"Idempotency-Key": key} if key else {})}
        try:
            answer = await self.gateway.client.get(f"/publishers/{self.shop.slug}/{path}", headers=headers)
        except httpx.TransportError:
            self.answers["cut"] += 1
            return None
        self.answers[str(answer.status_code)] += 1
        if answer.status_code == 500:
            raise AssertionError([line for line in self.gateway.output().splitlines() if '"level":"error"' in line])
        if answer.status_code == 503 and "application/problem+json" in answer.headers["content-type"]:
            assert answer.json()["type"] == "/problems/unavailable"
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["x-cost"] == "0"
        return answer

    @contextlib.asynccontextmanager
    async def load(self, callers: int = 12) -> AsyncIterator[None]:
        """Keep calling while the block runs: half of the callers with a key for each call, which they repeat."""
        stop = asyncio.Event()

        async def without_key() -> None:
            while not stop.is_set():
                await self.call(path="x?ms=5")
                await asyncio.sleep(0.002)

        async def with_key() -> None:
            while not stop.is_set():
                key = str(uuid4())
                while True:
                    answer = await self.call(key=key, path="x?ms=5")
                    if answer is not None and answer.status_code == 200:
                        break
                    await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(with_key() if number % 2 else without_key()) for number in range(callers)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def refuses(self) -> None:
        """Wait until somebody more is told that it cannot serve."""
        before = self.answers["503"]
        async with asyncio.timeout(60):
            while self.answers["503"] == before:
                await asyncio.sleep(0.05)

    async def serves(self, seconds: float = 60.0) -> None:
        """Wait until a call succeeds again."""
        until = time.monotonic() + seconds
        while (answer := await self.call()) is None or answer.status_code != 200:
            assert time.monotonic() < until, f"it does not recover: {self.gateway.output()[-2000:]}"
            await asyncio.sleep(0.1)

    async def settles(self, seconds: float = 60.0) -> None:
        """Wait until every exchange has ended, with this gateway alive all the time, and prove the books."""
        until = time.monotonic() + seconds
        while True:
            report = await self.ask(lambda connection, _world: proof.verify(connection))
            assert report.sound, report.violations
            if not report.open_exchanges:
                break
            assert time.monotonic() < until, f"{report.open_exchanges} exchanges never end"
            await asyncio.sleep(0.2)
        assert self.gateway.process.poll() is None

    def told(self, *statuses: str) -> None:
        """Assert which answers callers got. Nobody was cut off, or waited too long for one."""
        assert set(self.answers) <= set(statuses), f"{self.answers} {self.gateway.output()[-5000:]}"


@pytest_asyncio.fixture
async def market(stores: Stores, database: str, upstream: RecordingUpstream) -> AsyncIterator[Market]:
    connection = await connect(DatabaseSettings(url=database))
    world = World(connection, upstream.url)
    agent, shop = await world.agent(FUNDS), await world.publisher(PRICE)
    await connection.close()
    gateway = await start_gateway(stores.services, database, DATABASE_COMMAND_TIMEOUT="5", DATABASE_CONNECT_TIMEOUT="3")
    market = Market(stores, gateway, database, agent, shop, upstream)
    yield market
    await market.gateway.stop()


@pytest.mark.slow
@pytest.mark.parametrize("crash", ["killed", "immediate"])
async def test_postgres_restarted_under_load(crash: str, market: Market) -> None:
    async with market.load():
        for _ in range(2):
            await asyncio.sleep(1.5)
            await (market.stores.crash_postgres() if crash == "killed" else market.stores.stop_postgres_immediately())
            await market.refuses()
            await market.stores.start_postgres()
        await market.serves()
        await asyncio.sleep(1)
    await market.settles()
    market.told("200", "503", "409")
    assert await market.paid() == market.answers["200"], "every answer is paid once, and only answers are"


@pytest.mark.slow
async def test_postgres_away_for_longer_than_retries_last(market: Market) -> None:
    async with market.load():
        await asyncio.sleep(1)
        await market.stores.crash_postgres()
        await asyncio.sleep(8)
        await market.refuses()  # not only when it is back
        await market.stores.start_postgres()
        await market.serves()
    await market.settles()
    market.told("200", "503", "409")
    assert await market.paid() == market.answers["200"]


@pytest.mark.slow
async def test_postgres_that_hangs(market: Market) -> None:
    async with market.load():
        await asyncio.sleep(1)
        market.stores.suspend_postgres()
        await asyncio.sleep(12)
        await market.refuses()
        market.stores.resume_postgres()
        await market.serves()
    await market.settles()
    market.told("200", "503", "409")
    assert await market.paid() == market.answers["200"]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["local", "allow", "deny"])
@pytest.mark.parametrize("trouble", ["gone", "hangs"])
async def test_valkey_comes_and_goes_under_a_running_gateway(
    policy: str, trouble: str, market: Market, stores: Stores, database: str
) -> None:
    await market.gateway.stop()
    market.gateway = await start_gateway(
        stores.services, database, LIMITS_WHEN_UNAVAILABLE=policy, REDIS_COMMAND_TIMEOUT="0.1"
    )
    await market.serves()
    market.answers.clear()
    try:
        if trouble == "gone":
            await stores.kill_valkey()
        else:
            stores.suspend_valkey()
        for _ in range(10):
            await market.call()
        expected = "503" if policy == "deny" else "200"
        assert market.answers == {expected: 10}
        assert market.gateway.output().count("Valkey is away") == 1
    finally:
        if trouble == "gone":
            await stores.start_valkey()
        else:
            stores.resume_valkey()
    await market.serves()
    async with asyncio.timeout(60):
        while "Valkey is back" not in market.gateway.output():
            await asyncio.sleep(0.1)
    market.answers.clear()
    for _ in range(10):
        await market.call()
    assert market.answers == {"200": 10}
    await market.settles()


async def waiting_for_locks(connection: Connection, many: int) -> None:
    """Wait until so many connections wait for locks."""
    while many > await connection.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0.02)


async def test_no_connection_left_in_the_pool(market: Market, stores: Stores, database: str) -> None:
    """Keyed calls need the pool for a moment; without one they are refused, and others do not suffer.

    Claims that wait at the same time share a connection, so each of those that take the two is made when the one before
    has its own. While one is left, a key that nobody holds is served.
    """
    await market.gateway.stop()
    market.gateway = await start_gateway(stores.services, database, DATABASE_POOL="2", DATABASE_CONNECT_TIMEOUT="1")
    await market.serves()
    blocker = await connect(DatabaseSettings(url=database))
    keys = ["blocked-1", "blocked-2"]
    async with blocker.transaction():
        for key in keys:  # whoever claims one of these waits for this transaction
            await blocker.execute(
                "INSERT INTO ledger.answer (owner_id, key, request_hash, exchange_id, expires_at)"
                " VALUES ($1, $2, '', $3, now() + interval '1 hour')",
                market.agent.id, key, uuid4(),
            )  # fmt: skip
        stuck = [asyncio.create_task(market.call(key=keys[0]))]
        await waiting_for_locks(blocker, 1)
        beside = await market.call(key=str(uuid4()))
        assert beside is not None
        assert beside.status_code == 200
        stuck.append(asyncio.create_task(market.call(key=keys[1])))
        await waiting_for_locks(blocker, 2)
        refused = await market.call(key=str(uuid4()))
        assert refused is not None
        assert refused.status_code == 503
        plain = await market.call()
        assert plain is not None
        assert plain.status_code == 200
        await blocker.execute("DELETE FROM ledger.answer WHERE key = ANY ($1::text[])", keys)
    await blocker.close()
    assert [answer.status_code for answer in await asyncio.gather(*stuck) if answer is not None] == [200, 200]
    again = await market.call(key=str(uuid4()))
    assert again is not None
    assert again.status_code == 200
    await market.settles()
    assert await market.paid() == market.answers["200"]


async def test_no_connection_left_in_the_server(market: Market, stores: Stores) -> None:
    """The gateway lost its connections and others have taken the places."""
    admin = await asyncpg.connect(stores.postgres.admin_url)
    await admin.execute("ALTER ROLE tollway CONNECTION LIMIT 0")
    try:
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tollway'")
        for key in (None, "k"):
            refused = await market.call(key=key)
            assert refused is not None
            assert refused.status_code == 503
    finally:
        await admin.execute("ALTER ROLE tollway CONNECTION LIMIT -1")
        await admin.close()
    await market.serves()
    await market.settles()
    market.told("200", "503")
    assert await market.paid() == market.answers["200"]


@pytest_asyncio.fixture
async def small_disk(stores: Stores, database: str) -> AsyncIterator[Path]:
    """A file system of a few MB, into which the ledger's transfers move; at the end they move back."""
    account = stores.postgres.place.account
    if account is None:
        pytest.skip("a file system can be mounted by root only")
    place = Path(tempfile.mkdtemp(prefix="tw-disk-", dir="/var/tmp"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        place.rmdir()
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    os.chown(place, account.uid, account.gid)
    admin = await asyncpg.connect(stores.postgres.admin_url)
    await admin.execute(f"CREATE TABLESPACE small OWNER tollway LOCATION '{place}'")
    owner = await connect(DatabaseSettings(url=database))
    try:
        await owner.execute("ALTER TABLE ledger.transfer_first SET TABLESPACE small")
        yield place
    finally:
        (place / "filler").unlink(missing_ok=True)
        await owner.execute("ALTER TABLE ledger.transfer_first SET TABLESPACE pg_default")
        await owner.close()
        await admin.execute("CHECKPOINT")  # files of dropped tables stay until then
        await admin.execute("DROP TABLESPACE small")
        await admin.close()
        # Lazily: backends that served before keep the old files open until they end.
        subprocess.run(["umount", "--lazy", place], check=True)
        place.rmdir()


def fill(place: Path) -> None:
    """Leave no room in a file system."""
    with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


@pytest.mark.slow
async def test_the_disk_is_full_for_the_ledger(market: Market, small_disk: Path) -> None:
    async with market.load():
        await asyncio.sleep(1)
        fill(small_disk)
        await market.refuses()
        await asyncio.sleep(2)
        before = market.answers["200"]
        await asyncio.sleep(1)
        assert market.answers["200"] <= before + 50, "what fits into the last page may still be sold"
        (small_disk / "filler").unlink()
        await market.serves()
    await market.settles()
    market.told("200", "503", "409")
    assert await market.paid() == market.answers["200"]


@pytest.mark.slow
async def test_a_refund_that_finds_the_disk_full_is_made_when_there_is_room(market: Market, small_disk: Path) -> None:
    waiting = [asyncio.create_task(market.call(path="status/503?ms=2500")) for _ in range(60)]
    while await market.ask(lambda _connection, world: world.earned(market.shop)) < len(waiting) * PRICE:
        await asyncio.sleep(0.05)
    fill(small_disk)
    async with market.load(4):
        await asyncio.gather(*waiting)  # told that they cost nothing, which is owed to many of them
        owed = await market.ask(lambda _connection, world: world.earned(market.shop))
        (small_disk / "filler").unlink()
        await market.serves()
    await market.settles()
    assert owed > 0, "the disk was not full"
    assert await market.paid() == market.answers["200"]
