"""Killed between a tiered call's payment and its end: its place and its budget come back, free or not, and once."""

import asyncio
import contextlib
from uuid import uuid4

import httpx
import pytest

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, World

pytestmark = [pytest.mark.usefixtures("sound_books"), pytest.mark.slow]

FUNDS = 1_000_000
# point: (path of the call, whether its answer is stored when the worker dies)
STEPS = {
    "authorize.after": ("x", False),
    "forward.after": ("x", False),
    "refund.after": ("status/503", False),
    "store.before": ("x", False),
    "store.after": ("x", True),
    "deliver.after": ("x", True),
    "settle.after": ("x", True),
}


async def budgeted(gateway: RunningGateway, agent: Agent) -> dict[str, str]:
    """Return the headers of a key that may spend one call's price a month."""
    body = {"name": "limited", "budget": {"per_month": "0.01"}}
    answer = await gateway.client.post("/organizations/default/api-keys", headers=agent.headers, json=body)
    return {"Authorization": f"Bearer {answer.json()['data']['api_key']}"}


async def counted(connection: Connection, agent: Agent) -> dict[str, int]:
    """Return what an agent's counters that are not empty stand at, by their kind."""
    rows = await connection.fetch(
        "SELECT kind, sum(value)::int AS value FROM ledger.counter WHERE scope = $1"
        " OR scope IN (SELECT budget_scope FROM identity.api_key WHERE account_id = $1) GROUP BY kind",
        agent.id,
    )
    return {row["kind"]: row["value"] for row in rows if row["value"]}


async def until_ended(connection: Connection) -> None:
    """Wait for the reconciler."""
    async with asyncio.timeout(60):
        while (await proof.verify(connection)).open_exchanges:
            await asyncio.sleep(0.1)


async def retried(gateway: RunningGateway, path: str, headers: dict[str, str]) -> httpx.Response:
    """Ask again until the key is free."""
    async with asyncio.timeout(60):
        while (answer := await gateway.client.get(path, headers=headers)).status_code == 409:
            await asyncio.sleep(0.25)
    return answer


@pytest.mark.parametrize("price", ["0", "0.01"])
@pytest.mark.parametrize("point", STEPS)
async def test_killed_at(
    point: str,
    price: str,
    services: Services,
    database_url: str,
    world: World,
    upstream: RecordingUpstream,
    connection: Connection,
) -> None:
    path, stored = STEPS[point]
    agent = await world.agent(FUNDS)
    tiers = [{"up_to": 1, "price": price}, {"price": "0.004"}]
    shop = await world.publisher(None, price_tiers=tiers, pricing_model="tiered")
    doomed = await start_gateway(services, database_url, FAULT=f"{point}:kill", MONEY_DEAD_AFTER="2")
    headers = {**await budgeted(doomed, agent), "Idempotency-Key": str(uuid4())}
    path = f"/publishers/{shop.slug}/{path}"
    with contextlib.suppress(httpx.TransportError):
        await doomed.client.get(path, headers=headers)
    await doomed.kill()
    taken = {"tier": 1} if price == "0" else {"tier": 1, "budget_day": 10_000, "budget_month": 10_000}
    healed = await start_gateway(services, database_url, MONEY_DEAD_AFTER="2")
    try:
        await until_ended(connection)
        assert await counted(connection, agent) == (taken if stored else {})
        answer = await retried(healed, path, headers)
        assert answer.headers["x-cost"] == ("0" if stored or answer.status_code == 503 else price), "the first place"
        assert ("idempotency-replayed" in answer.headers) == stored
        await until_ended(connection)
        kept = {} if answer.status_code == 503 else taken
        assert await counted(connection, agent) == kept
        assert FUNDS - await world.balance(agent) == kept.get("budget_day", 0)
    finally:
        await healed.stop()
