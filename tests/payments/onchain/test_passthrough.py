"""A publisher whose server sells by x402 itself, which is this gateway once more: it is paid, and the relay is not."""

from __future__ import annotations

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.payments.onchain.buyer import PRICE, decoded, settled
from tests.payments.onchain.conftest import Buying
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World


@pytest_asyncio.fixture
async def relay(gateway: RunningGateway, world: World, shop: Shop) -> Shop:
    """A publisher that relays to the shop."""
    return await world.publisher(
        None, api_url=f"{gateway.url}/publishers/{shop.slug}", billing_model="x402_passthrough",
        pricing_model="passthrough",
    )  # fmt: skip


async def test_offers_payments_and_settlements_go_through_untouched(
    relay: Shop, shop: Shop, world: World, buying: Buying, upstream: RecordingUpstream, connection: Connection
) -> None:
    buyer = await buying()
    asked = await buyer.client.get(f"/publishers/{relay.slug}/x")
    direct = await buyer.client.get(f"/publishers/{shop.slug}/x")
    assert (asked.status_code, asked.headers["x-cost"]) == (402, "0")
    offers, same = decoded(asked.headers["payment-required"]), decoded(direct.headers["payment-required"])
    assert (offers["accepts"], offers["resource"]) == (same["accepts"], same["resource"])
    header = buyer.payment(offers) | {"Idempotency-Key": "a-key-of-the-upstream's"}
    paid = await buyer.client.get(f"/publishers/{relay.slug}/x", headers=header)
    assert (paid.status_code, paid.headers["x-cost"]) == (200, "0"), paid.text
    assert decoded(paid.headers["payment-response"])["success"] is True
    assert "private" in paid.headers["cache-control"]
    await settled(connection)
    assert (await buyer.balance(), await world.earned(shop), await world.earned(relay)) == (9 * PRICE, 9_000, 0)
    again = await buyer.client.get(f"/publishers/{relay.slug}/x", headers=header)
    assert (again.content, again.headers["payment-response"]) == (paid.content, paid.headers["payment-response"])
    assert upstream.calls == 1
    assert await buyer.balance() == 9 * PRICE


async def test_an_ordinary_publisher_sees_no_payment_and_names_none(
    world: World, buying: Buying, upstream: RecordingUpstream
) -> None:
    free, buyer = await world.publisher(0, SEPOLIA_USDC), await buying()
    upstream.forget()
    upstream.extra_headers = [("PAYMENT-RESPONSE", "forged")]
    try:
        answer = await buyer.client.get(f"/publishers/{free.slug}/x", headers={"PAYMENT-SIGNATURE": "e30="})
    finally:
        upstream.extra_headers = []
    assert answer.status_code == 200
    assert "payment-response" not in answer.headers
    assert not upstream.requests[-1].all("payment-signature")


@pytest.mark.parametrize("key", [False, True])
async def test_a_call_with_an_api_key_is_relayed_without_it(
    key: bool, relay: Shop, world: World, buying: Buying, upstream: RecordingUpstream
) -> None:
    agent, buyer = await world.agent(1_000_000, SEPOLIA_USDC), await buying()
    headers = agent.headers | ({"Idempotency-Key": "k"} if key else {})
    for _ in range(2):
        answer = await buyer.client.get(f"/publishers/{relay.slug}/x", headers=headers)
        assert (answer.status_code, answer.headers["x-cost"]) == (402, "0")
    assert await world.balance(agent) == 1_000_000
    assert upstream.calls == 0
