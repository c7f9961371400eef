"""Use paid by a wallet: the most is signed; `exact` moves it, `upto` moves what the answer came to."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.database.pool import Connection
from gateway.payments.evm.encoding import parse_address
from tests.payments.onchain.buyer import Buyer, Document, decoded, encoded, settled
from tests.payments.onchain.conftest import Buying
from tests.payments.onchain.test_queries import permitted
from tests.support.chain import Chain
from tests.support.chat import ChatUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World

DOLLAR, MOST = 1_000_000, 100_000
PATH = "/v1/chat/completions"


async def shop_of(world: World, chat: ChatUpstream, **fields: Any) -> Shop:
    document = {
        "api_url": chat.url, "billing_model": "pay_per_use", "gateway_fee_percent": "10", "reserve_max_charge": "0.10",
        "unresolved_fallback_charge": "0.02", "upstream_cost_response_path": "usage.cost", **fields,
    }  # fmt: skip
    return await world.publisher(None, SEPOLIA_USDC, **document)


def asking(**fields: Any) -> Document:
    return {"model": "echo-1", "messages": [{"role": "user", "content": "one two"}], **fields}


def upto(buyer: Buyer, required: Document) -> dict[str, str]:
    (offer,) = [one for one in required["accepts"] if one["scheme"] == "upto"]
    signed = buyer.chain.permit(
        buyer.wallet, parse_address(offer["payTo"]), int(offer["amount"]), method="permit2_upto",
        facilitator=parse_address(offer["extra"]["facilitatorAddress"]), seconds=offer["maxTimeoutSeconds"],
    )  # fmt: skip
    return {"PAYMENT-SIGNATURE": encoded({"x402Version": 2, "payload": permitted(signed, offer), "accepted": offer})}


STREAM = {"stream": True, "stream_options": {"include_usage": True}, "x_mode": "slow"}


@pytest.mark.parametrize("policy", ["settle_first", "before_response", "deferred"])
@pytest.mark.parametrize("body", [asking(x_cost=0.03), asking(x_cost=0.03, **STREAM)])
async def test_upto_moves_what_the_answer_came_to(
    policy: str, body: Document, world: World, buying: Buying, chain: Chain, chat: ChatUpstream, connection: Connection
) -> None:
    shop, buyer, before = await shop_of(world, chat, x402_settlement=policy), await buying(DOLLAR), len(chat.bodies)
    await chain.allow_permit2(buyer.wallet)
    path = f"/publishers/{shop.slug}{PATH}"
    required = await buyer.asked(path, "POST", json=body)
    assert {(one["scheme"], one["amount"]) for one in required["accepts"]} == {
        ("exact", str(MOST)), ("upto", str(MOST))
    }  # fmt: skip
    header = upto(buyer, required)
    answer = await buyer.client.post(path, json=body, headers=header)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.033"), answer.text
    assert decoded(answer.headers["payment-response"])["amount"] == "33000"
    await settled(connection)
    assert (await buyer.balance(), await world.earned(shop)) == (DOLLAR - 33_000, 30_000)
    again = await buyer.client.post(path, json=body, headers=header)
    assert (again.content, len(chat.bodies)) == (answer.content, before + 1)
    assert await buyer.balance() == DOLLAR - 33_000


@pytest.mark.parametrize("body", [asking(x_cost=0), asking(x_mode="fail")])
async def test_upto_moves_nothing_where_nothing_is_due(
    body: Document, world: World, buying: Buying, chain: Chain, chat: ChatUpstream, connection: Connection
) -> None:
    shop, buyer = await shop_of(world, chat), await buying(DOLLAR)
    await chain.allow_permit2(buyer.wallet)
    path = f"/publishers/{shop.slug}{PATH}"
    answer = await buyer.client.post(path, json=body, headers=upto(buyer, await buyer.asked(path, "POST", json=body)))
    assert (answer.status_code, answer.headers["x-cost"]) == (500 if "x_mode" in body else 200, "0")
    await settled(connection)
    assert (await buyer.balance(), await world.earned(shop)) == (DOLLAR, 0)


async def test_exact_moves_the_most_that_was_stated(
    world: World, buying: Buying, chat: ChatUpstream, connection: Connection
) -> None:
    shop, buyer = await shop_of(world, chat), await buying(DOLLAR)
    answer = await buyer.buy(f"/publishers/{shop.slug}{PATH}", "POST", json=asking(x_cost=0.03))
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.1"), answer.text
    await settled(connection)
    assert (await buyer.balance(), await world.earned(shop)) == (DOLLAR - MOST, MOST - MOST * 10 // 110)
