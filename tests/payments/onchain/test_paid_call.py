"""A wallet without an account buys a call: asked, signed, forwarded, settled, booked, and answered the same again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from gateway.analytics.endpoints import REVENUE
from gateway.analytics.rollups import REBUILD, differences
from gateway.database.pool import Connection
from tests.payments.onchain.buyer import PRICE, decoded, settled
from tests.payments.onchain.conftest import Buying, chained
from tests.support.chain import Chain
from tests.support.flaky_node import flaky_node
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World


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


async def test_a_payment_goes_before_an_api_keys_balance(
    buying: Buying, shop: Shop, world: World, gateway: RunningGateway
) -> None:
    buyer, agent = await buying(), await world.agent(PRICE)
    path = f"/publishers/{shop.slug}/x"
    required = await buyer.asked(path)
    paid = await gateway.client.get(path, headers={**agent.headers, **buyer.payment(required)})
    assert paid.status_code == 200
    assert (await buyer.balance(), await world.balance(agent)) == (9 * PRICE, PRICE)
    prepaid = await gateway.client.get(path, headers=agent.headers)
    assert (prepaid.status_code, "payment-response" in prepaid.headers) == (200, False)
    assert (await buyer.balance(), await world.balance(agent)) == (9 * PRICE, 0)


async def test_an_api_key_without_funds_is_offered_both_ways_and_may_take_either(
    buying: Buying, shop: Shop, world: World, gateway: RunningGateway
) -> None:
    buyer, agent = await buying(), await world.agent(1)
    path = f"/publishers/{shop.slug}/x"
    asked = await gateway.client.get(path, headers=agent.headers)
    body = asked.json()
    assert (asked.status_code, body["x402Version"]) == (402, 2)
    assert [one["scheme"] for one in body["accepts"]] == ["prepaid", "exact"]
    assert (body["accepts"][0]["extra"]["deficit"], body["availableBalanceAtomic"]) == ("0.009999", 1)
    assert body["seren"]["publisher_id"] == str(shop.id)
    header = buyer.payment(decoded(asked.headers["payment-required"]))
    assert (await gateway.client.get(path, headers={**agent.headers, **header})).status_code == 200
    assert await world.balance(agent) == 1


async def test_what_is_free_takes_no_payment(buying: Buying, world: World, upstream: RecordingUpstream) -> None:
    endpoints = [{"method": "GET", "path": "/free", "price": "0"}]
    shop = await world.publisher(PRICE, SEPOLIA_USDC, endpoints=endpoints)
    buyer = await buying()
    header = buyer.payment(await buyer.asked(f"/publishers/{shop.slug}/dear"))
    answer = await buyer.client.get(f"/publishers/{shop.slug}/free", headers=header)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0")
    assert "payment-response" not in answer.headers
    assert await buyer.balance() == 10 * PRICE


async def test_an_endpoints_price_is_what_is_asked_for(buying: Buying, world: World, connection: Connection) -> None:
    endpoints = [{"method": "GET", "path": "/dear", "price": "0.5"}]
    shop = await world.publisher(PRICE, SEPOLIA_USDC, endpoints=endpoints)
    buyer = await buying()
    for path, amount in (("dear", "500000"), ("DEAR/", "500000"), ("other", str(PRICE))):
        assert (await buyer.asked(f"/publishers/{shop.slug}/{path}"))["accepts"][0]["amount"] == amount


async def test_while_the_node_is_away_nothing_is_taken_and_nothing_runs(
    services: Services, database_url: str, chain: Chain, buying: Buying, shop: Shop, upstream: RecordingUpstream
) -> None:
    async with flaky_node(chain.url) as node:
        gateway = await start_gateway(
            services, database_url, **chained(chain, **{f"CHAIN_{chain.chain_id}_RPC": node.url})
        )
        try:
            buyer = await buying(url=gateway.url)
            path = f"/publishers/{shop.slug}/x"
            header = buyer.payment(await buyer.asked(path))
            node.mode = "down"
            answer = await buyer.client.get(path, headers=header)
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
            assert upstream.calls == 0
            node.mode = "ok"
            assert (await buyer.client.get(path, headers=header)).status_code == 200
            assert (upstream.calls, await buyer.balance()) == (1, 9 * PRICE)
        finally:
            await gateway.stop()


async def test_a_payment_counts_towards_no_budget_and_an_exhausted_budget_asks_for_none(
    gateway: RunningGateway, buying: Buying, shop: Shop, world: World, upstream: RecordingUpstream
) -> None:
    agent, buyer, path = await world.agent(10 * PRICE), await buying(), f"/publishers/{shop.slug}/x"
    body = {"name": "limited", "budget": {"per_call": "0.001", "per_day": "0.001"}}
    made = await gateway.client.post("/organizations/default/api-keys", headers=agent.headers, json=body)
    limited = {"Authorization": f"Bearer {made.json()['data']['api_key']}"}
    refused = await gateway.client.get(path, headers=limited)
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/budget-exceeded")
    assert "payment-required" not in refused.headers
    paid = await gateway.client.get(path, headers={**limited, **buyer.payment(await buyer.asked(path))})
    assert (paid.status_code, paid.headers["x-cost"], upstream.calls) == (200, "0.01", 1)
    shown = (await gateway.client.get("/wallet/budget", headers=limited)).json()["data"]["budget"]
    assert (shown["spent_today"], await world.balance(agent)) == ("0", 10 * PRICE)


async def test_a_gateway_without_a_chain_asks_and_answers_as_if_there_were_no_payments(
    services: Services, database_url: str, shop: Shop, buying: Buying, world: World, upstream: RecordingUpstream
) -> None:
    gateway, agent = await start_gateway(services, database_url), await world.agent(10 * PRICE)
    try:
        buyer = await buying()
        path = f"/publishers/{shop.slug}/x"
        header = buyer.payment(await buyer.asked(path))
        answer = await gateway.client.get(path, headers=header)
        body = answer.json()
        assert (answer.status_code, body["x402Version"]) == (402, 2)
        assert [one["scheme"] for one in body["accepts"]] == ["prepaid"]
        assert "payment-required" not in answer.headers
        bought = await gateway.client.get(path, headers={**agent.headers, **header})
        assert (bought.status_code, bought.headers["x-balance"]) == (200, "0.09")
        assert (await buyer.balance(), upstream.calls) == (10 * PRICE, 1)
    finally:
        await gateway.stop()


async def test_a_payment_counts_for_the_endpoint_that_it_bought(
    buying: Buying, world: World, connection: Connection
) -> None:
    endpoints = [{"method": "GET", "path": "/v1/items/{id}"}]
    shop = await world.publisher(PRICE, SEPOLIA_USDC, endpoints=endpoints, gateway_fee_percent="10")
    buyer = await buying()
    assert (await buyer.buy(f"/publishers/{shop.slug}/v1/items/7")).status_code == 200
    await settled(connection)
    days = datetime.now(UTC).date() - timedelta(days=1), datetime.now(UTC).date()
    for _ in range(2):
        (found,) = await REVENUE.all(connection, shop.account_id, *days, 10)
        assert (found.method, found.endpoint) == ("GET", "/v1/items/{id}")
        assert (found.calls, found.spent, found.fee) == (1, PRICE, PRICE // 10)
        await REBUILD.run(connection)
    assert await differences(connection) == []
