"""When a payment is settled, by policy: before the publisher hears of the call, before the answer goes out, or after."""

from __future__ import annotations

import asyncio

import pytest

from gateway.database.pool import Connection
from gateway.payments.evm.encoding import parse_address
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE, Buyer, decoded
from tests.payments.onchain.conftest import Buying, chained
from tests.support.chain import Chain
from tests.support.gateway import start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World

PUBLISHER = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
POLICIES = ["settle_first", "before_response", "deferred"]


async def shop_of(world: World, upstream: RecordingUpstream, settlement: str, **document: object) -> Shop:
    upstream.forget()
    fields = {"gateway_fee_percent": "10", "x402_settlement": settlement, **document}
    return await world.publisher(PRICE, SEPOLIA_USDC, **fields)


async def state_of(connection: Connection, payer: bytes) -> list[str]:
    rows = await connection.fetch("SELECT state::text FROM chain.payment WHERE payer = $1 ORDER BY id", payer)
    return [row["state"] for row in rows]


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_call_is_paid_under_every_policy(
    policy: str, buying: Buying, world: World, upstream: RecordingUpstream
) -> None:
    shop, buyer = await shop_of(world, upstream, policy), await buying()
    answer = await buyer.buy(f"/publishers/{shop.slug}/x")
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.01"), answer.text
    assert decoded(answer.headers["payment-response"])["success"] is True

    async def paid() -> bool:
        return await world.earned(shop) == 9_000

    await until(paid)
    assert (await buyer.balance(), upstream.calls) == (9 * PRICE, 1)


async def test_settle_first_the_publisher_hears_of_it_when_the_money_is_there(
    buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain, connection: Connection
) -> None:
    shop, buyer = await shop_of(world, upstream, "settle_first"), await buying()
    async with chain.held_blocks():
        call = asyncio.create_task(buyer.buy(f"/publishers/{shop.slug}/x"))

        async def sent() -> bool:
            return await state_of(connection, buyer.wallet.address) == ["broadcast"]

        await until(sent)
        await asyncio.sleep(0.3)
        assert upstream.calls == 0
    answer = await call
    assert answer.status_code == 200
    assert decoded(answer.headers["payment-response"])["transaction"].startswith("0x")
    assert upstream.calls == 1


@pytest.mark.parametrize("path", ["status/500", "reset", "cut"])
async def test_settle_first_the_money_comes_back_when_the_publisher_fails(
    path: str, buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain
) -> None:
    shop, buyer = await shop_of(world, upstream, "settle_first"), await buying()
    required = await buyer.asked(f"/publishers/{shop.slug}/{path}")
    header = buyer.payment(required)
    try:
        answer = await buyer.client.get(f"/publishers/{shop.slug}/{path}", headers=header)
        assert answer.status_code >= 500
        assert answer.headers["x-cost"] == "0"
    except Exception:
        assert path == "cut", "only an answer that had begun may break off"
    calls = upstream.calls  # a safe request on a kept connection that was reset is sent once more
    assert calls <= (2 if path == "reset" else 1)
    await chain.mine(8)  # what goes back waits until the payment is final

    async def returned() -> bool:
        await chain.mine()
        return await buyer.balance() == 10 * PRICE

    await until(returned)
    assert await world.earned(shop) == 0
    again = await buyer.client.get(f"/publishers/{shop.slug}/{path}", headers=header)
    assert (again.status_code, upstream.calls) == (402, calls)
    assert "goes back" in again.json()["detail"]


async def test_before_response_nobody_has_the_answer_before_the_money_has_moved(
    buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain
) -> None:
    shop, buyer = await shop_of(world, upstream, "before_response"), await buying()
    async with chain.held_blocks():
        call = asyncio.create_task(buyer.buy(f"/publishers/{shop.slug}/x"))

        async def forwarded() -> bool:
            return upstream.calls == 1

        await until(forwarded)
        await asyncio.sleep(0.5)
        assert not call.done()
    assert (await call).status_code == 200


async def test_deferred_the_answer_is_there_before_the_money_has_moved(
    buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain
) -> None:
    shop, buyer = await shop_of(world, upstream, "deferred"), await buying()
    async with chain.held_blocks():
        answer = await buyer.buy(f"/publishers/{shop.slug}/x")
        assert answer.status_code == 200
        response = decoded(answer.headers["payment-response"])
        assert (response["success"], response["transaction"], response["amount"]) == (True, "", str(PRICE))
        assert await buyer.balance() == 10 * PRICE


async def test_deferred_trust_ends_at_the_cap_and_the_next_call_waits_for_its_settlement(
    buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain
) -> None:
    shop = await shop_of(world, upstream, "deferred", x402_exposure="0.025")
    buyer, other = await buying(), await buying()
    path = f"/publishers/{shop.slug}/x"
    async with chain.held_blocks():
        assert [(await buyer.buy(path)).status_code for _ in range(2)] == [200, 200]
        third = asyncio.create_task(buyer.buy(path))
        await asyncio.sleep(1)
        assert not third.done()
        assert (await other.buy(path)).status_code == 200, "another wallet has trust of its own"
    assert (await third).status_code == 200


async def test_deferred_what_was_delivered_and_not_paid_uses_up_the_trust(
    buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain, connection: Connection
) -> None:
    shop = await shop_of(world, upstream, "deferred", x402_exposure="0.01")
    buyer = await buying()
    path = f"/publishers/{shop.slug}/x"
    async with chain.held_blocks():
        assert (await buyer.buy(path)).status_code == 200
        await chain.give_away(buyer.wallet, 10 * PRICE)

    async def failed() -> bool:
        return await state_of(connection, buyer.wallet.address) == ["failed"]

    await until(failed)
    await chain.give(buyer.wallet.address, 10 * PRICE)
    async with chain.held_blocks():
        second = asyncio.create_task(buyer.buy(path))
        await asyncio.sleep(1)
        assert not second.done(), "no second answer on trust"
    assert (await second).status_code == 200


async def test_deferred_an_authorization_that_ends_soon_is_not_trusted(
    buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain
) -> None:
    shop, buyer = await shop_of(world, upstream, "deferred"), await buying()
    path = f"/publishers/{shop.slug}/x"
    required = await buyer.asked(path)
    header = buyer.payment(required, buyer.sign(required["accepts"][0], seconds=30))
    async with chain.held_blocks():
        call = asyncio.create_task(buyer.client.get(path, headers=header))
        await asyncio.sleep(1)
        assert not call.done()
    assert (await call).status_code == 200


async def test_an_endpoint_may_have_a_policy_of_its_own(
    buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain
) -> None:
    endpoints = [{"method": "GET", "path": "/cheap", "x402_settlement": "deferred"}]
    shop, buyer = await shop_of(world, upstream, "before_response", endpoints=endpoints), await buying()
    async with chain.held_blocks():
        assert (await buyer.buy(f"/publishers/{shop.slug}/cheap")).status_code == 200
        dear = asyncio.create_task(buyer.buy(f"/publishers/{shop.slug}/dear"))
        await asyncio.sleep(0.7)
        assert not dear.done()
    assert (await dear).status_code == 200


@pytest.mark.parametrize("policy", ["before_response", "deferred"])
async def test_without_a_fee_the_publisher_is_paid_on_its_own_address(
    policy: str, buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain
) -> None:
    fields = {"gateway_fee_percent": "0", "wallet_address": PUBLISHER.lower(), "wallet_network_id": chain.network}
    shop, buyer = await shop_of(world, upstream, policy, **fields), await buying()
    before = await chain.usdc_of(bytes.fromhex(PUBLISHER[2:]))
    required = await buyer.asked(f"/publishers/{shop.slug}/x")
    assert required["accepts"][0]["payTo"] == PUBLISHER
    answer = await buyer.client.get(f"/publishers/{shop.slug}/x", headers=buyer.payment(required))
    assert answer.status_code == 200, answer.text

    async def received() -> bool:
        return await chain.usdc_of(bytes.fromhex(PUBLISHER[2:])) == before + PRICE

    await until(received)
    assert await world.earned(shop) == 0, "earned, and received: nothing is owed"


@pytest.mark.parametrize(
    "fields",
    [
        {"gateway_fee_percent": "0.5"},
        {"wallet_network_id": "eip155:8453"},
        {"x402_settlement": "settle_first"},
    ],
)
async def test_what_has_a_fee_or_may_have_to_go_back_goes_through_the_treasury(
    fields: dict[str, str], buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain
) -> None:
    base = {"gateway_fee_percent": "0", "wallet_address": PUBLISHER, "wallet_network_id": chain.network}
    shop = await shop_of(world, upstream, "before_response", **{**base, **fields})
    required = await (await buying()).asked(f"/publishers/{shop.slug}/x")
    assert bytes.fromhex(required["accepts"][0]["payTo"][2:]) == chain.treasury


async def test_with_a_treasury_elsewhere_nothing_is_settled_first_because_nothing_could_go_back(
    services: Services, database_url: str, world: World, chain: Chain, upstream: RecordingUpstream
) -> None:
    shop = await shop_of(world, upstream, "settle_first")
    treasury = (await chain.wallet()).address
    apart = await start_gateway(services, database_url, **chained(chain, CHAIN_TREASURY="0x" + treasury.hex()))
    buyer = Buyer(apart.url, chain, await chain.wallet(10 * PRICE))
    try:
        answer = await buyer.buy(f"/publishers/{shop.slug}/status/500")
        assert (answer.status_code, await buyer.balance()) == (500, 10 * PRICE)
        required = await buyer.asked(f"/publishers/{shop.slug}/x")
        assert parse_address(required["accepts"][0]["payTo"]) == treasury
    finally:
        await buyer.client.aclose()
        await apart.stop()
