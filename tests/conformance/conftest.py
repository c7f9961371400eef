"""A gateway with an operator's token, a publisher's server that answers whatever it is asked, and what exists here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.conformance.fuzz import OPERATOR_TOKEN, Known
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import Recorded, RecordingUpstream
from tests.support.world import Agent, World

WALLET = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


class CalmUpstream(RecordingUpstream):
    """Answers 200 on every path: what a fuzzer makes up must not turn into a failing upstream."""

    async def _answer(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        await self._plain(request, writer, 200, b"" if request.method == "HEAD" else b'{"ok": true}')
        return True


@pytest_asyncio.fixture(scope="module")
async def upstream() -> AsyncIterator[RecordingUpstream]:
    server = CalmUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module")
async def gateway(
    services: Services, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningGateway]:
    server = os.environ.get("TOLLWAY_FUZZ_SERVER", "tollway")
    letters = str(tmp_path_factory.mktemp("mail"))
    running = await start_gateway(
        services, database_url, SERVER=server, SECRETS_OPERATOR_TOKEN=OPERATOR_TOKEN, SMTP_FOLDER=letters
    )
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def agent(world: World) -> Agent:
    """An agent with funds."""
    return await world.agent(funds=10**12)


def order(upstream: RecordingUpstream, slug: str) -> dict[str, Any]:
    """Return the body that creates a publisher."""
    return {
        "name": slug,
        "slug": slug,
        "publisher_category": "integration",
        "integration_type": "api",
        "api_url": upstream.url,
        "wallet_address": WALLET,
        "wallet_network_id": "eip155:84532",
        "price_per_call": "0.01",
    }


@pytest_asyncio.fixture(scope="module")
async def known(world: World, gateway: RunningGateway, upstream: RecordingUpstream, agent: Agent) -> Known:
    """The agent's own publisher, somebody else's, a call that the agent has paid, and a second key of its own."""
    foreign = await world.publisher()
    mine = await gateway.client.post(
        f"/organizations/{agent.organization_id}/publishers", headers=agent.headers, json=order(upstream, "mine")
    )
    assert mine.status_code == 201, mine.text
    paid = await gateway.client.get(f"/publishers/{foreign.slug}/x", headers=agent.headers)
    assert paid.headers["x-cost"] == "0.01"
    other = await gateway.client.post(
        f"/organizations/{agent.organization_id}/api-keys", headers=agent.headers, json={"name": "limited"}
    )
    stranger = await world.agent()
    project = await gateway.client.post(
        "/projects", headers=agent.headers, json={"name": "To be tried", "region": "local"}
    )
    return Known(
        organization=str(agent.organization_id),
        foreign_organization=str(stranger.organization_id),
        publisher=mine.json()["data"]["id"],
        foreign_publisher=str(foreign.id),
        slug="mine",
        foreign_slug=foreign.slug,
        receipt=paid.headers["x-request-id"],
        project=project.json()["data"]["id"],
        key=other.json()["data"]["id"],
    )
