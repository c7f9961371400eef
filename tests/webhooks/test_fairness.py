"""Dead endpoints of some organizations delay nobody else's events, over all workers of a gateway.

Tries take half an hour here before they are given up: whatever waited for a tarpit would never come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Agent, World
from tests.webhooks.conftest import Hook, Stage
from tests.webhooks.receiver import Receiver, Tarpit

TARPITS = 50


@dataclass
class Street(Stage):
    """A stage with a tarpit next door."""

    tarpit: Tarpit


@pytest_asyncio.fixture
async def patient(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    running = await start_gateway(
        services, database_url, WORKERS="2", WEBHOOKS_TIMEOUT="1800", WEBHOOKS_RETRIES="0.1,0.1,0.1",
    )  # fmt: skip
    yield running
    await running.kill()


@pytest_asyncio.fixture
async def street(patient: RunningGateway, world: World, connection: Connection) -> AsyncIterator[Street]:
    receiver, tarpit = Receiver(), Tarpit()
    await receiver.start()
    await tarpit.start()
    yield Street(patient, world, receiver, connection, tarpit)
    await tarpit.stop()
    await receiver.stop()
    await connection.execute("UPDATE webhook.endpoint SET enabled = false")


async def test_fifty_dead_endpoints_of_one_organization_delay_nobody(street: Street) -> None:
    dead = await tarpits(street, [await street.world.agent()])
    await dead[0].happens("to nobody")
    await street.tarpit.holds(10)
    await arrives(street)
    assert street.tarpit.most == 10  # of one organization, over both workers


@pytest.mark.parametrize("failing", [False, True])
async def test_dead_endpoints_of_fifty_organizations_delay_nobody(street: Street, failing: bool) -> None:
    owners = [await street.world.agent() for _ in range(TARPITS)]
    dead = await tarpits(street, owners)
    if failing:
        await street.connection.execute(
            "UPDATE webhook.endpoint SET failing_since = now() WHERE id::text = ANY ($1)", [hook.id for hook in dead]
        )
    await asyncio.gather(*(hook.happens("to nobody") for hook in dead))
    await street.tarpit.holds(TARPITS)
    await arrives(street)


async def test_the_last_places_are_for_those_that_have_none(
    services: Services, database_url: str, world: World, connection: Connection
) -> None:
    few = await start_gateway(
        services, database_url, WEBHOOKS_TIMEOUT="1800", WEBHOOKS_AT_ONCE="5", WEBHOOKS_AT_ONCE_PER_ORGANIZATION="50"
    )
    receiver, tarpit = Receiver(), Tarpit()
    await receiver.start()
    await tarpit.start()
    street = Street(few, world, receiver, connection, tarpit)
    try:
        dead = await tarpits(street, [await world.agent()], number=20)
        await dead[0].happens("to nobody")
        await tarpit.holds(4)
        await arrives(street)
        assert tarpit.most == 4
    finally:
        await few.kill()
        await tarpit.stop()
        await receiver.stop()
        await connection.execute("UPDATE webhook.endpoint SET enabled = false")


async def test_one_endpoint_has_four_tries_under_way_at_once(street: Street) -> None:
    hook = await street.hook("api_key.created")
    for number in range(8):
        await hook.happens(f"key {number}")
    await hook.deliveries(8)
    await street.connection.execute(
        "UPDATE webhook.endpoint SET url = $2 WHERE id::text = $1", hook.id, street.tarpit.url
    )
    again = await hook.call("POST", "/replay", expect=202, json={"since": "2000-01-01"})
    assert again["data"] == {"events": 8, "next_since": None}
    await street.tarpit.holds(4)
    await arrives(street)
    assert street.tarpit.most == 4
    street.tarpit.released.set()
    assert len(await hook.deliveries(16)) == 16


@pytest.mark.parametrize(
    ("begins", "drips", "status"),
    [(b"", b"", None), (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", None), (b"HTTP/1.1 200 OK\r\n\r\n", b"x", 200)],
)
async def test_a_try_ends_however_slowly_a_receiver_drips(
    stage: Stage, begins: bytes, drips: bytes, status: int | None
) -> None:
    tarpit = Tarpit(begins, drips)
    await tarpit.start()
    try:
        hook = await stage.hook("api_key.created", url=tarpit.url)
        await hook.happens()
        log = await hook.deliveries(1)
        assert log[-1]["response_status"] == status
        if status is None:
            assert log[-1]["error_message"]
    finally:
        await tarpit.stop()


async def tarpits(street: Street, owners: list[Agent], number: int = TARPITS) -> list[Hook]:
    """Make webhooks that lead into the tarpit, spread over their owners."""
    return [
        await street.hook("api_key.created", owner=owners[place % len(owners)], url=street.tarpit.url)
        for place in range(number)
    ]


async def arrives(street: Street) -> None:
    """Let something happen to another tenant: it hears of it although the tarpit goes on."""
    other = await street.hook("api_key.created")
    before = len(street.receiver.messages)
    await other.happens("to somebody")
    messages = await street.receiver.waits_for(before + 1)
    assert messages[-1].opened(other.secret)["data"]["name"] == "to somebody"
