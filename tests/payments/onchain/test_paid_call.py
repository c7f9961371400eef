"""A wallet without an account buys a call: asked, signed, forwarded, settled, booked, and answered the same again."""

from __future__ import annotations

import asyncio

from gateway.database.pool import Connection
from tests.payments.onchain.buyer import PRICE, decoded
from tests.payments.onchain.conftest import Buying
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Shop, World


async def test_a_call_is_paid_on_the_chain_and_booked(
    buying: Buying, shop: Shop, chain: Chain, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    buyer = await buying()
    treasury = await chain.usdc_of(chain.treasury)
    answer = await buyer.buy(f"/publishers/{shop.slug}/v1/data?q=1")
    assert answer.status_code == 200, answer.text
    assert answer.json()["target"] == "/v1/data?q=1"
    response = decoded(answer.headers["payment-response"])
    assert (response["success"], response["network"], response["amount"]) == (True, chain.network, str(PRICE))
    assert response["payer"] == buyer.address
    receipt = await chain.rpc("eth_getTransactionReceipt", response["transaction"])
    assert receipt["status"] == "0x1"
    assert (answer.headers["x-cost"], answer.headers["x-cost-asset"]) == ("0.01", "USDC")
    assert answer.headers["cache-control"] == "private"
    assert "x-balance" not in answer.headers
    assert (await buyer.balance(), await chain.usdc_of(chain.treasury)) == (9 * PRICE, treasury + PRICE)
    assert await world.earned(shop) == PRICE - PRICE // 10
    assert upstream.calls == 1
    assert [name for name, _ in upstream.requests[0].headers if "payment" in name] == []


async def test_version_1_pays_as_well(buying: Buying, shop: Shop, upstream: RecordingUpstream) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/x"
    answer = await buyer.client.get(path)
    body = answer.json()
    assert (answer.status_code, body["x402Version"]) == (402, 1)
    assert body["accepts"][0]["maxAmountRequired"] == str(PRICE)
    paid = await buyer.client.get(path, headers=buyer.payment_v1(body))
    assert paid.status_code == 200, paid.text
    response = decoded(paid.headers["x-payment-response"])
    assert response == {
        "success": True, "transaction": response["transaction"], "network": "base-sepolia", "payer": buyer.address
    }  # fmt: skip
    assert "payment-response" not in paid.headers
    assert (await buyer.balance(), upstream.calls) == (9 * PRICE, 1)


async def test_the_same_payment_again_gets_the_same_answer(
    buying: Buying, shop: Shop, upstream: RecordingUpstream
) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/x?a=1"
    header = buyer.payment(await buyer.asked(path))
    first = await buyer.client.get(path, headers=header)
    again = [await buyer.client.get(path, headers=header) for _ in range(3)]
    assert first.status_code == 200
    for answer in again:
        assert (answer.status_code, answer.content) == (200, first.content)
        assert answer.headers["idempotency-replayed"] == "true"
        assert answer.headers["payment-response"] == first.headers["payment-response"]
        assert answer.headers["x-request-id"] == first.headers["x-request-id"]
        assert answer.headers["x-cost"] == "0"
    assert (await buyer.balance(), upstream.calls) == (9 * PRICE, 1)


async def test_fifty_copies_at_once_are_one_transfer_one_call_and_one_answer(
    buying: Buying, shop: Shop, upstream: RecordingUpstream, world: World
) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/x?ms=300"
    header = buyer.payment(await buyer.asked(path))
    answers = await asyncio.gather(*(buyer.client.get(path, headers=header) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert (await buyer.balance(), upstream.calls, await world.earned(shop)) == (9 * PRICE, 1, 9_000)


async def test_a_post_with_a_body_is_forwarded_whole(buying: Buying, shop: Shop, upstream: RecordingUpstream) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/things"
    header = buyer.payment(await buyer.asked(path, "POST", content=b"body"))
    answer = await buyer.client.post(path, content=b"body", headers=header)
    assert answer.status_code == 200, answer.text
    assert upstream.requests[-1].body == b"body"
    other = await buyer.client.post(path, content=b"other", headers=header)
    assert (other.status_code, other.json()["error"]) == (402, "invalid_exact_evm_nonce_already_used")
    assert (await buyer.balance(), upstream.calls) == (9 * PRICE, 1)


async def test_a_failing_publisher_costs_nothing_and_the_authorization_stays_good(
    buying: Buying, shop: Shop, upstream: RecordingUpstream, world: World, connection: Connection
) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/status/503"
    header = buyer.payment(await buyer.asked(path))
    for calls in (1, 2):
        answer = await buyer.client.get(path, headers=header)
        assert (answer.status_code, answer.headers["x-cost"], upstream.calls) == (503, "0", calls)
        assert "payment-response" not in answer.headers
    assert (await buyer.balance(), await world.earned(shop)) == (10 * PRICE, 0)
    states = await connection.fetch(
        "SELECT state::text, reason FROM chain.payment WHERE payer = $1", buyer.wallet.address
    )
    assert [tuple(row) for row in states] == [("cancelled", "upstream_5xx")]


async def test_a_gateway_without_a_chain_asks_as_it_did(gateway: RunningGateway, shop: Shop) -> None:
    answer = await gateway.client.get(f"/publishers/{shop.slug}/x")
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.headers["payment-required"]) < 8_192
