"""A gateway that sells a real MCP server, and the official client that buys."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.support.mcp_server import PublishersServer, selling
from tests.support.world import Agent, Shop, World

PRICE, COUNTED = 10_000, 50_000


@pytest.fixture
def server(mcp_server: PublishersServer) -> PublishersServer:
    """The server, which has forgotten what other tests did."""
    mcp_server.forget()
    return mcp_server


@pytest_asyncio.fixture
async def shop(world: World, server: PublishersServer) -> Shop:
    """Sells it: a call costs 0.01, `counted` 0.05, `free_tip` nothing, `hidden` cannot be had."""
    return await world.publisher(PRICE, **selling(server))


@pytest_asyncio.fixture
async def agent(world: World) -> Agent:
    return await world.agent(1_000_000)


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    """Which version of MCP the client speaks: with sessions, or the newest."""
    return request.param
