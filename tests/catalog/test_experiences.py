"""What answers taught is shared by the workers, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
import pytest_asyncio

from gateway.catalog import experiences
from gateway.catalog.experiences import Experiences, Seen
from gateway.database.pool import Connection, Database
from gateway.ids import uuid7
from gateway.settings import DatabaseSettings
from tests.support.world import Shop, World

SHAPE = b"s" * 16
ANN, BOB, CAY, DEE = (uuid7() for _ in range(4))


@pytest_asyncio.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    """The pool that two workers share here."""
    opened = Database(DatabaseSettings(url=database_url))
    await opened.start()
    yield opened
    await opened.stop()


@pytest_asyncio.fixture
async def shop(world: World) -> Shop:
    """A publisher of its own."""
    return await world.publisher()


def saw(worker: Experiences, shop: Shop, account: UUID, actual: int, shape: bytes = SHAPE) -> None:
    worker.saw(Seen(shop.id, shape, account, 1_000, actual))


async def test_a_worker_knows_what_another_saw(database: Database, shop: Shop) -> None:
    one, other = Experiences(database), Experiences(database)
    saw(one, shop, ANN, 10)
    assert one.expected(shop.id, SHAPE, ANN, 1_000) == pytest.approx(10, abs=1), "at once where it was seen"
    assert other.expected(shop.id, SHAPE, ANN, 1_000) == 1_000
    await one.sync()
    await other.sync()
    assert other.expected(shop.id, SHAPE, ANN, 1_000) == pytest.approx(10, abs=1)
    late = Experiences(database)
    await late.sync()
    assert late.expected(shop.id, SHAPE, ANN, 1_000) == pytest.approx(10, abs=1), "and where it starts later"
    assert late.expected(shop.id, b"t" * 16, ANN, 1_000) == 1_000
    assert late.expected(uuid7(), SHAPE, ANN, 1_000) == 1_000


async def test_what_is_seen_while_it_is_written_is_not_lost(database: Database, shop: Shop) -> None:
    worker = Experiences(database)
    for actual in (10, 10, 10):
        saw(worker, shop, ANN, actual)
        writing = asyncio.create_task(worker.sync())
        await asyncio.sleep(0)
        saw(worker, shop, BOB, 30)
        await writing
    await worker.sync()
    assert worker.expected(shop.id, SHAPE, BOB, 1_000) == pytest.approx(30, abs=1)
    other = Experiences(database)
    await other.sync()
    assert other.expected(shop.id, SHAPE, BOB, 1_000) == pytest.approx(30, abs=1)


async def test_others_learn_from_three_and_not_from_two(database: Database, shop: Shop) -> None:
    worker = Experiences(database)
    for account, actual in ((ANN, 10), (BOB, 20)):
        saw(worker, shop, account, actual)
    assert worker.expected(shop.id, SHAPE, DEE, 1_000) == worker.expected(shop.id, SHAPE, None, 1_000) == 1_000
    saw(worker, shop, CAY, 40)
    assert worker.expected(shop.id, SHAPE, DEE, 1_000) == pytest.approx(20, abs=1)
    assert worker.expected(shop.id, SHAPE, None, 1_000) == pytest.approx(20, abs=1)
    assert worker.expected(shop.id, SHAPE, ANN, 1_000) == pytest.approx(10, abs=1)


async def test_table_and_memory_are_bounded(
    database: Database, shop: Shop, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiences, "PER_PUBLISHER", 20)
    monkeypatch.setattr(experiences, "MOST_SHAPES", 15)
    monkeypatch.setattr(experiences, "MOST_PAYERS", 3)
    worker = Experiences(database)
    for number in range(50):
        saw(worker, shop, ANN, 10, number.to_bytes(16, "big"))
    for _ in range(50):
        saw(worker, shop, uuid7(), 10)
    await worker.sync()
    count = "SELECT count(*) FROM catalog.experience WHERE publisher_id = $1"
    assert await connection.fetchval(count, shop.id) == 20
    assert worker.size <= 15
    for _ in range(experiences.MOST_WAITING + 10):
        saw(worker, shop, BOB, 10)
    assert len(worker._waiting) == experiences.MOST_WAITING
    await connection.execute("UPDATE catalog.experience SET updated_at = now() - $1::interval", timedelta(days=31))
    await worker.forget()
    assert await connection.fetchval(count, shop.id) == 0


async def test_a_publisher_that_is_gone_does_not_stop_the_others(
    database: Database, shop: Shop, connection: Connection
) -> None:
    worker = Experiences(database)
    worker.saw(Seen(uuid7(), SHAPE, ANN, 1_000, 10))
    saw(worker, shop, ANN, 10)
    await worker.sync()
    assert await connection.fetchval("SELECT count(*) FROM catalog.experience WHERE publisher_id = $1", shop.id) == 1
