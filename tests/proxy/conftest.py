"""One database and three gateways, one per server, for the tests of connections that last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services

SERVERS = ["granian", "uvicorn", "hypercorn"]


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """What this module's gateways are told; a module overrides it."""
    return {}


@pytest_asyncio.fixture(scope="module")
async def gateways(
    services: Services, database_url: str, settings: dict[str, str]
) -> AsyncIterator[dict[str, RunningGateway]]:
    """A gateway per server, on this module's database."""
    starting = (start_gateway(services, database_url, SERVER=server, **settings) for server in SERVERS)
    running = dict(zip(SERVERS, await asyncio.gather(*starting), strict=True))
    yield running
    await asyncio.gather(*(gateway.stop() for gateway in running.values()))


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """The name of the server under the gateway."""
    return request.param


@pytest.fixture
def wired(server: str, gateways: dict[str, RunningGateway]) -> RunningGateway:
    """The gateway on each server in turn."""
    return gateways[server]
