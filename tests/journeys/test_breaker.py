"""A publisher's server that fails is left alone and found again, through the public door; what callers can do about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.support.gateway import RunningGateway, free_port, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

FUNDS, PRICE, WAIT = 1_000_000, 10_000, 5.0


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    running = await start_gateway(
        services, database_url, BREAKER_FAILURES="3", BREAKER_WAIT=str(WAIT), BREAKER_WAIT_MAX="10", SERVER_DRAIN="1"
    )
    yield running
    await running.stop()


async def problem(gateway: RunningGateway, agent: Agent, shop: Shop, path: str = "/x") -> str:
    """Call and return the name of the problem, or the status of the publisher's answer."""
    answer = await gateway.client.get(f"/publishers/{shop.slug}{path}", headers=agent.headers)
    if answer.headers["content-type"] != "application/problem+json":
        return str(answer.status_code)
    assert answer.headers["x-cost"] == "0"
    return answer.json()["type"].removeprefix("/problems/")


async def gauges(gateway: RunningGateway, shop: Shop) -> dict[str, float]:
    text = (await gateway.client.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("tollway_breakers{") and shop.slug in line]
    return {line.partition('state="')[2].partition('"')[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


async def readiness(gateway: RunningGateway, shop: Shop) -> tuple[bool, str | None]:
    """Return what the store says of whether calls work."""
    shown = (await gateway.client.get(f"/publishers/{shop.slug}")).json()["data"]
    return shown["ready"], shown["not_ready"]


async def test_it_opens_costs_nothing_and_closes_when_the_server_is_back(
    gateway: RunningGateway, world: World, connection: Connection
) -> None:
    port = free_port()
    agent, shop = await world.agent(FUNDS), await world.publisher(PRICE, api_url=f"http://127.0.0.1:{port}")
    assert await gauges(gateway, shop) == {}
    assert [await problem(gateway, agent, shop) for _ in range(4)] == [
        *["upstream-unreachable"] * 3,
        "upstream-unavailable",
    ]
    charges = await connection.fetchval(
        "SELECT count(*) FROM ledger.transfer WHERE wallet_id = $1 AND kind = 'charge'", agent.wallet_id
    )
    assert charges == 3, "the fourth was not charged at all"
    assert await gauges(gateway, shop) == {"open": 1.0, "half_open": 0.0}
    assert await readiness(gateway, shop) == (
        False,
        "has a server that failed repeatedly, and is left alone for a moment",
    )
    server = RecordingUpstream()
    await server.start(port=port)
    try:
        assert await problem(gateway, agent, shop) == "upstream-unavailable"
        assert server.calls == 0, "it is left alone"
        await asyncio.sleep(WAIT)
        assert await problem(gateway, agent, shop) == "200"
        assert await gauges(gateway, shop) == {"open": 0.0, "half_open": 0.0}
        assert [await problem(gateway, agent, shop) for _ in range(3)] == ["200"] * 3
        assert await readiness(gateway, shop) == (True, None)
    finally:
        await server.stop()
    assert await world.balance(agent) == FUNDS - 4 * PRICE


async def test_the_try_is_not_spent_on_a_call_that_cannot_pay(gateway: RunningGateway, world: World) -> None:
    port = free_port()
    agent, poor = await world.agent(FUNDS), await world.agent()
    shop = await world.publisher(PRICE, api_url=f"http://127.0.0.1:{port}")
    for _ in range(3):
        assert await problem(gateway, agent, shop) == "upstream-unreachable"
    server = RecordingUpstream()
    await server.start(port=port)
    try:
        await asyncio.sleep(WAIT)
        path = f"/publishers/{shop.slug}/x"
        for _ in range(3):
            assert (await gateway.client.get(path, headers=poor.headers)).status_code == 402
        assert server.calls == 0
        assert await problem(gateway, agent, shop) == "200"
    finally:
        await server.stop()


async def test_one_caller_cannot_shut_out_the_others_of_a_server_that_works(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    bad, good = await world.agent(FUNDS), await world.agent(FUNDS)
    shop = await world.publisher(PRICE)
    for _ in range(10):
        assert await problem(gateway, bad, shop, "/reset") == "upstream-invalid"
        assert await problem(gateway, good, shop) == "200"
    assert await problem(gateway, bad, shop, "/status/503") == "503", "an answer, whatever its status"
    assert await gauges(gateway, shop) == {}


async def test_a_key_whose_call_was_left_out_is_free_for_the_next_try(gateway: RunningGateway, world: World) -> None:
    agent, shop = await world.agent(FUNDS), await world.publisher(PRICE, api_url=f"http://127.0.0.1:{free_port()}")
    for _ in range(3):
        await problem(gateway, agent, shop)
    headers = {**agent.headers, "Idempotency-Key": "left-out"}
    for _ in range(2):
        answer = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/upstream-unavailable")
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_publisher_that_moves_to_another_server_is_called_at_once(
    gateway: RunningGateway, world: World, connection: Connection, upstream: RecordingUpstream
) -> None:
    agent, shop = await world.agent(FUNDS), await world.publisher(PRICE, api_url=f"http://127.0.0.1:{free_port()}")
    for _ in range(4):
        last = await problem(gateway, agent, shop)
    assert last == "upstream-unavailable"
    await connection.execute(
        "UPDATE catalog.publisher SET document = document || jsonb_build_object('api_url', $2::text) WHERE id = $1",
        shop.id, upstream.url,
    )  # fmt: skip
    await world.told()
    assert await problem(gateway, agent, shop) == "200"
