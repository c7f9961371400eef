"""The gateway is a plain ASGI application: uvicorn and granian run it as it is (docs/operations.md, "Other ASGI servers").

A paid call, a stream, an upload, a refusal, a replay and a WebSocket each; what such servers do not guarantee is not
asked of them.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.sockets import SocketUpstream
from tests.support.upstream import RecordingUpstream
from tests.support.world import World

PRICE, FUNDS = 10_000, 1_000_000
APPLICATION = "gateway.cli.asgi:application"
MODULES = {
    "uvicorn": ("uvicorn", APPLICATION, "--no-proxy-headers"),
    "granian": ("granian", "--interface", "asgi", "--http", "1", APPLICATION),
}

pytestmark = pytest.mark.usefixtures("sound_books")


@pytest_asyncio.fixture(scope="module", params=[*MODULES])
async def running(
    request: pytest.FixtureRequest, services: Services, database_url: str
) -> AsyncIterator[RunningGateway]:
    """The application under one of them, stopped as a service manager does."""
    started = await start_gateway(services, database_url, module=MODULES[request.param])
    yield started
    status = await started.stop()
    assert status in (0, -signal.SIGTERM), started.output()


async def closed(connection: Connection) -> None:
    """Wait until every exchange has ended."""
    async with asyncio.timeout(60):
        while (await proof.verify(connection)).open_exchanges:
            await asyncio.sleep(0.05)


async def test_calls_are_paid_streamed_refused_and_replayed(
    running: RunningGateway, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    shop, agent = await world.publisher(PRICE), await world.agent(FUNDS)
    client, base, key = running.client, f"/publishers/{shop.slug}", {**agent.headers, "Idempotency-Key": "once"}
    upstream.forget()
    paid = await client.get(f"{base}/x?a=b&&c", headers=agent.headers)
    assert (paid.status_code, paid.headers["x-cost"], upstream.requests[0].target) == (200, "0.01", "/x?a=b&&c")
    async with client.stream("GET", f"{base}/chunks?n=3&pause=100", headers=agent.headers) as streamed:
        assert streamed.status_code == 200
        assert len([piece async for piece in streamed.aiter_bytes() if piece]) >= 2
    uploaded = await client.post(f"{base}/y", headers=key, content=b"x" * 200_000)
    again = await client.post(f"{base}/y", headers=key, content=b"x" * 200_000)
    assert [one.status_code for one in (uploaded, again)] == [200, 200]
    assert again.headers["idempotency-replayed"] == "true"
    assert upstream.requests[-1].body_size == 200_000
    failed = await client.get(f"{base}/status/503", headers=agent.headers)
    refused = await client.get(f"{base}/x")
    assert (failed.headers["x-cost"], refused.status_code) == ("0", 402)
    nowhere = await client.get("/publishers/nobody-here/x")
    assert (nowhere.status_code, nowhere.headers["content-type"]) == (404, "application/problem+json")
    assert (await client.get("/store")).status_code == 200
    await closed(connection)
    assert (await world.balance(agent), await world.earned(shop)) == (FUNDS - 3 * PRICE, 3 * PRICE)


async def test_a_websocket_is_paid_and_carries_messages(
    running: RunningGateway, world: World, sockets: SocketUpstream, connection: Connection
) -> None:
    shop = await world.publisher(PRICE, api_url=sockets.url, websocket_enabled=True)
    agent, broke = await world.agent(FUNDS), await world.agent()
    url = f"ws://127.0.0.1:{running.port}/publishers/{shop.slug}/echo"
    async with connect(url, additional_headers=agent.headers, proxy=None) as socket:
        for message in ("text", b"\x00\xff"):
            await socket.send(message)
            assert await socket.recv() == message
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(url, additional_headers=broke.headers, proxy=None):
            pass
    assert refusal.value.response.status_code in (402, 403), "403 where the server sends no answer of ours"
    await closed(connection)
    assert await world.balance(agent) == FUNDS - PRICE
