"""Quotas of plans as hard stops: exactly the included calls, on every way to pay from a balance, over two gateways."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.audit.origin import Origin, acting
from gateway.billing.plan_changes import assign
from gateway.database.pool import Connection
from gateway.identity.organization_plans import PlanBook
from gateway.plans import load_plans
from tests.support.chat import ChatUpstream
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.market import Market, sell
from tests.support.services import Services
from tests.support.sockets import SocketUpstream
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, World

pytestmark = pytest.mark.usefixtures("sound_books")

DOLLAR, PRICE = 1_000_000, 1_000
BOOK = PlanBook(load_plans(), enforced=True)
ON = {"PLANS_ENFORCED": "true"}


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway that enforces plans."""
    running = await start_gateway(services, database_url, **ON)
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def second(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """Another one on the same database."""
    running = await start_gateway(services, database_url, **ON)
    yield running
    await running.stop()


async def give(connection: Connection, agent: Agent, name: str = "free", **terms: Any) -> None:
    """Give an agent's organization a plan with terms of its own, as the operator does."""
    target = BOOK.plans.named(name)
    assert target is not None
    async with connection.transaction():
        with acting(Origin("operator")):
            await assign(connection, BOOK, agent.organization_id, target, terms)


async def quota(gateway: RunningGateway, agent: Agent) -> dict[str, Any]:
    answer = await gateway.client.get(f"/organizations/{agent.organization_id}/quota", headers=agent.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def counted(gateway: RunningGateway, agent: Agent, calls: int) -> None:
    """Wait until so many calls count: what is given back is written behind the answers."""
    async with asyncio.timeout(60):
        while (await quota(gateway, agent))["calls"]["used"] != calls:
            await asyncio.sleep(0.02)


def exceeded(answer: httpx.Response, **said: object) -> dict[str, Any]:
    """Assert that an answer is the refusal of a quota and costs nothing; return what it says."""
    assert answer.status_code == 429, answer.text
    document = answer.json()
    assert document["type"] == "/problems/quota-exceeded"
    assert {name: document.get(name) for name in said} == said
    assert int(answer.headers["retry-after"]) == document["retry_after"]
    assert 0 < document["retry_after"] <= 31 * 86_400
    return document


async def test_of_200_calls_at_once_on_two_gateways_exactly_the_included_ones_are_delivered(
    gateway: RunningGateway, second: RunningGateway, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    agent = await world.agent(10 * DOLLAR)
    await give(connection, agent, included_calls=37)
    shop = await world.publisher(PRICE)
    upstream.forget()
    answers = await asyncio.gather(
        *((gateway, second)[number % 2].client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
          for number in range(200))
    )  # fmt: skip
    assert Counter(answer.status_code for answer in answers) == {200: 37, 429: 163}
    refused = next(answer for answer in answers if answer.status_code == 429)
    document = exceeded(refused, plan="free", included=37, used=37)
    assert str(agent.organization_id) in document["detail"]
    assert document["resets_at"].endswith("-01T00:00:00Z")
    assert refused.headers["x-cost"] == "0"
    assert (await world.balance(agent), await world.earned(shop)) == (10 * DOLLAR - 37 * PRICE, 37 * PRICE)
    assert upstream.calls == 37
    used = await quota(gateway, agent)
    assert used["calls"] == {"used": 37, "limit": 37, "percent": 100.0}
    assert (used["is_over_calls_quota"], used["enforced"]) == (True, True)


async def test_what_is_given_back_can_be_called_again(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent = await world.agent(DOLLAR)
    await give(connection, agent, included_calls=2)
    dead = await world.publisher(PRICE, api_url="http://127.0.0.1:1")
    shop, free = await world.publisher(PRICE), await world.publisher(0)
    for _ in range(4):
        assert (await gateway.client.get(f"/publishers/{dead.slug}/x", headers=agent.headers)).status_code >= 500
    await counted(gateway, agent, 0)
    for _ in range(4):  # what is free does not count
        assert (await gateway.client.get(f"/publishers/{free.slug}/x", headers=agent.headers)).status_code == 200
    poor = await world.publisher(20 * DOLLAR)
    assert (await gateway.client.get(f"/publishers/{poor.slug}/x", headers=agent.headers)).status_code == 402
    key = {"Idempotency-Key": "once"}
    for _ in range(3):  # one call, and its stored answer
        assert (await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers | key)).status_code == 200
    assert (await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)).status_code == 200
    exceeded(await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers), used=2)


async def test_metered_calls_and_queries_stop_too(
    gateway: RunningGateway, world: World, connection: Connection, chat: ChatUpstream, market: Market
) -> None:
    agent = await world.agent(10 * DOLLAR)
    await give(connection, agent, included_calls=2)
    metered = await world.publisher(
        None, api_url=chat.url, billing_model="pay_per_use", reserve_max_charge="0.10",
        unresolved_fallback_charge="0.02", upstream_cost_response_path="usage.cost",
    )  # fmt: skip
    sold = await sell(gateway.client, await world.agent(), market.config(sample=False), pricing={"min_charge": "0.001"})
    body = {"model": "echo-1", "messages": [{"role": "user", "content": "word"}], "x_cost": 0.0125}

    async def chats() -> httpx.Response:
        path = f"/publishers/{metered.slug}/v1/chat/completions"
        return await gateway.client.post(path, headers=agent.headers, json=body)

    async def asks() -> httpx.Response:
        query = {"query": "SELECT company_id FROM companies LIMIT 3"}
        return await gateway.client.post(f"/publishers/{sold.slug}", headers=agent.headers, json=query)

    for way in (chats, asks):
        bought = await way()
        assert bought.status_code == 200, bought.text
    for way in (chats, asks):
        exceeded(await way(), used=2, included=2)
    await counted(gateway, agent, 2)


async def test_a_websocket_is_refused_at_its_handshake(
    gateway: RunningGateway, world: World, connection: Connection, sockets: SocketUpstream
) -> None:
    agent = await world.agent(DOLLAR)
    await give(connection, agent, included_calls=0)
    shop = await world.publisher(PRICE, api_url=sockets.url, websocket_enabled=True)
    url = f"ws://127.0.0.1:{gateway.port}/publishers/{shop.slug}/echo"
    with pytest.raises(InvalidStatus) as refusal:
        await connect(url, additional_headers=agent.headers, proxy=None)
    assert refusal.value.response.status_code == 429
    assert orjson.loads(refusal.value.response.body)["type"] == "/problems/quota-exceeded"


async def test_with_a_price_for_more_calls_go_on_and_are_counted(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent = await world.agent(DOLLAR)
    await give(connection, agent, "starter", included_calls=3)
    shop = await world.publisher(PRICE)
    answers = await asyncio.gather(
        *(gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {200}
    used = await quota(gateway, agent)
    assert used["calls"] == {"used": 8, "limit": 3, "percent": 266.67}


async def test_a_change_is_heard_by_both_gateways(
    gateway: RunningGateway, second: RunningGateway, world: World, connection: Connection
) -> None:
    agent = await world.agent(DOLLAR)
    await give(connection, agent, included_calls=1)
    shop = await world.publisher(PRICE)
    path = f"/publishers/{shop.slug}/x"
    assert (await gateway.client.get(path, headers=agent.headers)).status_code == 200
    for one in (gateway, second):
        exceeded(await one.client.get(path, headers=agent.headers))
    await give(connection, agent, included_calls=None)
    await world.told()  # notified behind the change
    for one in (gateway, second):
        async with asyncio.timeout(30):
            while (await one.client.get(path, headers=agent.headers)).status_code != 200:
                await asyncio.sleep(0.02)


async def test_the_calls_per_minute_of_all_keys_together(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent = await world.agent(DOLLAR)
    await give(connection, agent, included_calls=None, calls_per_minute=2)
    made = await gateway.client.post("/organizations/default/api-keys", headers=agent.headers, json={"name": "another"})
    other = {"Authorization": f"Bearer {made.json()['data']['api_key']}"}
    shop = await world.publisher(0)
    path = f"/publishers/{shop.slug}/x"
    for headers in (agent.headers, other):
        assert (await gateway.client.get(path, headers=headers)).status_code == 200
    refused = await gateway.client.get(path, headers=other)
    assert (refused.status_code, refused.json()["policy"]) == (429, "plan")
    assert refused.json()["type"] == "/problems/rate-limited"
