"""Automatic refunds of calls that are paid on a chain: never submitted, or sent back, by when they are settled."""

from __future__ import annotations

import pytest

from gateway.database.pool import Connection
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE
from tests.payments.onchain.conftest import Buying
from tests.support.chain import Chain
from tests.support.world import SEPOLIA_USDC, World

FAILS = {"error_at": "ok"}


@pytest.mark.parametrize("policy", ["settle_first", "before_response", "deferred"])
async def test_what_its_rules_give_back_costs_nothing_under_every_policy(
    policy: str, buying: Buying, world: World, connection: Connection, chain: Chain
) -> None:
    fields = {"gateway_fee_percent": "10", "x402_settlement": policy, "refund_rules": FAILS}
    shop, buyer = await world.publisher(PRICE, SEPOLIA_USDC, **fields), await buying()
    asked = await buyer.client.get(f"/publishers/{shop.slug}/x")
    assert asked.json()["seren"]["refund_rules"] == FAILS
    answer = await buyer.buy(f"/publishers/{shop.slug}/x")
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0"), answer.text

    async def back() -> bool:
        await chain.mine(8)  # what goes back waits until the payment is final
        return await buyer.balance() == 10 * PRICE

    await until(back)
    assert await world.earned(shop) == 0
    found = await connection.fetchrow(
        "SELECT p.state::text, coalesce(r.reason, p.reason) AS reason FROM chain.payment p"
        " LEFT JOIN chain.repayment r ON r.payment_id = p.id WHERE p.payer = $1",
        buyer.wallet.address,
    )
    assert found is not None
    sent = policy == "settle_first"
    assert tuple(found) == ("confirmed" if sent else "cancelled", "refund_rule_error")


@pytest.mark.parametrize("policy", ["settle_first", "before_response", "deferred"])
async def test_a_redirect_costs_nothing_under_every_policy(
    policy: str, buying: Buying, world: World, connection: Connection, chain: Chain
) -> None:
    fields = {"gateway_fee_percent": "10", "x402_settlement": policy}
    shop, buyer = await world.publisher(PRICE, SEPOLIA_USDC, **fields), await buying()
    answer = await buyer.buy(f"/publishers/{shop.slug}/status/307")
    assert (answer.status_code, answer.headers["x-cost"]) == (307, "0"), answer.text

    async def back() -> bool:
        await chain.mine(8)
        return await buyer.balance() == 10 * PRICE

    await until(back)
    assert await world.earned(shop) == 0
    reason = await connection.fetchval(
        "SELECT coalesce(r.reason, p.reason) FROM chain.payment p LEFT JOIN chain.repayment r ON r.payment_id = p.id"
        " WHERE p.payer = $1",
        buyer.wallet.address,
    )
    assert reason == "redirect"
