"""What is told of a call that was paid on a chain: receipt, store, usage, earnings, metrics, and the operator's lists."""

from __future__ import annotations

import hashlib
import re

from eth_account import Account

from gateway.billing.receipts import verify
from gateway.catalog.earnings import earnings_of
from gateway.database.pool import Connection
from tests.payments.evm.conftest import until
from tests.payments.facilitator.test_wallet_identity import proof
from tests.payments.onchain.buyer import PRICE, decoded
from tests.payments.onchain.conftest import Buying, chained
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import SEPOLIA_USDC, Shop, World

PUBLISHER = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"


async def test_the_wallet_that_paid_and_who_sold_have_a_receipt(
    buying: Buying, shop: Shop, gateway: RunningGateway, world: World, chain: Chain
) -> None:
    buyer = await buying()
    target = f"/publishers/{shop.slug}/v1/data?q=1"
    answer = await buyer.buy(target)
    path = f"/receipts/{answer.headers['x-request-id']}"
    signer = Account.from_key(buyer.wallet._key.secret)
    found = await gateway.client.get(path, headers=await proof(gateway, signer))
    assert found.status_code == 200, found.text
    keys = (await gateway.client.get("/.well-known/jwks.json")).json()
    claims = verify(found.json()["data"]["receipt"], keys)
    assert claims["sub"] == f"{chain.network}:{buyer.address}"
    assert (claims["price"]["rail"], claims["price"]["charged"], claims["price"]["platform_fee"]) == (
        "x402",
        "0.01",
        "0.001",
    )
    assert claims["payment"]["transaction"] == decoded(answer.headers["payment-response"])["transaction"]
    assert claims["request"]["target_sha256"] == hashlib.sha256(target.encode()).hexdigest()
    assert claims["delivered"]["body_sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert (claims["delivered"]["outcome"], len(claims["ledger"])) == ("settled", 1)
    stranger = await world.agent()
    assert (await gateway.client.get(path, headers=stranger.headers)).status_code == 404
    assert (await gateway.client.get(path, headers=await proof(gateway, Account.create()))).status_code == 404
    assert (await gateway.client.get(path)).status_code == 401


async def test_the_store_says_in_what_a_publisher_can_be_paid_and_how_often_it_was(
    buying: Buying, shop: Shop, gateway: RunningGateway, chain: Chain, world: World
) -> None:
    buyer, other = await buying(), await buying()
    path = f"/publishers/{shop.slug}"
    shown = (await gateway.client.get(path)).json()["data"]
    assert [(one["network_id"], one["asset_symbol"]) for one in shown["x402_accepts"]] == [(chain.network, "USDC")]
    for who in (buyer, buyer, other):
        assert (await who.buy(f"{path}/x")).status_code == 200
    shown = (await gateway.client.get(path)).json()["data"]
    assert (shown["total_queries"], shown["unique_agents_served"]) == (3, 2)
    elsewhere = await world.publisher(PRICE)
    assert (await gateway.client.get(f"/publishers/{elsewhere.slug}")).json()["data"]["x402_accepts"] == []
    off = await world.publisher(PRICE, SEPOLIA_USDC, onchain_enabled=False)
    assert (await gateway.client.get(f"/publishers/{off.slug}")).json()["data"]["x402_accepts"] == []
    asked = await gateway.client.get(f"/publishers/{off.slug}/x")
    assert "payment-required" not in asked.headers


async def test_what_was_paid_to_the_publisher_itself_counts_as_earned_and_received(
    buying: Buying, world: World, gateway: RunningGateway, chain: Chain, connection: Connection
) -> None:
    shop = await world.publisher(PRICE, SEPOLIA_USDC, wallet_address=PUBLISHER, wallet_network_id=chain.network)
    answer = await (await buying()).buy(f"/publishers/{shop.slug}/x")
    assert answer.status_code == 200
    earned = list((await earnings_of(connection, shop.id)).values())
    assert [(one.revenue, one.withdrawn, one.available) for one in earned] == [(PRICE, PRICE, 0)]


async def test_payments_are_counted_by_how_they_ended_and_why_they_were_declined(
    buying: Buying, shop: Shop, gateway: RunningGateway, chain: Chain
) -> None:
    buyer, poor = await buying(), await buying(0)
    await buyer.buy(f"/publishers/{shop.slug}/x")
    await buyer.buy(f"/publishers/{shop.slug}/status/500")
    await poor.buy(f"/publishers/{shop.slug}/x")
    labels = f'network="{chain.network}",'

    async def counted() -> bool:
        text = (await gateway.client.get("/metrics")).text
        found = {name: float(value) for name, value in re.findall(r"^tollway_(\S+) (\S+)$", text, re.M)}
        return (
            found.get(f'x402_payments_total{{{labels}outcome="kept",policy="before_response"}}', 0) >= 1
            and found.get(f'x402_payments_total{{{labels}outcome="cancelled",policy="before_response"}}', 0) >= 1
            and found.get('x402_declined_total{reason="insufficient_funds"}', 0) >= 1
            and found.get(f'revenue_atomic_total{{asset="USDC",publisher="{shop.slug}"}}') == PRICE
        )

    await until(counted)


async def test_no_line_shows_what_somebody_signed_and_no_answer_shows_a_key(
    services: Services, database_url: str, chain: Chain, buying: Buying, shop: Shop
) -> None:
    """At the loudest level, for a paid call, a refused one and a repeated one."""
    settings = chained(chain, LOGGING_LEVEL="debug", LOGGING_ACCESS="true")
    loud = await start_gateway(services, database_url, **settings)
    try:
        buyer = await buying(url=loud.url)
        path = f"/publishers/{shop.slug}/x"
        required = await buyer.asked(path)
        signed, wrong = (buyer.sign(required["accepts"][0], **more) for more in ({}, {"value": 1}))
        headers = [buyer.payment(required, one) for one in (signed, wrong, signed)]
        answers = [await buyer.client.get(path, headers=header) for header in headers]
        assert [answer.status_code for answer in answers] == [200, 402, 200]
        said = loud.output() + "".join(answer.text + str(answer.headers) for answer in answers)
        secrets = [header["PAYMENT-SIGNATURE"] for header in headers]
        secrets += [one.signature.hex() for one in (signed, wrong)] + [one.nonce.hex() for one in (signed, wrong)]
        secrets += [chain.signer_key.removeprefix("0x"), chain.url]
        assert [secret for secret in secrets if secret in said] == []
    finally:
        await loud.stop()
