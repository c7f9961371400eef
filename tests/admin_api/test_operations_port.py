"""The operators' own port: metrics and the operators' API are there, and no longer on the public one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.support.dev import tollway
from tests.support.gateway import RunningGateway, free_port, start_gateway
from tests.support.leaks import SECRET_KEYS
from tests.support.servers import EACH
from tests.support.services import Services
from tests.support.world import Shop, World

TOKEN = "operator-of-the-own-port-0123456789"
CALLS = 12
pytestmark = pytest.mark.usefixtures("sound_books")


@pytest_asyncio.fixture
async def shop(world: World) -> Shop:
    """A publisher that is there before the gateway, so that all workers know it."""
    return await world.publisher(10_000)


@pytest_asyncio.fixture(params=EACH)
async def gateway(
    request: pytest.FixtureRequest, services: Services, database_url: str, shop: Shop
) -> AsyncIterator[RunningGateway]:
    """Two workers, with an operators' port."""
    running = await start_gateway(
        services, database_url, SERVER=request.param, WORKERS="2", SERVER_OPERATIONS_PORT=str(free_port()),
        SECRETS_OPERATOR_TOKEN=TOKEN,
    )  # fmt: skip
    yield running
    await running.kill()


async def fetch(gateway: RunningGateway, port: int, path: str) -> httpx.Response:
    """Ask on a new connection, so that any of the workers may answer."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        return await client.get(path, headers={"Authorization": f"Bearer {TOKEN}"})


async def test_operators_have_a_port_of_their_own(gateway: RunningGateway, world: World, shop: Shop) -> None:
    apart = int(gateway.environment["TOLLWAY_SERVER_OPERATIONS_PORT"])
    agent = await world.agent(1_000_000)
    for _ in range(CALLS):
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
            assert (await client.get(f"/publishers/{shop.slug}/", headers=agent.headers)).status_code == 200
    for path in ("/metrics", "/operator/exchanges", "/operator/audit-logs"):
        refused = await fetch(gateway, gateway.port, path)
        assert (refused.status_code, refused.headers["content-type"]) == (404, "application/problem+json"), path
        answers = [await fetch(gateway, apart, path) for _ in range(6)]
        assert {answer.status_code for answer in answers} == {200}, path
    for path in ("/health/live", "/health/ready"):
        assert (await fetch(gateway, gateway.port, path)).status_code == 200
        assert (await fetch(gateway, apart, path)).status_code == 200
    for path in ("/", "/publishers", f"/publishers/{shop.slug}/", "/wallet/balance", "/store"):
        assert (await fetch(gateway, apart, path)).status_code == 404, path
    document = (await fetch(gateway, gateway.port, "/openapi.json")).json()
    assert not [path for path in document["paths"] if path.startswith(("/operator", "/metrics"))]
    await _metrics_count_all_workers(gateway, apart, shop.slug)
    assert await gateway.stop() == 0


async def _metrics_count_all_workers(gateway: RunningGateway, port: int, slug: str) -> None:
    async with asyncio.timeout(60):
        while True:
            text = (await fetch(gateway, port, "/metrics")).text
            lines = [line for line in text.splitlines() if line.startswith("tollway_requests_total{")]
            counts = [
                float(line.rsplit(" ", 1)[1])
                for line in lines
                if f'publisher="{slug}"' in line and 'outcome="settled"' in line
            ]
            if sum(counts) == CALLS:
                return
            await asyncio.sleep(0.1)


def test_the_ports_must_differ_and_be_free() -> None:
    settings = {"TOLLWAY_SECRET_KEYS": SECRET_KEYS, "TOLLWAY_LOG_LEVEL": "warning", "TOLLWAY_PORT": str(free_port())}
    same = tollway("serve", **settings, TOLLWAY_SERVER_OPERATIONS_PORT=settings["TOLLWAY_PORT"])
    assert same.returncode != 0
    assert "choose another" in same.stderr
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as holder:
        taken = tollway("serve", **settings, TOLLWAY_SERVER_OPERATIONS_PORT=str(holder.getsockname()[1]))
    assert taken.returncode == 1
    assert "set TOLLWAY_SERVER_OPERATIONS_PORT" in taken.stderr
