"""The catalog's copy in memory when answers of the database overtake each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from gateway.catalog.assets import LIST_ASSETS
from gateway.catalog.snapshot import Catalog
from gateway.database.pool import Connection, Database
from tests.support.world import World


class Slow:
    """A database whose answers are on their way until `arrive` is set."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.read, self.arrive = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Slow]:
        yield self

    async def fetchrow(self, *question: Any) -> Any:
        return await self._late(await self.connection.fetchrow(*question))

    async def fetch(self, *question: Any) -> Any:
        answer = await self.connection.fetch(*question)
        return answer if "catalog.publisher p" not in question[0] else await self._late(answer)

    async def _late(self, answer: Any) -> Any:
        self.read.set()
        await self.arrive.wait()
        return answer


@pytest.mark.parametrize("everything", [True, False], ids=["all", "one"])
async def test_what_was_read_before_a_change_does_not_take_it_back(
    connection: Connection, world: World, everything: bool
) -> None:
    shop = await world.publisher()
    slow = Slow(connection)
    catalog = Catalog(cast("Database", slow), lambda sealed, _: sealed)
    late = asyncio.create_task(catalog.load() if everything else catalog.refresh(shop.id))
    await slow.read.wait()
    await connection.execute("UPDATE catalog.publisher SET name = 'New' WHERE id = $1", shop.id)
    if not everything:
        catalog.assets = {asset.id: asset for asset in await LIST_ASSETS.all(connection)}
    await catalog.refresh(shop.id, connection)
    slow.arrive.set()
    await late
    found = catalog.find(shop.slug)
    assert found is not None
    assert found.name == "New"


async def test_what_was_read_before_a_publisher_went_does_not_bring_it_back(
    connection: Connection, world: World
) -> None:
    shop, stays = await world.publisher(), await world.publisher()
    slow = Slow(connection)
    catalog = Catalog(cast("Database", slow), lambda sealed, _: sealed)
    late = asyncio.create_task(catalog.load())
    await slow.read.wait()
    await connection.execute("UPDATE catalog.publisher SET deleted_at = now() WHERE id = $1", shop.id)
    await catalog.refresh(shop.id, connection)
    slow.arrive.set()
    await late
    assert catalog.find(shop.slug) is None
    assert catalog.find(stays.slug) is not None
    assert catalog.slug_of(shop.id) is None
