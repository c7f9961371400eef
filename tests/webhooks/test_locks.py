"""Changes of a webhook and what is sent meanwhile take their locks in one order: no interleaving is a deadlock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from gateway.database.pool import Connection
from tests.webhooks.conftest import Stage
from tests.webhooks.receiver import Tarpit

WAITING = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock' AND state = 'active'
"""


@pytest.mark.parametrize("status", [410, 500])
async def test_two_tries_that_fail_at_once_switch_a_webhook_off(stage: Stage, status: int) -> None:
    tarpit = Tarpit(status=status)
    await tarpit.start()
    hook = await stage.hook("api_key.created")
    for number in range(4):
        await hook.happens(f"key {number}")
    await hook.deliveries(4)
    await stage.connection.execute(
        "UPDATE webhook.endpoint SET url = $2, failing_since = now() - interval '9 days' WHERE id::text = $1",
        hook.id, tarpit.url,
    )  # fmt: skip
    await hook.call("POST", "/replay", expect=202, json={"since": "2000-01-01"})
    await tarpit.holds(4)
    # Whoever writes down what became of a try waits here, with what it has locked by then.
    transaction = stage.connection.transaction()
    await transaction.start()
    await stage.connection.execute("SELECT FROM webhook.endpoint WHERE id::text = $1 FOR UPDATE", hook.id)
    tarpit.released.set()
    await waits(stage.connection, 4)
    before = await deadlocks(stage.connection)
    await transaction.rollback()
    async with asyncio.timeout(60):
        while (await hook.call("GET"))["data"]["enabled"]:
            await asyncio.sleep(0.05)
    assert await deadlocks(stage.connection) == before
    states = await stage.connection.fetch("SELECT state FROM webhook.delivery WHERE endpoint_id::text = $1", hook.id)
    assert {row["state"] for row in states} == {"failed"}
    await tarpit.stop()


@pytest.mark.parametrize(
    ("method", "rest", "body", "expected"),
    [
        ("PATCH", "", {"enabled": False}, 200),
        ("DELETE", "", None, 204),
        ("POST", "/rotate-secret", None, 200),
        ("POST", "/replay", {"since": "2000-01-01"}, 202),
    ],
)
async def test_a_change_of_a_webhook_and_a_change_that_it_hears_of(
    stage: Stage, method: str, rest: str, body: dict[str, Any] | None, expected: int
) -> None:
    hook = await stage.hook("api_key.created")
    transaction = stage.connection.transaction()
    await transaction.start()
    await stage.connection.execute("SELECT FROM audit.head WHERE chain = $1 FOR UPDATE", hook.owner.organization_id)
    # The first is next at the head and will refer to the webhook, which the second has locked by then.
    first = asyncio.create_task(hook.happens("heard of"))
    await waits(stage.connection, 1)
    second = asyncio.create_task(hook.call(method, rest, expect=expected, json=body))
    await waits(stage.connection, 2)
    before = await deadlocks(stage.connection)
    await transaction.rollback()
    await both(first, second)
    assert await deadlocks(stage.connection) == before


async def waits(connection: Connection, number: int) -> None:
    """Return when so many statements wait for a lock."""
    async with asyncio.timeout(60):
        while await connection.fetchval(WAITING) < number:
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0.05)


async def deadlocks(connection: Connection) -> int:
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    found: int = await connection.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return found


async def both(*changes: Awaitable[object]) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(*changes)
