"""One gateway with quick retries and a receiver; `stage` makes organizations with webhooks there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest_asyncio

from gateway.database.pool import Connection
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Agent, World
from tests.webhooks.receiver import Receiver

QUICK = {"WEBHOOKS_RETRIES": "0.1,0.1,0.1", "WEBHOOKS_TIMEOUT": "5", "WEBHOOKS_DISABLE_AFTER": "86400"}


@dataclass
class Hook:
    """A webhook of an agent's organization."""

    stage: Stage
    owner: Agent
    id: str
    secret: str

    @property
    def path(self) -> str:
        return f"/organizations/{self.owner.organization_id}/webhooks/{self.id}"

    async def call(self, method: str, rest: str = "", *, expect: int = 200, **options: Any) -> Any:
        answer = await self.stage.gateway.client.request(
            method, self.path + rest, headers=self.owner.headers, **options
        )
        assert answer.status_code == expect, answer.text
        return answer.json() if answer.content else None

    async def deliveries(self, number: int) -> list[dict[str, Any]]:
        """Return the log when it has so many tries."""
        async with asyncio.timeout(60):
            while len(found := await self.call("GET", "/deliveries")) < number:
                await asyncio.sleep(0.05)
        return found

    async def happens(self, name: str = "key") -> None:
        """Make an API key: an event."""
        await self.stage.makes_key(self.owner, name)


@dataclass
class Stage:
    """What the tests stand on."""

    gateway: RunningGateway
    world: World
    receiver: Receiver
    connection: Connection

    async def makes_key(self, owner: Agent, name: str) -> None:
        path = f"/organizations/{owner.organization_id}/api-keys"
        answer = await self.gateway.client.post(path, headers=owner.headers, json={"name": name})
        assert answer.status_code == 201, answer.text

    async def hook(self, *events: str, owner: Agent | None = None, url: str | None = None) -> Hook:
        owner = owner or await self.world.agent(10_000_000)
        body = {"name": "Ours", "url": url or self.receiver.url, "events": list(events) or ["*"]}
        path = f"/organizations/{owner.organization_id}/webhooks"
        answer = await self.gateway.client.post(path, headers=owner.headers, json=body)
        assert answer.status_code == 201, answer.text
        made = answer.json()["data"]
        return Hook(self, owner, made["webhook"]["id"], made["secret"])


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    running = await start_gateway(services, database_url, **QUICK)
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def stage(gateway: RunningGateway, world: World, connection: Connection) -> AsyncIterator[Stage]:
    """A receiver of this test's own."""
    receiver = Receiver()
    await receiver.start()
    yield Stage(gateway, world, receiver, connection)
    await receiver.stop()
    await connection.execute("UPDATE webhook.endpoint SET enabled = false")
