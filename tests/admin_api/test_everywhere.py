"""What is taken away is taken away at every gateway: the one that did not do it hears of it and forgets what it knew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from gateway.ids import uuid7
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Agent, World


@pytest_asyncio.fixture(scope="module")
async def other(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """A second gateway on the same database."""
    running = await start_gateway(services, database_url)
    yield running
    await running.stop()


async def until(gateway: RunningGateway, path: str, key: str, status: int) -> None:
    """Ask until the answer has this status. A key that is remembered and not told of would live for minutes."""
    async with asyncio.timeout(60):
        while (await gateway.client.get(path, headers={"Authorization": f"Bearer {key}"})).status_code != status:
            await asyncio.sleep(0.05)


async def test_a_lost_role_a_revoked_key_and_a_lost_membership_are_heard_of(
    gateway: RunningGateway, other: RunningGateway, world: World
) -> None:
    owner, member = await world.agent(), await world.agent()
    base, ask = await shared(gateway, owner), gateway.client.request
    await world.connection.execute(
        "INSERT INTO identity.membership (organization_id, account_id, role) VALUES ($1, $2, 'editor')",
        base.rpartition("/")[2], member.id,
    )  # fmt: skip
    path = f"{base}/members/{member.id}"
    keys: list[dict[str, str]] = []
    for _ in range(2):
        made = await ask("POST", f"{base}/api-keys", headers=member.headers, json={"name": "k"})
        keys.append(made.json()["data"])
        await until(other, f"{base}/api-keys", keys[-1]["api_key"], 200)
        await until(other, f"/publishers/none-{uuid7()}/x", keys[-1]["api_key"], 404)

    role = (await ask("POST", f"{base}/roles", headers=owner.headers, json={"name": "r", "permissions": []})).json()
    given = await ask("PUT", f"{path}/role", headers=owner.headers, json={"role_id": role["data"]["id"]})
    assert given.status_code == 200
    await until(other, f"{base}/api-keys", keys[0]["api_key"], 403)

    revoked = await ask("DELETE", f"{base}/api-keys/{keys[0]['id']}", headers=owner.headers)
    assert revoked.status_code == 200
    await until(other, "/auth/me", keys[0]["api_key"], 401)

    removed = await ask("DELETE", path, headers=owner.headers)
    assert removed.status_code == 204
    await until(other, "/auth/me", keys[1]["api_key"], 401)
    await until(other, base, member.key, 403)


async def test_with_an_organization_end_its_keys(gateway: RunningGateway, other: RunningGateway, world: World) -> None:
    owner = await world.agent()
    base = await shared(gateway, owner)
    made = await gateway.client.post(f"{base}/api-keys", headers=owner.headers, json={"name": "k"})
    key = made.json()["data"]["api_key"]
    await until(other, "/auth/me", key, 200)
    assert (await gateway.client.delete(base, headers=owner.headers)).status_code == 204
    await until(other, "/auth/me", key, 401)
    await until(other, "/auth/me", owner.key, 200)


async def shared(gateway: RunningGateway, owner: Agent) -> str:
    made = await gateway.client.post("/organizations", headers=owner.headers, json={"name": "Shared"})
    return f"/organizations/{made.json()['data']['id']}"
