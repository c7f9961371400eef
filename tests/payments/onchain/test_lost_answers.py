"""A caller that loses its answer asks again with the same payment, or asks what became of it, and never pays twice."""

from __future__ import annotations

import asyncio
import contextlib
import time

import httpx
import pytest

from gateway.database.pool import Connection
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE, Buyer, decoded
from tests.payments.onchain.conftest import Buying, chained
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World


async def hang_up(buyer: Buyer, path: str, header: dict[str, str], upstream: RecordingUpstream) -> None:
    """Present a payment and leave as soon as the publisher has the call."""
    async with httpx.AsyncClient(base_url=buyer.url) as client:
        call = asyncio.create_task(client.get(path, headers=header))

        async def forwarded() -> bool:
            return upstream.calls == 1

        await until(forwarded)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
            await call


@pytest.mark.parametrize("policy", ["settle_first", "before_response", "deferred"])
@pytest.mark.parametrize("path", ["x?ms=300", "chunks?n=5&pause=100"])
async def test_who_hangs_up_and_presents_the_payment_again_has_the_answer(
    policy: str, path: str, buying: Buying, world: World, upstream: RecordingUpstream
) -> None:
    shop = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10", x402_settlement=policy)
    buyer = await buying()
    where = f"/publishers/{shop.slug}/{path}"
    header = buyer.payment(await buyer.asked(where))
    upstream.forget()
    await hang_up(buyer, where, header, upstream)
    answer = await buyer.client.get(where, headers=header)
    assert answer.status_code == 200, answer.text
    assert answer.headers["idempotency-replayed"] == "true"

    async def earned() -> bool:
        return await world.earned(shop) == 9_000

    await until(earned)
    assert (upstream.calls, await buyer.balance()) == (1, 9 * PRICE)


async def test_a_settlement_that_takes_longer_than_the_caller_is_kept_waiting_is_pending_and_then_there(
    services: Services, database_url: str, chain: Chain, buying: Buying, shop: Shop, upstream: RecordingUpstream,
    world: World,
) -> None:  # fmt: skip
    hasty = await start_gateway(services, database_url, **chained(chain, X402_WAIT="0.5"))
    try:
        buyer = await buying(url=hasty.url)
        path = f"/publishers/{shop.slug}/x"
        header = buyer.payment(await buyer.asked(path))
        async with chain.held_blocks():
            for _ in range(2):
                answer = await buyer.client.get(path, headers=header)
                assert (answer.status_code, answer.json()["type"]) == (503, "/problems/settlement-pending")
                assert int(answer.headers["retry-after"]) >= 1
                assert "payment-required" not in answer.headers, "nobody is asked to pay again"
            payment = answer.json()["payment_id"]
            status = (await buyer.client.get(f"/payments/{payment}")).json()["data"]
            assert (status["state"], status["call"], status["transaction"]) == ("broadcast", "settled", None)

        async def confirmed() -> bool:
            return (await buyer.client.get(f"/payments/{payment}")).json()["data"]["state"] == "confirmed"

        await until(confirmed)
        answer = await buyer.client.get(path, headers=header)
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, payment)
        assert (upstream.calls, await buyer.balance(), await world.earned(shop)) == (1, 9 * PRICE, 9_000)
    finally:
        await hasty.stop()


async def test_settle_first_what_settles_too_late_goes_back(
    services: Services, database_url: str, chain: Chain, buying: Buying, world: World, upstream: RecordingUpstream
) -> None:
    shop = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10", x402_settlement="settle_first")
    hasty = await start_gateway(services, database_url, **chained(chain, X402_WAIT="0.5"))
    upstream.forget()
    try:
        buyer = await buying(url=hasty.url)
        path = f"/publishers/{shop.slug}/x"
        header = buyer.payment(await buyer.asked(path))
        async with chain.held_blocks():
            answer = await buyer.client.get(path, headers=header)
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/settlement-pending")
            again = await buyer.client.get(path, headers=header)
            assert again.status_code == 503

        async def returned() -> bool:
            await chain.mine()
            return await buyer.balance() == 10 * PRICE

        await until(returned)
        last = await buyer.client.get(path, headers=header)
        assert last.status_code == 402
        assert "goes back" in last.json()["detail"]
        assert (upstream.calls, await world.earned(shop)) == (0, 0)
    finally:
        await hasty.stop()


async def test_what_was_bought_is_there_although_the_price_has_changed_and_the_authorization_has_expired(
    buying: Buying, shop: Shop, upstream: RecordingUpstream, connection: Connection
) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/x"
    required = await buyer.asked(path)
    header = buyer.payment(required, buyer.sign(required["accepts"][0], seconds=9))
    first = await buyer.client.get(path, headers=header)
    assert first.status_code == 200
    await connection.execute("UPDATE catalog.pricing SET price_per_call = 77 WHERE publisher_id = $1", shop.id)
    await asyncio.sleep(0.3)
    assert (await buyer.asked(path))["accepts"][0]["amount"] == "77"
    assert (await buyer.client.get(path, headers=header)).content == first.content
    while time.time() < int(decoded(header["PAYMENT-SIGNATURE"])["payload"]["authorization"]["validBefore"]):
        await asyncio.sleep(0.2)
    assert (await buyer.client.get(path, headers=header)).content == first.content
    assert (upstream.calls, await buyer.balance()) == (1, 9 * PRICE)


async def test_an_answer_that_is_not_kept_any_more_is_gone_and_nothing_is_asked_for_again(
    buying: Buying, shop: Shop, upstream: RecordingUpstream, connection: Connection
) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/x"
    header = buyer.payment(await buyer.asked(path))
    assert (await buyer.client.get(path, headers=header)).status_code == 200
    await connection.execute("DELETE FROM ledger.answer")
    again = await buyer.client.get(path, headers=header)
    assert (again.status_code, again.json()["type"]) == (410, "/problems/answer-not-kept")
    assert (upstream.calls, await buyer.balance()) == (1, 9 * PRICE)


async def test_an_answer_too_large_to_keep_is_delivered_once(
    buying: Buying, shop: Shop, upstream: RecordingUpstream
) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/bytes?n=1500000"
    header = buyer.payment(await buyer.asked(path))
    first = await buyer.client.get(path, headers=header)
    assert (first.status_code, len(first.content)) == (200, 1_500_000)
    assert decoded(first.headers["payment-response"])["transaction"].startswith("0x")
    again = await buyer.client.get(path, headers=header)
    assert (again.status_code, again.json()["type"]) == (410, "/problems/answer-not-kept")
    assert (upstream.calls, await buyer.balance()) == (1, 9 * PRICE)


async def test_a_slow_stream_is_settled_first_and_passed_on_as_it_comes(
    buying: Buying, shop: Shop, upstream: RecordingUpstream, chain: Chain
) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/chunks?n=5&pause=500"
    header = buyer.payment(await buyer.asked(path))
    async with buyer.client.stream("GET", path, headers=header) as answer:
        pieces = answer.aiter_raw()
        first = await anext(pieces)
        assert await buyer.balance() == 9 * PRICE, "settled, and the stream goes on"
        rest = b"".join([piece async for piece in pieces])
    assert first.startswith(b"data: 0")
    assert rest.endswith(b"data: 4\n\n")
    again = await buyer.client.get(path, headers=header)
    assert (again.content, upstream.calls) == (first + rest, 1)


async def test_a_stream_that_breaks_off_after_its_settlement_goes_back(
    buying: Buying, shop: Shop, upstream: RecordingUpstream, chain: Chain, world: World
) -> None:
    buyer = await buying()
    with contextlib.suppress(httpx.RemoteProtocolError):
        answer = await buyer.buy(f"/publishers/{shop.slug}/cut?pause=1800")
        assert answer.status_code >= 500

    async def returned() -> bool:
        await chain.mine()
        return await buyer.balance() == 10 * PRICE

    await until(returned)
    assert (upstream.calls, await world.earned(shop)) == (1, 0)


@pytest.mark.parametrize("policy", ["before_response", "deferred"])
async def test_an_answer_that_breaks_off_before_its_settlement_costs_nothing(
    policy: str, buying: Buying, world: World, upstream: RecordingUpstream, connection: Connection
) -> None:
    shop = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10", x402_settlement=policy)
    buyer = await buying()
    with contextlib.suppress(httpx.RemoteProtocolError):
        answer = await buyer.buy(f"/publishers/{shop.slug}/cut")
        assert answer.status_code >= 500
    row = await connection.fetchrow(
        "SELECT state::text, reason FROM chain.payment WHERE payer = $1", buyer.wallet.address
    )
    assert row is not None
    assert row["state"] == "cancelled"
    assert await buyer.balance() == 10 * PRICE


async def test_a_payment_is_found_by_its_id_and_by_its_authorization(
    buying: Buying, shop: Shop, chain: Chain, gateway: RunningGateway
) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/x"
    required = await buyer.asked(path)
    authorization = buyer.sign(required["accepts"][0])
    terms = {
        "network": chain.network,
        "payer": buyer.address.lower(),
        "nonce": "0x" + authorization.nonce.hex().upper(),
    }
    assert (await buyer.client.get("/payments", params=terms)).status_code == 404
    answer = await buyer.client.get(path, headers=buyer.payment(required, authorization))
    by_id = (await buyer.client.get(f"/payments/{answer.headers['x-request-id']}")).json()["data"]
    assert (await buyer.client.get("/payments", params=terms)).json()["data"] == by_id
    transaction = decoded(answer.headers["payment-response"])["transaction"]
    assert {name: by_id[name] for name in ("state", "transaction", "payer", "amount_atomic", "call", "repayment")} == {
        "state": "confirmed", "transaction": transaction, "payer": buyer.address, "amount_atomic": str(PRICE),
        "call": "settled", "repayment": None,
    }  # fmt: skip
    assert (await buyer.client.get("/payments/00000000-0000-7000-8000-000000000000")).status_code == 404
    for wrong in ({**terms, "network": "eip155:1"}, {**terms, "nonce": "0x12"}, {**terms, "payer": "me"}):
        assert (await buyer.client.get("/payments", params=wrong)).status_code == 400
