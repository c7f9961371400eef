"""A caller with a balance buys from a server that sells by x402: the gateway pays it, and charges what it paid."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.database.pool import Connection
from gateway.payments.evm.keystore import Signer
from tests.payments.buying.conftest import CAP, Reselling, ended, left
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway
from tests.support.seller import PRICE, Seller, encoded, shown
from tests.support.world import Agent, World


async def last(connection: Connection) -> Any:
    """The newest purchase."""
    return await connection.fetchrow(
        "SELECT state::text, amount, payee, transaction FROM chain.purchase ORDER BY signed_at DESC LIMIT 1"
    )


@pytest.mark.parametrize("version", [2, 1])
async def test_the_gateway_pays_and_charges_what_it_paid(
    version: int, gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, world: World,
    chain: Chain, connection: Connection, wallet: Signer,
) -> None:  # fmt: skip
    seller.version = version
    shop, before, taken = await reselling(), await chain.usdc_of(wallet.address), await chain.usdc_of(seller.payee)
    answer = await gateway.client.post(f"/publishers/{shop.slug}/item?q=1", headers=agent.headers, content=b"a body")
    assert (answer.status_code, answer.text) == (200, "bought"), answer.text
    assert (answer.headers["x-cost"], answer.headers["x-cost-asset"]) == ("0.01", "USDC")
    assert answer.headers["x-balance"] == "0.29"
    assert not {"payment-response", "x-payment-response"} & set(answer.headers), "the gateway's payment is its own"
    assert (seller.asked, len(seller.presented), seller.bodies) == (1, 1, [b"a body"] * 2)
    assert await ended(connection, chain)
    await left(world, agent, 10 * CAP - PRICE)
    assert (await chain.usdc_of(wallet.address), await chain.usdc_of(seller.payee)) == (before - PRICE, taken + PRICE)
    assert await world.earned(shop) == 0
    assert (await last(connection))["transaction"].startswith("0x")


async def test_the_markup_is_the_publishers_and_the_fee_the_platforms(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, world: World, connection: Connection
) -> None:
    shop = await reselling(markup_multiplier=1.5, gateway_fee_percent="10")
    answer = await gateway.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.0165")
    while not await world.earned(shop):
        await asyncio.sleep(0.02)
    fee = await connection.fetchval(
        "SELECT fee FROM ledger.transfer WHERE kind = 'capture' ORDER BY created_at DESC LIMIT 1"
    )
    assert (await world.earned(shop), fee) == (5_000, PRICE + 1_500)


async def test_what_asks_for_no_payment_costs_nothing(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, world: World
) -> None:
    shop = await reselling()
    answer = await gateway.client.get(f"/publishers/{shop.slug}/free", headers=agent.headers)
    assert (answer.text, answer.headers["x-cost"], answer.headers["x-balance"]) == ("free", "0", "0.3")
    assert seller.presented == []


async def test_the_cheapest_offer_that_may_be_taken_is_taken(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent
) -> None:
    shop = await reselling()
    cheaper = {**seller.offer(), "amount": "4000"}
    seller.more = [
        {**cheaper, "amount": "1000", "payTo": "0x" + "11" * 20},
        {**cheaper, "amount": "1000", "scheme": "upto"},
        {**cheaper, "amount": "1000", "network": "eip155:1"},
        {**cheaper, "amount": "1000", "asset": "0x" + "22" * 20},
        {**cheaper, "amount": "1000", "extra": {"name": "Another", "version": "2"}},
        {**cheaper, "amount": "1e3"},
        cheaper,
    ]
    answer = await gateway.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.004"), answer.text


async def test_a_repeated_call_with_a_key_buys_once(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, world: World, chain: Chain,
    connection: Connection,
) -> None:  # fmt: skip
    shop, headers = await reselling(), {**agent.headers, "Idempotency-Key": "once"}
    first = await gateway.client.post(f"/publishers/{shop.slug}/item", headers=headers, content=b"a body")
    again = await gateway.client.post(f"/publishers/{shop.slug}/item", headers=headers, content=b"a body")
    assert (first.status_code, again.status_code, again.text) == (200, 200, "bought")
    assert again.headers["idempotency-replayed"] == "true"
    assert len(seller.presented) == 1
    await left(world, agent, 10 * CAP - PRICE)
    assert not any("idempotency-key" in fields for fields in seller.fields)


async def test_who_has_no_key_or_pays_itself_is_relayed(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, world: World
) -> None:
    shop = await reselling()
    asked = await gateway.client.get(f"/publishers/{shop.slug}/item")
    assert (asked.status_code, asked.headers["x-cost"]) == (402, "0")
    assert "payment-required" in asked.headers
    seller.mode = "refusing"
    own = {**agent.headers, "PAYMENT-SIGNATURE": "e30="}
    answer = await gateway.client.get(f"/publishers/{shop.slug}/item", headers=own)
    assert answer.headers["x-cost"] == "0"
    assert seller.fields[-1]["payment-signature"] == "e30="


async def test_a_callers_own_payment_is_relayed_untouched_where_the_gateway_would_buy(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, world: World, chain: Chain,
    connection: Connection, wallet: Signer,
) -> None:  # fmt: skip
    shop, payer = await reselling(), await chain.wallet(usdc=PRICE)
    before, taken = await chain.usdc_of(wallet.address), await chain.usdc_of(seller.payee)
    signed = chain.authorize(payer, seller.payee, PRICE)
    own = {**agent.headers, "PAYMENT-SIGNATURE": encoded({"x402Version": 2, "payload": shown(signed)})}
    answer = await gateway.client.get(f"/publishers/{shop.slug}/item", headers=own)
    assert (answer.status_code, answer.text, answer.headers["x-cost"]) == (200, "bought", "0")
    assert json.loads(base64.b64decode(answer.headers["payment-response"]))["success"] is True
    assert (seller.asked, seller.presented) == (0, [signed])
    assert (await chain.usdc_of(payer.address), await chain.usdc_of(seller.payee)) == (0, taken + PRICE)
    assert await chain.usdc_of(wallet.address) == before
    assert not await connection.fetchval("SELECT count(*) FROM chain.purchase WHERE publisher_id = $1", shop.id)
    assert await world.balance(agent) == 10 * CAP


async def test_a_balance_below_the_most_is_answered_before_anybody_is_asked(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, world: World
) -> None:
    shop, poor = await reselling(), await world.agent(CAP - 1)
    answer = await gateway.client.get(f"/publishers/{shop.slug}/item", headers=poor.headers)
    assert answer.status_code == 402
    assert [one["scheme"] for one in answer.json()["accepts"]] == ["prepaid"]
    assert answer.json()["accepts"][0]["amount"] == str(CAP)
    assert seller.asked == 0


async def test_a_body_that_cannot_be_sent_twice_is_refused_before_it_is_sent_once(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, world: World
) -> None:
    shop = await reselling()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = [f"POST /publishers/{shop.slug}/item HTTP/1.1", "Host: localhost", "Content-Length: 1048577"]
    fields = [f"{name}: {value}" for name, value in agent.headers.items()]
    writer.write("\r\n".join([*head, *fields, "", ""]).encode())
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 60)
    writer.close()
    assert b" 413 " in answer
    assert seller.asked == 0

    async def pieces() -> AsyncIterator[bytes]:  # without a length
        for _ in range(17):
            yield bytes(65_536)

    whole = await gateway.client.post(f"/publishers/{shop.slug}/item", headers=agent.headers, content=pieces())
    assert (whole.status_code, whole.json()["type"]) == (413, "/problems/payload-too-large")
    assert seller.asked == 0
    await left(world, agent, 10 * CAP)
