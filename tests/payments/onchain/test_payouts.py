"""From a call that is paid on the chain to the money in the publisher's wallet, over HTTP only."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest_asyncio

from gateway.database.pool import Connection
from gateway.payments.evm.encoding import show_address
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE
from tests.payments.onchain.conftest import Buying, chained
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, World


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str, chain: Chain) -> AsyncIterator[RunningGateway]:
    """A gateway that holds nothing back."""
    rules = {"PAYOUTS_HOLDBACK": "0", "PAYOUTS_MINIMUM": "1"}
    running = await start_gateway(services, database_url, **chained(chain, **rules))
    yield running
    await running.stop()


async def test_what_was_sold_is_paid_out_and_told(
    buying: Buying, world: World, gateway: RunningGateway, chain: Chain, connection: Connection,
    upstream: RecordingUpstream,
) -> None:  # fmt: skip
    wallet = (await chain.wallet()).address
    shop, owner = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10"), await world.agent()
    await connection.execute(
        "UPDATE catalog.publisher SET organization_id = $2, wallet_address = $3, wallet_network_id = $4 WHERE id = $1",
        shop.id, owner.organization_id, show_address(wallet), chain.network,
    )  # fmt: skip
    buyer = await buying()
    assert (await buyer.buy(f"/publishers/{shop.slug}/x")).status_code == 200
    path, headers = f"/organizations/{owner.organization_id}/publishers/{shop.id}", owner.headers

    async def got(rest: str) -> Any:
        return (await gateway.client.get(path + rest, headers=headers)).json()["data"]

    async def earned() -> bool:
        await chain.mine()  # a payment that is not final is not paid out
        return (await got("/earnings"))[0]["available_atomic"] == PRICE - PRICE // 10

    await until(earned)
    body = {"asset_id": str(SEPOLIA_USDC)}
    made = await gateway.client.post(f"{path}/payouts", json=body, headers=headers)
    assert made.status_code == 201, made.text

    async def completed() -> bool:
        await chain.mine()
        return (await got("/payouts"))[0]["status"] == "completed"

    await until(completed)
    payout = (await got("/payouts"))[0]
    assert re.fullmatch(r"0x[0-9a-f]{64}", payout["tx_hash"])
    assert await chain.usdc_of(wallet) == payout["amount_atomic"] == PRICE - PRICE // 10
    shown = (await got("/earnings"))[0]
    assert [shown[name] for name in ("available_atomic", "pending_payout_atomic", "total_withdrawn_atomic")] == [
        0, 0, PRICE - PRICE // 10,
    ]  # fmt: skip
    logged = await connection.fetch(
        "SELECT action FROM audit.entry WHERE resource_id = $1 ORDER BY seq", UUID(payout["id"])
    )
    assert [row["action"] for row in logged] == ["payout.create", "payout.complete"]
    text = (await gateway.client.get("/metrics")).text
    assert f'tollway_payouts{{network="{chain.network}",state="processing"}}' in text
