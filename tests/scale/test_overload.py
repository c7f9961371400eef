"""More calls than can be served: some are turned away at once, the others are served, and every unit is accounted for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx
import pytest

from gateway.database.pool import Connection
from gateway.proxy.load_shedding import INTERVAL, LEAST
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.servers import EACH
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
PRICE = 10_000


def turned_away(answer: httpx.Response) -> bool:
    if answer.status_code != 503:
        return False
    assert answer.json()["type"] == "/problems/overloaded"
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-cost"] == "0"
    return True


async def shop_known(gateway: RunningGateway, world: World) -> Shop:
    shop = await world.publisher(PRICE)
    async with asyncio.timeout(60):
        while (await gateway.client.get(f"/publishers/{shop.slug}/x")).status_code != 402:
            await asyncio.sleep(0.02)
    return shop


async def counted(gateway: RunningGateway, reason: str) -> float:
    text = (await gateway.client.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith(f'tollway_turned_away_total{{reason="{reason}"}}')]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else 0


@pytest.mark.parametrize("server", EACH)
async def test_above_its_number_of_calls_a_worker_turns_away_and_takes_no_money(
    services: Services, database_url: str, world: World, upstream: RecordingUpstream, server: str
) -> None:
    gateway = await start_gateway(services, database_url, SERVER=server, PROXY_CALLS="3")
    try:
        agent, shop = await world.agent(100 * PRICE), await shop_known(gateway, world)
        upstream.forget()
        upstream.released.clear()
        path = f"/publishers/{shop.slug}/wait"
        inside = [asyncio.create_task(gateway.client.get(path, headers=agent.headers)) for _ in range(3)]
        async with asyncio.timeout(60):
            while upstream.calls < 3:
                await asyncio.sleep(0.02)
        keyed = {**agent.headers, "Idempotency-Key": f"late-{server}"}
        for method, content in (("GET", b""), ("POST", b"x" * 100_000)):
            answer = await gateway.client.request(method, path, headers=keyed, content=content)
            assert turned_away(answer)
        paged = await gateway.client.get(path, headers={**agent.headers, "Origin": "https://page.example"})
        assert turned_away(paged)
        assert paged.headers["access-control-allow-origin"] == "*"
        asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "PUT"}
        assert (await gateway.client.options(path, headers=asked)).status_code == 204
        assert (await gateway.client.get("/health/live")).status_code == 200, "what is no call is not turned away"
        assert (await gateway.client.get(f"/publishers/{shop.slug}")).status_code == 200, "nor is a look at the store"
        assert upstream.calls == 3
        upstream.released.set()
        assert [answer.status_code for answer in await asyncio.gather(*inside)] == [200] * 3
        assert await counted(gateway, "calls") == 3
        assert (await gateway.client.post(path, headers=keyed, content=b"y")).status_code == 200, "its key is free"
        assert await world.balance(agent) == 96 * PRICE
    finally:
        await gateway.stop()


async def test_a_line_that_does_not_move_is_not_joined_and_no_money_is_lost(
    services: Services, database_url: str, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    gateway = await start_gateway(services, database_url, PROXY_WAIT="0.00001")  # nobody is in time
    try:
        agent, shop = await world.agent(1_000 * PRICE), await shop_known(gateway, world)
        path, upstream.requests = f"/publishers/{shop.slug}/x", []

        async def call() -> httpx.Response:
            return await gateway.client.get(path, headers=agent.headers)

        begun, served = time.monotonic(), 0
        while time.monotonic() - begun < 2 * INTERVAL or not served:  # late for an interval
            assert (await call()).status_code == 200
            served += 1
        async with connection.transaction():  # the ledger waits for us, and who is to be paid waits for it
            await connection.execute("SELECT FROM ledger.wallet WHERE id = $1 FOR UPDATE", agent.wallet_id)
            calls = [asyncio.create_task(call()) for _ in range(3 * LEAST)]
            async with asyncio.timeout(60):
                while sum(one.done() for one in calls) < 2 * LEAST:
                    await asyncio.sleep(0.02)
            assert all(turned_away(one.result()) for one in calls if one.done())
            assert upstream.calls == served
        answers = await asyncio.gather(*calls)
        assert Counter(answer.status_code for answer in answers) == {200: LEAST, 503: 2 * LEAST}
        assert await counted(gateway, "wait") == 2 * LEAST
        assert (await call()).status_code == 200, "the line is short again"
        assert upstream.calls == served + LEAST + 1
        assert await world.balance(agent) == (1_000 - served - LEAST - 1) * PRICE
    finally:
        await gateway.stop()


async def test_a_publishers_line_that_does_not_move_is_not_joined_and_others_are_served(
    services: Services, database_url: str, world: World, upstream: RecordingUpstream
) -> None:
    gateway = await start_gateway(services, database_url, PROXY_WAIT="1")
    try:
        agent, free = await world.agent(1_000 * PRICE), await shop_known(gateway, world)
        narrow = await world.publisher(PRICE, max_connections=1, connect_timeout_seconds=30)
        async with asyncio.timeout(20):
            while (await gateway.client.get(f"/publishers/{narrow.slug}/x")).status_code != 402:
                await asyncio.sleep(0.02)
        upstream.forget()
        upstream.released.clear()

        def call(what: str) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(gateway.client.get(f"/publishers/{narrow.slug}/{what}", headers=agent.headers))

        async def forwarded(number: int) -> None:
            async with asyncio.timeout(30):
                while upstream.calls < number:
                    await asyncio.sleep(0.02)

        late = [call("slow?ms=4000")]  # the two behind it come through late, and an interval apart
        await forwarded(1)
        late += [call("slow?ms=1000"), call("slow?ms=1000")]
        assert [answer.status_code for answer in await asyncio.gather(*late)] == [200] * 3
        inside = call("wait")
        await forwarded(4)
        calls = [call("x") for _ in range(3 * LEAST)]
        async with asyncio.timeout(30):
            while sum(one.done() for one in calls) < 2 * LEAST - 1:  # the one inside was in time, and made room
                await asyncio.sleep(0.02)
        assert all(turned_away(one.result()) for one in calls if one.done())
        assert upstream.calls == 4
        other = await gateway.client.get(f"/publishers/{free.slug}/x", headers=agent.headers)
        assert other.status_code == 200, "it is that publisher's line"
        upstream.released.set()
        answers = await asyncio.gather(inside, *calls)
        served = sum(answer.status_code == 200 for answer in answers)
        assert (served, await counted(gateway, "publisher")) == (LEAST + 2, 2 * LEAST - 1)
        assert await world.balance(agent) == (1_000 - 3 - 1 - served) * PRICE
    finally:
        await gateway.stop()
