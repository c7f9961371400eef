"""Killed between the steps of a delivery: the event comes at least once, and with the same id."""

from __future__ import annotations

import asyncio

import pytest

from gateway.database.pool import Connection
from gateway.faults import POINTS
from tests.support.gateway import start_gateway
from tests.support.services import Services
from tests.support.world import World
from tests.webhooks.conftest import QUICK, Stage
from tests.webhooks.receiver import Receiver

pytestmark = pytest.mark.slow

# point: how many messages there are when the gateway dies
STEPS = {"webhook.claimed": 0, "webhook.sent": 1}


def test_every_point_is_in_the_suite() -> None:
    assert set(STEPS) == {point for point in POINTS if point.startswith("webhook.")}


@pytest.mark.parametrize("point", STEPS)
async def test_killed_at(
    point: str, services: Services, database_url: str, world: World, connection: Connection
) -> None:
    receiver = Receiver()
    await receiver.start()
    quick = {**QUICK, "WEBHOOKS_TIMEOUT": "1"}
    doomed = await start_gateway(services, database_url, FAULT=f"{point}:kill", **quick)
    hook = await Stage(doomed, world, receiver, connection).hook("api_key.created")
    await hook.happens("survives")
    assert await asyncio.to_thread(doomed.process.wait, 60) != 0
    await doomed.client.aclose()
    assert len(receiver.messages) == STEPS[point]
    assert await connection.fetchval("SELECT attempts FROM webhook.delivery WHERE endpoint_id::text = $1", hook.id) == 0
    after = await start_gateway(services, database_url, **quick)
    try:
        messages = await receiver.waits_for(STEPS[point] + 1)
        assert len({message.id for message in messages}) == 1
        assert messages[-1].opened(hook.secret)["data"]["name"] == "survives"
        async with asyncio.timeout(60):
            query = "SELECT state FROM webhook.delivery WHERE endpoint_id::text = $1"
            while await connection.fetchval(query, hook.id) != "delivered":
                await asyncio.sleep(0.05)
    finally:
        await after.stop()
        await receiver.stop()
        await connection.execute("UPDATE webhook.endpoint SET enabled = false")


async def test_killed_between_the_change_and_its_commit_nothing_was_and_nothing_is_sent(
    services: Services, database_url: str, world: World, connection: Connection
) -> None:
    receiver = Receiver()
    await receiver.start()
    gateway = await start_gateway(services, database_url, **QUICK)
    hook = await Stage(gateway, world, receiver, connection).hook("api_key.created")
    # A lock on the chain's head keeps the change from its end, after everything but the entry is written.
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT FROM audit.head WHERE chain = $1 FOR UPDATE", hook.owner.organization_id)
    change = asyncio.create_task(hook.happens("never was"))
    async with asyncio.timeout(60):
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while not await connection.fetchval(waiting):
            await asyncio.sleep(0.05)
    await gateway.kill()
    await asyncio.gather(change, return_exceptions=True)
    await transaction.rollback()
    after = await start_gateway(services, database_url, **QUICK)
    try:
        again = Stage(after, world, receiver, connection)
        await again.makes_key(hook.owner, "is")
        (message,) = await receiver.waits_for(1)
        assert message.opened(hook.secret)["data"]["name"] == "is"
        names = await connection.fetch("SELECT name FROM identity.api_key WHERE account_id = $1", hook.owner.id)
        assert {row["name"] for row in names} == {"agent", "is"}
    finally:
        await after.stop()
        await receiver.stop()
