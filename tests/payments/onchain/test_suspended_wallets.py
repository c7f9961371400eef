"""A suspended address pays nothing on any chain: it is told before anything is settled, and so is who asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from gateway.database.pool import Connection
from gateway.payments.evm.encoding import show_address
from tests.operators.conftest import OPERATORS, Desk
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE
from tests.payments.onchain.conftest import Buying, chained
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str, chain: Chain) -> AsyncIterator[RunningGateway]:
    """A gateway with operators that holds nothing of earnings back."""
    rules = {"PAYOUTS_HOLDBACK": "0", "PAYOUTS_MINIMUM": "1", **OPERATORS}
    running = await start_gateway(services, database_url, **chained(chain, **rules))
    yield running
    await running.stop()


async def test_a_suspended_wallet_is_refused_before_anything_is_settled(
    gateway: RunningGateway, buying: Buying, shop: Shop, upstream: RecordingUpstream, connection: Connection
) -> None:
    desk, buyer, path = Desk(gateway), await buying(), f"/publishers/{shop.slug}/x"
    assert (await buyer.buy(path)).status_code == 200
    before, payments = await buyer.balance(), await connection.fetchval("SELECT count(*) FROM chain.payment")
    upstream.forget()
    await desk.suspend("wallet", buyer.address, "on a list")

    async def refused() -> bool:
        return (await buyer.buy(path)).status_code == 403

    # What is bought before the worker hears of it is bought; then nothing is.
    await until(refused)
    upstream.forget()
    before, payments = await buyer.balance(), await connection.fetchval("SELECT count(*) FROM chain.payment")
    told = (await buyer.buy(path)).json()
    assert (told["suspended"], told["reason"]) == ("wallet", "on a list")
    assert await buyer.balance() == before
    assert await connection.fetchval("SELECT count(*) FROM chain.payment") == payments
    assert upstream.requests == []
    other = await buying()
    assert (await other.buy(path)).status_code == 200, "only this wallet"

    await desk.restore("wallet", buyer.address)

    async def sold() -> bool:
        return (await buyer.buy(path)).status_code == 200

    await until(sold)


async def test_payouts_of_a_suspended_publisher_wait(
    gateway: RunningGateway, buying: Buying, world: World, chain: Chain, connection: Connection,
    upstream: RecordingUpstream,
) -> None:  # fmt: skip
    desk, wallet = Desk(gateway), (await chain.wallet()).address
    shop, owner = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10"), await world.agent()
    await connection.execute(
        "UPDATE catalog.publisher SET organization_id = $2, wallet_address = $3, wallet_network_id = $4 WHERE id = $1",
        shop.id, owner.organization_id, show_address(wallet), chain.network,
    )  # fmt: skip
    buyer = await buying()
    assert (await buyer.buy(f"/publishers/{shop.slug}/x")).status_code == 200
    path = f"/organizations/{owner.organization_id}/publishers/{shop.id}"

    async def earned() -> bool:
        await chain.mine()
        shown = await gateway.client.get(f"{path}/earnings", headers=owner.headers)
        return shown.json()["data"][0]["available_atomic"] == PRICE - PRICE // 10

    await until(earned)
    await desk.suspend("publisher", shop.slug, "sells what is not its own")
    body = {"asset_id": str(SEPOLIA_USDC)}
    made = await gateway.client.post(f"{path}/payouts", json=body, headers=owner.headers)
    assert made.status_code == 201, made.text
    for _ in range(10):
        await chain.mine()
        await asyncio.sleep(0.2)  # several rounds of the relayer: it would have been sent by now
    waiting = (await gateway.client.get(f"{path}/payouts", headers=owner.headers)).json()["data"][0]
    assert (waiting["status"], await chain.usdc_of(wallet)) == ("queued", 0)
    assert "operator: sells what is not its own. It is sent once" in str(waiting)
    await desk.restore("publisher", shop.slug)

    async def completed() -> bool:
        await chain.mine()
        listed = await gateway.client.get(f"{path}/payouts", headers=owner.headers)
        return listed.json()["data"][0]["status"] == "completed"

    await until(completed)
    assert await chain.usdc_of(wallet) == PRICE - PRICE // 10
