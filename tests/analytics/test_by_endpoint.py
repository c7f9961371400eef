"""What each endpoint has brought, through the public door: calls, tools and queries of every kind, to the last unit."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import httpx
import pytest

from gateway.analytics.rollups import REBUILD, differences
from gateway.database.pool import Connection
from tests.journeys.test_paid_call import settled
from tests.support.gateway import RunningGateway
from tests.support.market import Market, sell
from tests.support.mcp_server import PublishersServer
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, World

pytestmark = pytest.mark.usefixtures("sound_books")
WALLET = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
_numbers = count(1)


async def open_shop(gateway: RunningGateway, owner: Agent, **fields: Any) -> dict[str, Any]:
    order = {
        "name": "Shop", "slug": f"by-endpoint-{next(_numbers)}", "publisher_category": "integration",
        "wallet_address": WALLET, "wallet_network_id": "eip155:84532", "price_per_call": "0.01", **fields,
    }  # fmt: skip
    path = f"/organizations/{owner.organization_id}/publishers"
    answer = await gateway.client.post(path, headers=owner.headers, json=order)
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]


async def seen(gateway: RunningGateway, owner: Agent, shop_id: object, query: str = "") -> dict[str, Any]:
    """Return the primary asset's endpoints."""
    path = f"/organizations/{owner.organization_id}/publishers/{shop_id}/analytics/revenue-by-endpoint{query}"
    answer = await gateway.client.get(path, headers=owner.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["assets"][0]


def by_name(found: dict[str, Any]) -> dict[tuple[str, str], tuple[int, ...]]:
    return {(one["method"], one["endpoint"]): figures(one) for one in found["endpoints"]}


def figures(one: dict[str, Any]) -> tuple[int, ...]:
    return tuple(one[name] for name in ("calls", "revenue_atomic", "bytes_in", "bytes_out", "rows"))


def money(one: dict[str, Any]) -> tuple[int, int]:
    return one["calls"], one["revenue_atomic"]


async def call(
    gateway: RunningGateway, shop: dict[str, Any], agent: Agent, method: str, path: str, **headers: str
) -> httpx.Response:
    fields = {**agent.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await gateway.client.request(method, f"/publishers/{shop['slug']}{path}", headers=fields)


async def test_calls_count_for_the_endpoint_that_they_name(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    owner, agent = await world.agent(), await world.agent(1_000_000)
    documented = [
        {"method": "GET", "path": "/v1/items/{id}", "price": "0.02"},
        {"method": "POST", "path": "/status/503"},
        {"method": "GET", "path": "/never"},
    ]
    shop = await open_shop(gateway, owner, api_url=upstream.url, endpoints=documented)
    await world.told()
    sizes = [len((await call(gateway, shop, agent, "GET", f"/v1/items/{one}")).content) for one in (1, 2)]
    keyed = {"Idempotency_Key": "one"}
    answers = [await call(gateway, shop, agent, "GET", "/v1/items/3", **keyed) for _ in range(3)]
    assert [answer.headers["x-cost"] for answer in answers] == ["0.02", "0", "0"]
    assert (await call(gateway, shop, agent, "HEAD", "/v1/items/4")).status_code == 200
    assert (await call(gateway, shop, agent, "POST", "/status/503")).status_code == 503  # given back
    assert (await call(gateway, shop, agent, "GET", "/elsewhere")).status_code == 200
    await settled(connection)
    for _ in range(2):
        found = await seen(gateway, owner, shop["id"])
        assert found["asset"] == "USDC"
        assert by_name(found) == {
            ("GET", "/v1/items/{id}"): (3, 60_000, 0, sum(sizes) + len(answers[0].content), 0),
            ("HEAD", "/v1/items/{id}"): (1, 20_000, 0, 0, 0),
        }
        assert money(found["others"]) == (1, 10_000)
        first = await seen(gateway, owner, shop["id"], "?limit=1&days=1")
        assert (len(first["endpoints"]), money(first["others"])) == (1, (2, 30_000))
        await REBUILD.run(connection)
    assert await differences(connection) == []


async def test_tools_count_by_their_names_and_odd_ones_together(
    gateway: RunningGateway, world: World, mcp_server: PublishersServer, connection: Connection
) -> None:
    owner, agent = await world.agent(), await world.agent(1_000_000)
    shop = await open_shop(
        gateway, owner, mcp_endpoint=mcp_server.url, integration_type="mcp", publisher_category="integration"
    )
    await world.told()
    path = f"/publishers/{shop['slug']}"
    for city in ("Lisbon", "Porto"):
        answer = await gateway.client.post(f"{path}/forecast", json={"city": city}, headers=agent.headers)
        assert answer.status_code == 200, answer.text
    answer = await gateway.client.post(f"{path}/failing", json={}, headers=agent.headers)
    assert answer.headers["x-cost"] == "0"
    for name in ("%00", "x" * 200, "%F0%9F%8C%8A", "%ED%A0%80"):  # no such tools: nothing is kept of their names
        await gateway.client.post(f"{path}/{name}", json={}, headers=agent.headers)
    await settled(connection)
    found = await seen(gateway, owner, shop["id"])
    assert {name: one[:2] for name, one in by_name(found).items()} == {("POST", "forecast"): (2, 20_000)}
    assert money(found["others"]) == (0, 0)


async def test_queries_count_with_their_rows(
    gateway: RunningGateway, world: World, market: Market, connection: Connection
) -> None:
    owner, agent = await world.agent(), await world.agent(1_000_000)
    shop = await sell(gateway.client, owner, market.config(sample=False), pricing={"min_charge": "0.001"})
    await world.told()
    path, keyed = f"/publishers/{shop.slug}", {"Idempotency-Key": "query"}
    for limit, headers in ((3, {}), (2, keyed), (2, keyed)):
        query = {"query": f"SELECT ticker FROM companies ORDER BY ticker LIMIT {limit}"}
        answer = await gateway.client.post(path, json=query, headers={**agent.headers, **headers})
        assert answer.json()["row_count"] == limit
    await settled(connection)
    found = await seen(gateway, owner, shop.id)
    ((name, (calls, _, _, _, rows)),) = by_name(found).items()
    assert (name, calls, rows) == (("POST", "query"), 2, 5)
    path = f"/organizations/{agent.organization_id}/consumption"
    used = (await gateway.client.get(path, headers=agent.headers)).json()["data"]["gateway"]["by_endpoint"]
    assert [(one["endpoint"], one["calls"], one["rows"]) for one in used] == [("query", 2, 5)]
    assert used[0]["spend"][0]["spent_atomic"] == found["endpoints"][0]["gross_atomic"]


async def test_a_call_on_its_way_is_with_the_others_until_it_has_ended(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    owner, agent = await world.agent(), await world.agent(1_000_000)
    shop = await open_shop(gateway, owner, api_url=upstream.url, endpoints=[{"method": "GET", "path": "/wait"}])
    await world.told()
    upstream.released.clear()
    slow = asyncio.create_task(call(gateway, shop, agent, "GET", "/wait"))
    async with asyncio.timeout(60):
        while money((await seen(gateway, owner, shop["id"]))["others"]) == (0, 0):
            await asyncio.sleep(0.02)
    assert (await seen(gateway, owner, shop["id"]))["endpoints"] == []
    upstream.released.set()
    assert (await slow).status_code == 200
    await settled(connection)
    found = await seen(gateway, owner, shop["id"])
    assert [one[:2] for one in by_name(found).values()] == [(1, 10_000)]
    assert money(found["others"]) == (0, 0)


async def test_endpoints_are_nobody_elses(gateway: RunningGateway, world: World) -> None:
    owner, other = await world.agent(), await world.agent()
    shop = await open_shop(gateway, owner, api_url="https://api.example.com")
    path = f"/publishers/{shop['id']}/analytics/revenue-by-endpoint"
    for organization, expected in ((owner.organization_id, 403), (other.organization_id, 404)):
        answer = await gateway.client.get(f"/organizations/{organization}{path}", headers=other.headers)
        assert answer.status_code == expected
    own = f"/organizations/{owner.organization_id}{path}"
    for query in ("limit=0", "limit=1001", "days=0", "days=366"):
        assert (await gateway.client.get(f"{own}?{query}", headers=owner.headers)).status_code == 400, query
