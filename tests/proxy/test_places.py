"""As many calls at once as a publisher chose, of every kind it sells; one more waits a moment and then costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.database.pool import Connection
from tests.support.gateway import RunningGateway
from tests.support.market import Market, sell
from tests.support.sockets import SocketUpstream
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
NARROW: dict[str, Any] = {"max_connections": 1, "connect_timeout_seconds": 0.3}


@asynccontextmanager
async def busy(gateway: RunningGateway, upstream: RecordingUpstream, shop: Shop, who: Agent) -> AsyncIterator[None]:
    """While the only place of a publisher is taken by a call that waits."""
    upstream.forget()
    upstream.released.clear()
    waiting = asyncio.create_task(gateway.client.post(f"/publishers/{shop.slug}/wait", headers=who.headers))
    while not upstream.calls:
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        upstream.released.set()
        assert (await waiting).status_code == 200


def assert_no_place(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["x-cost"]) == (503, "1", "0")
    assert "as many as it takes at once" in answer.json()["detail"]


async def moves(connection: Connection, agent: Agent) -> int:
    """Return how often money of an agent moved, back and forth included; its first credit does not count."""
    found = await connection.fetchval(
        "SELECT count(*) FROM ledger.transfer WHERE wallet_id = $1 AND kind <> 'grant'", agent.wallet_id
    )
    return int(found)


@pytest.mark.parametrize("metered", [False, True])
async def test_a_call_without_a_place_moves_no_money(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, connection: Connection, metered: bool
) -> None:
    by_use = {"billing_model": "pay_per_use", "reserve_max_charge": "0.1", "upstream_cost_response_path": "usage.cost"}
    shop = await world.publisher(10_000, **NARROW, **(by_use if metered else {}))
    agent, other = await world.agent(1_000_000), await world.agent(1_000_000)
    async with busy(gateway, upstream, shop, other):
        assert_no_place(await gateway.client.post(f"/publishers/{shop.slug}/ok", headers=agent.headers))
    assert (await moves(connection, agent), upstream.calls) == (0, 1)
    answer = await gateway.client.post(f"/publishers/{shop.slug}/ok", headers=agent.headers)
    assert answer.status_code == 200, "the place is free again"


async def test_a_call_that_finds_a_place_in_time_is_served(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    shop, agent = await world.publisher(10_000, max_connections=1), await world.agent(1_000_000)
    path = f"/publishers/{shop.slug}/x?ms=50"
    answers = await asyncio.gather(*(gateway.client.get(path, headers=agent.headers) for _ in range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6


async def test_a_server_that_sells_by_itself_has_places_as_well(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    shop = await world.publisher(None, **NARROW, billing_model="x402_passthrough", pricing_model="passthrough")
    async with busy(gateway, upstream, shop, await world.agent()):
        assert_no_place(await gateway.client.get(f"/publishers/{shop.slug}/ok"))


async def test_connections_of_web_sockets_have_places_of_their_own(
    gateway: RunningGateway, world: World, sockets: SocketUpstream, connection: Connection
) -> None:
    shop = await world.publisher(10_000, **NARROW, api_url=sockets.url, websocket_enabled=True)
    agent, other = await world.agent(1_000_000), await world.agent(1_000_000)
    url = f"ws://127.0.0.1:{gateway.port}/publishers/{shop.slug}/echo"
    async with connect(url, additional_headers=other.headers, proxy=None) as held:
        await held.send("here")
        assert await held.recv() == "here"
        with pytest.raises(InvalidStatus) as refusal:
            async with connect(url, additional_headers=agent.headers, proxy=None):
                pass
        assert refusal.value.response.status_code == 503
        assert refusal.value.response.headers["retry-after"] == "1"
    assert await moves(connection, agent) == 0


async def test_a_database_has_places_and_times_of_its_owner(
    gateway: RunningGateway, world: World, market: Market
) -> None:
    narrow = {**NARROW, "total_timeout_seconds": 2}
    shop = await sell(gateway.client, await world.agent(), market.config(sample=False), **narrow)
    agent = await world.agent(10_000_000)

    async def ask(query: str) -> int:
        answer = await gateway.client.post(f"/publishers/{shop.slug}", headers=agent.headers, json={"query": query})
        return answer.status_code

    slow = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000) b"
    asking, seen = asyncio.create_task(ask(slow)), set[int]()
    number = 0
    while not asking.done():
        number += 1
        seen.add(await ask(f"SELECT {number} AS n"))
    assert 503 in seen, "while the only session was taken"
    assert await asking == 504, "stopped by the time of its owner: the operator's would be 5 seconds"
    assert await ask("SELECT 0 AS n") == 200


async def test_what_is_paid_by_use_has_the_times_of_its_owner(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    shop = await world.publisher(
        None, billing_model="pay_per_use", reserve_max_charge="0.1", unresolved_fallback_charge="0.02",
        upstream_cost_response_path="usage.cost", first_byte_timeout_seconds=0.1,
    )  # fmt: skip
    agent = await world.agent(1_000_000)
    answer = await gateway.client.get(f"/publishers/{shop.slug}/hang", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (504, "0")
