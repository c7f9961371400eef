"""A worker whose event loop hangs is seen by /health/live, killed and replaced, and its calls are refunded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import httpx
import pytest

from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.workers import replaced, workers
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

PRICE = 10_000
FUNDS = 1_000_000
PATIENCE = 90
CALLS = 12


async def live(gateway: RunningGateway) -> int:
    """Return what /health/live says on a new connection, 0 where nobody answers in time."""
    with contextlib.suppress(httpx.TransportError):
        async with httpx.AsyncClient(base_url=gateway.url, timeout=1) as client:
            return (await client.get("/health/live")).status_code
    return 0


async def call(gateway: RunningGateway, shop: Shop, agent: Agent, path: str) -> int:
    """Make one call on a connection of its own; 0 where that breaks or the worker does not answer."""
    with contextlib.suppress(httpx.TransportError):
        async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as client:
            return (await client.get(f"/publishers/{shop.slug}{path}", headers=agent.headers)).status_code
    return 0


async def until_live(gateway: RunningGateway, *statuses: int) -> None:
    """Wait until /health/live has answered with each of these statuses, in this order."""
    async with asyncio.timeout(PATIENCE):
        for status in statuses:
            while await live(gateway) != status:
                await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_frozen_worker_is_replaced_and_its_calls_are_refunded(
    server: str, services: Services, database_url: str, world: World, upstream: RecordingUpstream
) -> None:
    shop, agent = await world.publisher(PRICE), await world.agent(FUNDS)
    gateway = await start_gateway(
        services, database_url, SERVER=server, WORKERS="2", SERVER_HANG="4", MONEY_DEAD_AFTER="3"
    )
    try:
        await until_live(gateway, 200)
        upstream.forget()
        open_calls = [asyncio.create_task(call(gateway, shop, agent, "/hang")) for _ in range(CALLS)]
        async with asyncio.timeout(PATIENCE):
            while upstream.calls < CALLS:
                await asyncio.sleep(0.02)
        frozen = min(workers(gateway.process.pid))
        os.kill(frozen, signal.SIGSTOP)
        await until_live(gateway, 503)
        await replaced(gateway.process.pid, frozen, 2)
        await until_live(gateway, 200)
        for task in open_calls:
            task.cancel()
        await asyncio.wait(open_calls)
        statuses = [await call(gateway, shop, agent, "/") for _ in range(CALLS)]
        assert statuses == [200] * CALLS
        async with asyncio.timeout(PATIENCE):
            while await world.balance(agent) != FUNDS - CALLS * PRICE:
                await asyncio.sleep(0.1)
        assert await gateway.stop() == 0
    finally:
        await gateway.kill()


async def test_a_worker_whose_loop_is_blocked_is_replaced_and_says_where(
    server: str, services: Services, database_url: str, world: World
) -> None:
    shop, agent = await world.publisher(PRICE), await world.agent(FUNDS)
    gateway = await start_gateway(
        services, database_url, SERVER=server, WORKERS="2", SERVER_HANG="4",
        DEV_APP="tests.support.blocking_app:application",
    )  # fmt: skip
    try:
        before = workers(gateway.process.pid)
        blocked = asyncio.create_task(gateway.client.get("/block"))
        async with asyncio.timeout(PATIENCE):
            while len(gone := before - workers(gateway.process.pid)) < 1:
                await asyncio.sleep(0.05)
        await replaced(gateway.process.pid, gone.pop(), 2)
        with contextlib.suppress(httpx.TransportError):
            await blocked
        await until_live(gateway, 200)
        assert [await call(gateway, shop, agent, "/") for _ in range(CALLS)] == [200] * CALLS
        assert "has not run its event loop" in gateway.output()
        assert "blocking_app.py" in gateway.output()
    finally:
        await gateway.kill()


@pytest.mark.slow
async def test_a_lone_worker_that_hangs_ends_the_gateway(server: str, services: Services, database_url: str) -> None:
    """Whoever runs it (a container's restart policy, a service manager) starts it again."""
    gateway = await start_gateway(
        services, database_url, SERVER=server, WORKERS="1", SERVER_HANG="3",
        DEV_APP="tests.support.blocking_app:application",
    )  # fmt: skip
    try:
        with contextlib.suppress(httpx.TransportError):
            await gateway.client.get("/block")
        assert await asyncio.to_thread(gateway.process.wait, PATIENCE) != 0
        assert "blocking_app.py" in gateway.output()
    finally:
        await gateway.kill()


@pytest.mark.slow
async def test_a_gateway_that_was_paused_as_a_whole_goes_on(services: Services, database_url: str) -> None:
    gateway = await start_gateway(services, database_url, WORKERS="2", SERVER_HANG="2")
    try:
        await until_live(gateway, 200)
        before = workers(gateway.process.pid)
        os.killpg(gateway.process.pid, signal.SIGSTOP)
        await asyncio.sleep(5)  # longer than the limit: this is what is tested
        os.killpg(gateway.process.pid, signal.SIGCONT)
        await until_live(gateway, 200)
        await asyncio.sleep(3)
        assert workers(gateway.process.pid) == before
    finally:
        await gateway.kill()
