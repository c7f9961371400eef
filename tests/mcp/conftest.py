"""A gateway that sells a real MCP server, and the official client that buys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from tests.support.gateway import RunningGateway
from tests.support.mcp_server import CREDENTIAL, PublishersServer
from tests.support.world import Agent, Shop, World

ENDPOINTS = [
    {"method": "POST", "path": "/free_tip", "price": "0"},
    {"method": "POST", "path": "/counted", "price": "0.05"},
    {"method": "POST", "path": "/hidden", "is_protected": True, "protection_reason": "Not for sale."},
]
PRICE, COUNTED = 10_000, 50_000


@pytest_asyncio.fixture(scope="module")
async def server() -> AsyncIterator[PublishersServer]:
    """A publisher's server with sessions and event streams."""
    running = PublishersServer()
    await running.start()
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def shop(world: World, server: PublishersServer) -> Shop:
    """Sells it: a call costs 0.01, `counted` 0.05, `free_tip` nothing, `hidden` cannot be had."""
    server.forget()
    return await world.publisher(PRICE, **selling(server))


def selling(server: PublishersServer, **document: Any) -> dict[str, Any]:
    """What a publisher of a server is stored with."""
    return {
        "integration_type": "mcp", "api_url": None, "mcp_endpoint": server.url, "endpoints": ENDPOINTS,
        "upstream_headers": {"Authorization": CREDENTIAL}, **document,
    }  # fmt: skip


@pytest_asyncio.fixture
async def agent(world: World) -> Agent:
    return await world.agent(1_000_000)


@asynccontextmanager
async def connected(
    gateway: RunningGateway, shop: Shop, agent: Agent | None = None, mode: str = "legacy", **options: Any
) -> AsyncIterator[Client]:
    """The official client at the gateway's endpoint."""
    headers = {} if agent is None else agent.headers
    async with create_mcp_http_client(headers) as http:
        transport = streamable_http_client(f"{gateway.url}/publishers/{shop.slug}/mcp", http_client=http)
        async with Client(transport, mode=mode, **options) as client:
            yield client


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    """Which version of MCP the client speaks: with sessions, or the newest."""
    return request.param
