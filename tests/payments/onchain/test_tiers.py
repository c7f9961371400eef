"""tiered for wallets without an account: the dearest price, and no place in anybody's month."""

from __future__ import annotations

import pytest

from gateway.database.pool import Connection
from tests.payments.onchain.buyer import PRICE, decoded
from tests.payments.onchain.conftest import Buying
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World

CHEAP = PRICE // 4


@pytest.fixture
async def tiered(world: World, upstream: RecordingUpstream) -> Shop:
    """A publisher with a free call, one for PRICE, and cheaper ones."""
    upstream.forget()
    tiers = [{"up_to": 1, "price": "0"}, {"up_to": 2, "price": "0.01"}, {"price": "0.0025"}]
    return await world.publisher(None, SEPOLIA_USDC, price_tiers=tiers, pricing_model="tiered")


async def test_a_wallet_pays_the_dearest_price_each_time_and_is_not_counted(
    buying: Buying, tiered: Shop, upstream: RecordingUpstream, world: World, connection: Connection
) -> None:
    buyer = await buying()
    path = f"/publishers/{tiered.slug}/x"
    for _ in range(3):
        answer = await buyer.buy(path)
        assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.01")
    assert (await buyer.balance(), await world.earned(tiered), upstream.calls) == (7 * PRICE, 3 * PRICE, 3)
    assert await connection.fetchval("SELECT count(*) FROM ledger.counter WHERE subject = $1", tiered.id) == 0


async def test_the_price_of_another_place_buys_nothing(
    buying: Buying, tiered: Shop, upstream: RecordingUpstream
) -> None:
    buyer = await buying()
    path = f"/publishers/{tiered.slug}/x"
    required = await buyer.asked(path)
    for offer in required["accepts"]:
        if offer["scheme"] == "exact":
            offer["amount"] = str(CHEAP)
    answer = await buyer.client.get(path, headers=buyer.payment(required))
    assert answer.status_code == 402
    assert (await buyer.balance(), upstream.calls) == (10 * PRICE, 0)


async def test_who_has_a_key_is_asked_for_its_place_from_a_balance_and_for_the_dearest_on_a_chain(
    buying: Buying, tiered: Shop, world: World, connection: Connection
) -> None:
    buyer, agent = await buying(), await world.agent(PRICE)
    path = f"/publishers/{tiered.slug}/x"
    for cost in ("0", "0.01"):
        answer = await buyer.client.get(path, headers=agent.headers)
        assert (answer.status_code, answer.headers["x-cost"]) == (200, cost)
    refused = await buyer.client.get(path, headers=agent.headers)
    assert refused.status_code == 402
    asked = {offer["scheme"]: offer for offer in refused.json()["accepts"]}
    assert asked["prepaid"]["amount"] == str(CHEAP)
    required = decoded(refused.headers["payment-required"])
    assert [offer["amount"] for offer in required["accepts"] if offer["scheme"] == "exact"] == [str(PRICE)]
    paid = await buyer.client.get(path, headers={**agent.headers, **buyer.payment(required)})
    assert (paid.status_code, paid.headers["x-cost"]) == (200, "0.01")
    assert await connection.fetchval("SELECT value::int FROM ledger.counter WHERE subject = $1", tiered.id) == 2
