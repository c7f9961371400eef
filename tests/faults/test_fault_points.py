"""Killed at every effect of a plain call's walk: after the restart the books balance, a retry gets one answer.

An effect is a wait of the walk that has a name (gateway/faults.py). test_every_effect.py tries those of the other kinds
and purses, and knows them all.
"""

import asyncio
from uuid import uuid4

import httpx
import pytest

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import World

pytestmark = [pytest.mark.usefixtures("sound_books"), pytest.mark.slow]

# point: (path of the call, whether the first try reaches its upstream, whether the first try is stored)
STEPS = {
    "claim.before": ("/x", False, False),
    "claim.after": ("/x", False, False),
    "admit.after": ("/x", False, False),
    "authorize.before": ("/x", False, False),
    "authorize.after": ("/x", False, False),
    "forward.before": ("/x", False, False),
    "forward.after": ("/x", True, False),
    "look.after": ("/x", True, False),
    "refund.after": ("/status/503", True, False),
    "store.before": ("/x", True, False),
    "store.after": ("/x", True, True),
    "head.after": ("/chunks?n=3&pause=30", True, False),
    "deliver.after": ("/x", True, True),
    "settle.before": ("/x", True, True),
    "settle.after": ("/x", True, True),
}
PRICE = 10_000


async def retried(gateway: RunningGateway, path: str, headers: dict[str, str]) -> httpx.Response:
    """Ask again until the key is free: the reconciler needs a moment."""
    for _ in range(240):
        answer = await gateway.client.get(path, headers=headers)
        if answer.status_code != 409:
            return answer
        assert int(answer.headers["retry-after"]) >= 1
        await asyncio.sleep(0.25)
    raise AssertionError("the key was never given back")


@pytest.mark.parametrize("point", STEPS)
async def test_killed_at(
    point: str, services: Services, database_url: str, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    path, reaches, stored = STEPS[point]
    agent, shop = await world.agent(10 * PRICE), await world.publisher(PRICE)
    headers, path = {**agent.headers, "Idempotency-Key": str(uuid4())}, f"/publishers/{shop.slug}{path}"
    upstream.forget()
    doomed = await start_gateway(services, database_url, FAULT=f"{point}:kill", MONEY_DEAD_AFTER="2")
    whole = False
    try:
        answer = await doomed.client.get(path, headers=headers)
        whole = answer.status_code == 200
    except httpx.TransportError:
        pass
    assert upstream.calls == int(reaches)
    await doomed.kill()
    healed = await start_gateway(services, database_url, MONEY_DEAD_AFTER="2")
    try:
        answer = await retried(healed, path, headers)
        once_more = await healed.client.get(path, headers=headers)
        expected = 503 if "/status/503" in path else 200
        assert (answer.status_code, once_more.status_code) == (expected, expected)
        assert once_more.headers["idempotency-replayed"] == "true"
        assert ("idempotency-replayed" in answer.headers) == stored
        assert not (whole and not stored), "a caller with a whole answer must find it stored"
        assert upstream.calls == int(reaches) + int(not stored)
        charged = PRICE if expected == 200 else 0
        assert await world.balance(agent) == 10 * PRICE - charged
        assert await world.earned(shop) == charged
        assert (await proof.verify(connection)).open_exchanges == 0
    finally:
        await healed.stop()


@pytest.mark.parametrize("point", [point for point in STEPS if point not in ("refund.after", "head.after")])
async def test_failing_at(
    point: str, services: Services, database_url: str, world: World, connection: Connection
) -> None:
    """An error of ours at any step is a 500 (or a cut connection) that costs nothing, or an answer that was paid."""
    agent, shop = await world.agent(10 * PRICE), await world.publisher(PRICE)
    failing = await start_gateway(services, database_url, FAULT=f"{point}:error")
    try:
        path, headers = f"/publishers/{shop.slug}/x", {**agent.headers, "Idempotency-Key": str(uuid4())}
        status = 0
        try:
            answer = await failing.client.get(path, headers=headers)
            status = answer.status_code
            if status == 500:
                assert "fault point" not in answer.text, "the cause is for the log"
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.3)
        assert status in (0, 200, 500)
        paid = 10 * PRICE - await world.balance(agent)
        assert paid == await world.earned(shop)
        assert paid == (PRICE if point in ("store.after", "deliver.after", "settle.before", "settle.after") else 0)
    finally:
        await failing.stop()
