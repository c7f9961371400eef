"""One database and a gateway per server, for the tests of connections that last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.gateway import RunningGateway, start_gateway
from tests.support.servers import EACH, wanted
from tests.support.services import Services


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """What this module's gateways are told; a module overrides it."""
    return {}


@pytest_asyncio.fixture(scope="module")
async def gateways(
    request: pytest.FixtureRequest, services: Services, database_url: str, settings: dict[str, str]
) -> AsyncIterator[dict[str, RunningGateway]]:
    """A gateway per server, on this module's database."""
    servers = wanted(item for item in request.session.items if item.getparent(pytest.Module) is request.node)
    starting = (start_gateway(services, database_url, SERVER=server, **settings) for server in servers)
    running = dict(zip(servers, await asyncio.gather(*starting), strict=True))
    yield running
    await asyncio.gather(*(gateway.stop() for gateway in running.values()))


@pytest.fixture(params=EACH)
def server(request: pytest.FixtureRequest) -> str:
    """The name of the server under the gateway."""
    return request.param


@pytest.fixture
def wired(server: str, gateways: dict[str, RunningGateway]) -> RunningGateway:
    """The gateway on each server in turn."""
    return gateways[server]
