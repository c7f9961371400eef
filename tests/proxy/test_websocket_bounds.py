"""What ends a WebSocket that nobody ends, and what a killed gateway leaves of one."""

from __future__ import annotations

import asyncio
import contextlib

import orjson
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.sockets import SocketUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

PRICE = 10_000
FUNDS = 1_000_000
SETTINGS = {
    "WEBSOCKET_LIFETIME": "12",
    "WEBSOCKET_PING_INTERVAL": "60",  # a test's server may stand still for longer than any that suits a test
    "WEBSOCKET_CONNECTIONS": "2",
    "MONEY_DEAD_AFTER": "2",
    "PROXY_IDLE_TIMEOUT": "60",
}


@pytest_asyncio.fixture
async def shop(world: World, sockets: SocketUpstream) -> Shop:
    sockets.forget()
    return await world.publisher(PRICE, api_url=sockets.url, websocket_enabled=True)


@contextlib.asynccontextmanager
async def gateway(services: Services, database_url: str, **settings: str):
    running = await start_gateway(services, database_url, **{**SETTINGS, **settings})
    try:
        yield running
    finally:
        await running.stop()


def opening(running: RunningGateway, shop: Shop, agent: Agent, path: str = "/echo") -> connect:
    url = f"ws://127.0.0.1:{running.port}/publishers/{shop.slug}{path}"
    return connect(url, additional_headers=agent.headers, proxy=None, close_timeout=1, ping_interval=None)


async def closing(socket: ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed) as end:
        await asyncio.wait_for(socket.recv(), 60)
    return (end.value.rcvd.code, end.value.rcvd.reason) if end.value.rcvd else (None, None)


async def test_life_and_number_are_bounded(
    services: Services, database_url: str, world: World, sockets: SocketUpstream, shop: Shop
) -> None:
    agent = await world.agent(FUNDS)
    async with gateway(services, database_url, WEBSOCKET_LIFETIME="6") as running:
        async with opening(running, shop, agent) as long, opening(running, shop, agent):
            with pytest.raises(InvalidStatus) as refusal:
                async with opening(running, shop, agent):
                    pass
            assert refusal.value.response.status_code == 503
            assert orjson.loads(refusal.value.response.body)["type"] == "/problems/unavailable"
            metrics = (await running.client.get("/metrics")).text
            assert 'tollway_pool{pool="websocket",state="open"} 2.0' in metrics
            assert await closing(long) == (1001, "a connection may last 6 s")
        await asyncio.wait_for(sockets.connections[0].ended.wait(), 60)
        assert sockets.connections[0].code == 1001
        async with opening(running, shop, agent, "/hello/again") as again:
            assert await again.recv() == "again"
    assert FUNDS - await world.balance(agent) == 3 * PRICE


async def test_a_dead_upstream_is_noticed(services: Services, database_url: str, world: World, shop: Shop) -> None:
    agent = await world.agent(FUNDS)
    bounds = {"WEBSOCKET_LIFETIME": "60", "WEBSOCKET_PING_INTERVAL": "1"}
    async with gateway(services, database_url, **bounds) as running, opening(running, shop, agent, "/deaf") as dead:
        assert await closing(dead) == (1011, "the publisher's server does not answer pings")
    assert FUNDS - await world.balance(agent) == PRICE


async def refunded(world: World, connection: Connection, agent: Agent) -> None:
    async with asyncio.timeout(60):
        while await world.balance(agent) != FUNDS or (await proof.verify(connection)).open_exchanges:
            await asyncio.sleep(0.1)


async def test_killed_in_the_middle_the_charge_comes_back_and_the_upstream_is_let_go(
    services: Services, database_url: str, world: World, sockets: SocketUpstream, shop: Shop, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)
    async with gateway(services, database_url) as running, opening(running, shop, agent) as socket:
        await socket.send("x")
        assert await socket.recv() == "x"
        assert (await proof.verify(connection)).open_exchanges == 1
        await running.kill()
        assert await closing(socket) == (None, None)
    await asyncio.wait_for(sockets.last.ended.wait(), 60)
    assert await world.balance(agent) == FUNDS - PRICE
    async with gateway(services, database_url):
        await refunded(world, connection, agent)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["authorize.after", "forward.after", "head.after"])
async def test_killed_at_a_step_the_charge_comes_back(
    services: Services, database_url: str, world: World, shop: Shop, connection: Connection, point: str
) -> None:
    agent = await world.agent(FUNDS)
    async with gateway(services, database_url, FAULT=f"{point}:kill") as running:
        with pytest.raises((WebSocketException, OSError)):
            async with opening(running, shop, agent) as socket:
                await socket.recv()
    assert await world.balance(agent) == FUNDS - PRICE
    async with gateway(services, database_url):
        await refunded(world, connection, agent)
