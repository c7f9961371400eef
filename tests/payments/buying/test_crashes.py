"""A gateway that dies while it buys: the agent pays for no undelivered call, and it is found out what the chain moved."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.payments.buying.conftest import CAP, Reselling, buys, ended, expire, left
from tests.payments.evm.conftest import until
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.seller import PRICE, Seller
from tests.support.services import Services
from tests.support.world import Agent, World

pytestmark = pytest.mark.slow

# point: (how often the first try presents a payment, what becomes of its purchase; None: there is none)
STEPS: dict[str, tuple[int, tuple[str, bool] | None]] = {
    "claim.after": (0, None),
    "authorize.before": (0, None),
    "authorize.after": (0, None),
    "forward.after": (0, None),
    "promise.after": (0, ("lapsed", False)),
    "pay.after": (1, ("bought", False)),
    "store.before": (1, ("bought", False)),
    "store.after": (1, ("bought", True)),
    "deliver.after": (1, ("bought", True)),
    "settle.after": (1, ("bought", True)),
}


@pytest.fixture(scope="module")
def gateway() -> None:
    """None but those that a test starts."""


@pytest.mark.parametrize("point", STEPS)
async def test_killed_at(
    point: str, services: Services, database_url: str, chain: Chain, key: str, funded: None, seller: Seller,
    reselling: Reselling, agent: Agent, world: World, connection: Connection,
) -> None:  # fmt: skip
    presented, became = STEPS[point]
    shop, headers = await reselling(), {**agent.headers, "Idempotency-Key": point}
    path = f"/publishers/{shop.slug}/item"
    doomed = await start_gateway(services, database_url, **buys(chain, key, FAULT=f"{point}:kill"))
    with contextlib.suppress(httpx.TransportError):
        await doomed.client.get(path, headers=headers)
    await doomed.kill()
    assert len(seller.presented) == presented
    healed = await start_gateway(services, database_url, **buys(chain, key))
    try:
        await nothing_open(connection)
        await expire(connection, chain)
        found = await ended(connection, chain)
        first = await connection.fetchrow(
            "SELECT state::text, delivered FROM chain.purchase WHERE publisher_id = $1", shop.id
        )
        assert (None if first is None else tuple(first)) == became, found
        delivered = became is not None and became[1]
        await left(world, agent, 10 * CAP - PRICE * delivered)
        answer = await retried(healed, path, headers)
        assert (answer.status_code, "idempotency-replayed" in answer.headers) == (200, delivered)
        assert len(seller.presented) == presented + (not delivered)
        await left(world, agent, 10 * CAP - PRICE)
        await ended(connection, chain)
    finally:
        await healed.stop()


async def test_a_gateway_that_is_killed_while_its_upstream_works_owes_its_caller_nothing(
    services: Services, database_url: str, chain: Chain, key: str, funded: None, seller: Seller,
    reselling: Reselling, agent: Agent, world: World, connection: Connection,
) -> None:  # fmt: skip
    seller.mode, shop = "silent", await reselling()
    doomed = await start_gateway(services, database_url, **buys(chain, key))
    call = asyncio.ensure_future(doomed.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers))
    await asyncio.wait_for(seller.reached.wait(), 60)
    await doomed.kill()
    seller.release.set()
    await asyncio.gather(call, return_exceptions=True)
    healed = await start_gateway(services, database_url, **buys(chain, key))
    try:
        assert (await ended(connection, chain))[-1] == ("bought", False)
        await left(world, agent, 10 * CAP)
    finally:
        await healed.stop()


async def test_a_node_that_is_away_delays_what_is_known_and_loses_nothing(
    services: Services, database_url: str, chain: Chain, key: str, funded: None, seller: Seller,
    reselling: Reselling, agent: Agent, world: World, connection: Connection,
) -> None:  # fmt: skip
    nowhere = {f"CHAIN_{chain.chain_id}_RPC": "http://127.0.0.1:1"}
    shop = await reselling()
    cut_off = await start_gateway(services, database_url, **buys(chain, key, **nowhere))
    answer = await cut_off.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.01")
    await cut_off.stop()
    assert await connection.fetchval("SELECT count(*) FROM chain.purchase WHERE ended_at IS NULL") == 1
    healed = await start_gateway(services, database_url, **buys(chain, key))
    try:
        assert (await ended(connection, chain))[-1] == ("bought", True)
    finally:
        await healed.stop()


async def nothing_open(connection: Connection) -> None:
    """Wait until the reconciler has ended what the dead gateway left."""

    async def over() -> bool:
        return (await proof.verify(connection)).pending_holds == 0

    await until(over)


async def retried(gateway: RunningGateway, path: str, headers: dict[str, str]) -> httpx.Response:
    """Ask again until the key is free."""
    for _ in range(240):
        answer = await gateway.client.get(path, headers=headers)
        if answer.status_code != 409:
            return answer
        await asyncio.sleep(0.25)
    raise AssertionError("the key was never given back")
