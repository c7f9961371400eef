"""Two hosts of different settings are one gateway: what is changed by one is honoured by the other, even while it hears nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.proxy.test_key_budgets import key_of
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.switch import Switch
from tests.support.world import Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
PRICE = 10_000


@dataclass
class Hosts:
    """`one` is where changes are made. `other` has two workers, another server, and its news behind a switch."""

    one: RunningGateway
    other: RunningGateway
    news: Switch

    async def honour(self, shop: Shop, headers: dict[str, str], status: int) -> None:
        """Wait until every worker answers so; far less long than a cache would keep what it is not told of."""
        async with asyncio.timeout(60):
            for host in (self.one, self.other):
                agreed = 0
                while agreed < 10:  # connections of their own: each worker is met
                    answer = await host.client.get(
                        f"/publishers/{shop.slug}/x", headers={**headers, "Connection": "close"}
                    )
                    agreed = agreed + 1 if answer.status_code == status else 0
                    if not agreed:
                        await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module")
async def hosts(services: Services, database_url: str, connection: Connection) -> AsyncIterator[Hosts]:
    name = database_url.rsplit("/", 1)[1]
    await connection.execute(f"ALTER DATABASE \"{name}\" SET statement_timeout = '30s'")
    async with Switch(database_url) as news:
        one = await start_gateway(services, database_url)
        other = await start_gateway(
            services, database_url, DATABASE_DIRECT_URL=news.url, WORKERS="2", DATABASE_POOL="3"
        )  # fmt: skip
        yield Hosts(one, other, news)
        await one.stop()
        await other.stop()


@pytest_asyncio.fixture(params=["told", "not told"])
async def changing(request: pytest.FixtureRequest, hosts: Hosts) -> AsyncIterator[Hosts]:
    """The hosts, the other one's news being cut off in the second round."""
    if request.param == "not told":
        await hosts.news.off()
    yield hosts
    if request.param == "not told":
        await hosts.news.on()


async def test_a_new_publisher_is_sold_a_changed_price_holds_and_a_deleted_one_is_gone(
    changing: Hosts, world: World, connection: Connection
) -> None:
    shop = await world.publisher(0)
    await changing.honour(shop, {}, 200)
    await connection.execute("UPDATE catalog.pricing SET price_per_call = 10000 WHERE publisher_id = $1", shop.id)
    await changing.honour(shop, {}, 402)
    await connection.execute("UPDATE catalog.publisher SET is_active = false WHERE id = $1", shop.id)
    await changing.honour(shop, {}, 404)
    await connection.execute("UPDATE catalog.publisher SET is_active = true WHERE id = $1", shop.id)
    await changing.honour(shop, {}, 402)
    await connection.execute("UPDATE catalog.publisher SET deleted_at = now() WHERE id = $1", shop.id)
    await changing.honour(shop, {}, 404)


async def test_a_revoked_key_is_refused_and_a_budget_holds(
    changing: Hosts, world: World, connection: Connection
) -> None:
    shop, agent = await world.publisher(PRICE), await world.agent(1_000 * PRICE)
    key = await key_of(changing.one, agent)
    await changing.honour(shop, {}, 402)
    for host in (changing.one, changing.other):
        assert (await host.client.get(f"/publishers/{shop.slug}/x", headers=key.headers)).status_code == 200
    await key.limit(per_call="0")
    await changing.honour(shop, key.headers, 403)
    key_id = agent.key.split("_")[1]
    for host in (changing.one, changing.other):
        assert (await host.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)).status_code == 200
    await connection.execute("UPDATE identity.api_key SET revoked_at = now() WHERE key_id = $1", key_id)
    await changing.honour(shop, agent.headers, 401)


async def test_limits_and_balances_are_of_all_hosts_together(hosts: Hosts, world: World) -> None:
    shop, agent = await world.publisher(PRICE, max_queries_per_minute=40), await world.agent(7 * PRICE)
    await hosts.honour(shop, {}, 402)
    calls = [
        host.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
        for _ in range(30)
        for host in (hosts.one, hosts.other)
    ]
    statuses = Counter([answer.status_code for answer in await asyncio.gather(*calls)])
    assert statuses[200] == 7
    assert statuses[429] > 0, "of 60 calls 40 pass, and one more for each 1.5 s that they took"
    assert await world.balance(agent) == 0
