"""tiered where calls race: over two gateways on one database no bound is passed, whatever fails, is cut or is repeated."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.database.pool import Connection
from gateway.ledger.counters import month_of
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.sockets import SocketUpstream
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

FUNDS = 10_000_000
FREE_THEN = [{"up_to": 30, "price": "0"}, {"up_to": 70, "price": "0.01"}, {"price": "0.004"}]
FALLING = [{"up_to": 30, "price": "0.01"}, {"up_to": 60, "price": "0.007"}, {"price": "0.004"}]
PAID = {"0": 0, "0.002": 2_000, "0.004": 4_000, "0.005": 5_000, "0.007": 7_000, "0.01": 10_000}


@pytest_asyncio.fixture(scope="module")
async def second(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """Another gateway on the same database: it hears of no call of the first."""
    running = await start_gateway(services, database_url)
    yield running
    await running.stop()


async def shop_of(world: World, tiers: list[dict[str, Any]], **fields: Any) -> Shop:
    return await world.publisher(None, price_tiers=tiers, pricing_model="tiered", **fields)


async def used(connection: Connection, agent: Agent, shop: Shop) -> int:
    statement = "SELECT coalesce(sum(value), 0)::int FROM ledger.counter WHERE scope = $1 AND subject = $2"
    return await connection.fetchval(statement, agent.id, shop.id)


async def rush(
    gateways: list[RunningGateway], headers: dict[str, str], shop: Shop, paths: list[str]
) -> list[httpx.Response]:
    """Make calls at once, by the gateways in turn."""
    asked = zip(cycle(gateways), paths)
    calls = (one.client.get(f"/publishers/{shop.slug}/{path}", headers=headers) for one, path in asked)
    return await asyncio.gather(*calls)


async def budgeted(gateway: RunningGateway, agent: Agent, **budget: str) -> dict[str, str]:
    """Return the headers of a key of the agent's with a budget."""
    body = {"name": "limited", "budget": budget}
    answer = await gateway.client.post("/organizations/default/api-keys", headers=agent.headers, json=body)
    return {"Authorization": f"Bearer {answer.json()['data']['api_key']}"}


def prices(answers: list[httpx.Response]) -> Counter[str]:
    return Counter(answer.headers["x-cost"] for answer in answers if answer.status_code == 200)


@pytest.mark.parametrize(
    ("tiers", "style", "expected"),
    [
        (FREE_THEN, "graduated", {"0": 30, "0.01": 40, "0.004": 30}),
        # 300 thousandths are paid behind 30 calls: 43 x 7 is 301. 420 behind 60: 105 x 4 is 420.
        (FALLING, "volume", {"0.01": 30, "0": 12 + 40, "0.001": 1, "0.007": 17}),
    ],
)
async def test_two_gateways_sell_each_place_once_at_its_own_price(
    gateway: RunningGateway,
    second: RunningGateway,
    world: World,
    connection: Connection,
    upstream: RecordingUpstream,
    tiers: list[dict[str, Any]],
    style: str,
    expected: dict[str, int],
) -> None:
    agent, shop = await world.agent(FUNDS), await shop_of(world, tiers, tier_style=style)
    upstream.forget()
    answers = await rush([gateway, second], agent.headers, shop, ["x"] * 100)
    assert prices(answers) == expected
    spent = sum(int(float(price) * 1_000_000 + 0.5) * number for price, number in expected.items())
    assert (FUNDS - await world.balance(agent), await world.earned(shop)) == (spent, spent)
    assert (await used(connection, agent, shop), upstream.calls) == (100, 100)


@pytest.mark.parametrize(
    "tiers", [FREE_THEN, [{"up_to": n, "price": f"0.00{n % 2 * 2 + 2}"} for n in range(1, 20)] + [{"price": "0.004"}]]
)
async def test_what_fails_meanwhile_gives_its_places_back_and_no_tier_sells_more_than_it_has(
    gateway: RunningGateway, second: RunningGateway, world: World, connection: Connection, tiers: list[dict[str, Any]]
) -> None:
    agent, shop = await world.agent(FUNDS), await shop_of(world, tiers)
    paths = ["status/503" if number % 2 else f"slow?ms={number % 7}" for number in range(160)]
    answers = await rush([gateway, second], agent.headers, shop, paths)
    assert Counter(answer.status_code for answer in answers) == {200: 80, 503: 80}
    assert {answer.headers["x-cost"] for answer in answers if answer.status_code == 503} == {"0"}
    kept = prices(answers)
    assert kept["0"] <= sum(one.get("up_to", 0) for one in tiers if one["price"] == "0")
    assert FUNDS - await world.balance(agent) == sum(PAID[price] * number for price, number in kept.items())
    assert await used(connection, agent, shop) == 80
    (after,) = await rush([second], agent.headers, shop, ["x"])
    assert after.headers["x-cost"] == "0.004", "the price of place 81"


async def test_keys_that_are_repeated_at_once_count_once(
    gateway: RunningGateway, second: RunningGateway, world: World, connection: Connection, upstream: RecordingUpstream
) -> None:
    agent = await world.agent(FUNDS)
    shop = await shop_of(world, [{"up_to": 5, "price": "0"}, {"price": "0.01"}])
    upstream.forget()

    async def bought(key: str, at: RunningGateway) -> str:
        """Repeat a keyed call until it has its answer."""
        async with asyncio.timeout(20):
            while True:
                answer = await at.client.get(
                    f"/publishers/{shop.slug}/x", headers={**agent.headers, "Idempotency-Key": key}
                )
                if answer.status_code == 200:
                    return answer.headers["x-cost"]
                assert answer.status_code == 409
                await asyncio.sleep(0.05)

    tries = [bought(f"key-{number // 4}", (gateway, second)[number % 2]) for number in range(40)]
    costs = Counter(await asyncio.gather(*tries))
    assert costs == {"0.01": 5, "0": 35}
    assert (await used(connection, agent, shop), upstream.calls) == (10, 10)
    assert FUNDS - await world.balance(agent) == 5 * 10_000


async def test_a_budget_and_a_tier_in_one_call_hold_both(
    gateway: RunningGateway, second: RunningGateway, world: World, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)
    shop = await shop_of(world, [{"up_to": 10, "price": "0"}, {"up_to": 20, "price": "0.01"}, {"price": "0.004"}])
    headers = await budgeted(gateway, agent, per_day="0.05")
    answers = await rush([gateway, second], headers, shop, ["x"] * 60)
    assert prices(answers) == {"0": 10, "0.01": 5}
    assert Counter(answer.status_code for answer in answers) == {200: 15, 403: 45}
    assert await used(connection, agent, shop) == 15, "what the budget refused has no place"
    assert FUNDS - await world.balance(agent) == 50_000
    others = await rush([gateway, second], agent.headers, shop, ["x"] * 6)
    assert prices(others) == {"0.01": 5, "0.004": 1}, "the month is the account's, whatever its keys"


async def test_what_a_gateway_has_not_heard_of_refuses_no_call_that_can_be_paid(
    gateway: RunningGateway, second: RunningGateway, world: World
) -> None:
    agent, poor = await world.agent(FUNDS), await world.agent(24_000)
    shop = await shop_of(world, [{"up_to": 2, "price": "0.01"}, {"price": "0.004"}])
    small = await budgeted(gateway, agent, per_call="0.004")
    for headers in (agent.headers, poor.headers):  # the second gateway hears of one call, the first of both
        assert prices(await rush([second], headers, shop, ["x"])) == {"0.01": 1}
        assert prices(await rush([gateway], headers, shop, ["x"])) == {"0.01": 1}
    assert prices(await rush([second], small, shop, ["x"])) == {"0.004": 1}
    assert prices(await rush([second], poor.headers, shop, ["x"])) == {"0.004": 1}
    (refused,) = await rush([gateway], poor.headers, shop, ["x"])
    assert (refused.status_code, refused.json()["accepts"][0]["amount"]) == (402, "4000")


async def test_a_budget_of_single_calls_leaves_free_places_alone(
    gateway: RunningGateway, second: RunningGateway, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(FUNDS), await shop_of(world, [{"up_to": 2, "price": "0"}, {"price": "0.01"}])
    headers = await budgeted(gateway, agent, per_call="0.005")
    for at in (gateway, second):
        assert prices(await rush([at], headers, shop, ["x"])) == {"0": 1}
    for at in (gateway, second):
        (refused,) = await rush([at], headers, shop, ["x"])
        assert (refused.status_code, refused.json()["budget"]) == (403, "call")
    assert await used(connection, agent, shop) == 2


async def test_tiers_that_change_under_running_calls_lose_no_place_and_make_no_third_price(
    gateway: RunningGateway, second: RunningGateway, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(FUNDS), await shop_of(world, [{"up_to": 20, "price": "0.01"}, {"price": "0.004"}])
    clients, answers = [gateway.client, second.client], list[httpx.Response]()

    async def caller(number: int) -> None:
        for _ in range(20):
            answer = await clients[number % 2].get(f"/publishers/{shop.slug}/x", headers=agent.headers)
            answers.append(answer)

    callers = asyncio.gather(*(caller(number) for number in range(6)))
    for up_to in (40, 10, 60):
        tiers = {"price_tiers": [{"up_to": up_to, "price": "0.007"}, {"price": "0.005"}]}
        statement = "UPDATE catalog.publisher SET document = document || $2 WHERE id = $1"
        await connection.execute(statement, shop.id, tiers)
        await asyncio.sleep(0.05)
    await callers
    kept = prices(answers)
    assert sum(kept.values()) == await used(connection, agent, shop) == 120
    assert set(kept) <= {"0.01", "0.004", "0.007", "0.005"}
    assert FUNDS - await world.balance(agent) == sum(PAID[price] * number for price, number in kept.items())


async def test_each_month_begins_with_the_first_place(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(FUNDS), await shop_of(world, [{"up_to": 1, "price": "0"}, {"price": "0.01"}])
    this = month_of(datetime.now(UTC).date())
    last = month_of(this - timedelta(days=1))
    for period in (last, month_of(this + timedelta(days=32))):
        await connection.execute("INSERT INTO ledger.counter VALUES ($1, $2, 'tier', $3, 9)", agent.id, shop.id, period)
        exchange = await connection.fetchval("SELECT gen_random_uuid()")
        await connection.execute(
            "INSERT INTO ledger.counted VALUES ($1, $2, $3, 'tier', $4, 9, false, true, NULL)",
            exchange, agent.id, shop.id, period,
        )  # fmt: skip
    answers = [(await rush([gateway], agent.headers, shop, ["x"]))[0] for _ in range(2)]
    assert [answer.headers["x-cost"] for answer in answers] == ["0", "0.01"]


async def test_a_connection_is_one_call_and_a_refused_handshake_none(
    gateway: RunningGateway, world: World, connection: Connection, sockets: SocketUpstream
) -> None:
    agent = await world.agent(FUNDS)
    shop = await shop_of(
        world, [{"up_to": 1, "price": "0"}, {"price": "0.01"}], api_url=sockets.url, websocket_enabled=True
    )

    async def open_one(path: str) -> None:
        url = f"ws://127.0.0.1:{gateway.port}/publishers/{shop.slug}/{path}"
        async with connect(url, additional_headers=agent.headers, proxy=None) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"

    with pytest.raises(InvalidStatus):
        await open_one("deny/403")
    assert await used(connection, agent, shop) == 0
    await open_one("echo")
    assert (await used(connection, agent, shop), await world.balance(agent)) == (1, FUNDS)
    await open_one("echo")
    assert (await used(connection, agent, shop), await world.balance(agent)) == (2, FUNDS - 10_000)
