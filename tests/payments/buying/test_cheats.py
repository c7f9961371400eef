"""Servers that take the gateway's money and deliver nothing, or ask for what must not be signed: what that costs whom."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from gateway.cli.main import cli
from gateway.database.pool import Connection
from gateway.payments.evm.keystore import Signer
from tests.payments.buying.conftest import CAP, Reselling, buys, ended, expire, left
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.seller import PRICE, Seller
from tests.support.services import Services
from tests.support.world import Agent, World

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"changes": {"amount": str(CAP + 1)}}, "price"),
    ({"changes": {"amount": "0"}}, "price"),
    ({"changes": {"payTo": "0x" + "11" * 20}}, "payee"),
    ({"changes": {"network": "eip155:8453"}}, "kind"),
    ({"changes": {"asset": "0x" + "11" * 20}}, "kind"),
    ({"changes": {"scheme": "upto"}}, "kind"),
    ({"changes": {"extra": {"name": "USDC", "version": "2", "assetTransferMethod": "permit2"}}}, "kind"),
    ({"changes": {"maxTimeoutSeconds": 1}}, "expiry"),
    ({"changes": {"amount": 10_000}}, "kind"),
    ({"resource": "https://elsewhere.example/item"}, "resource"),
    ({"version": 1, "resource": "http://elsewhere.example/item"}, "resource"),
    ({"version": 3}, "no_offer"),
]


@pytest.mark.parametrize(("other", "reason"), REFUSED)
async def test_what_must_not_be_signed_is_not_bought_and_costs_nothing(
    other: dict[str, Any], reason: str, gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent,
    world: World, connection: Connection,
) -> None:  # fmt: skip
    for name, value in other.items():
        setattr(seller, name, value)
    shop, headers = await reselling(), {**agent.headers, "Idempotency-Key": "k"}
    for _ in range(2):  # the key is free again: nothing came of the call
        answer = await gateway.client.get(f"/publishers/{shop.slug}/item", headers=headers)
        assert (answer.status_code, answer.json()["type"], answer.json()["reason"]) == (
            402,
            "/problems/not-bought",
            reason,
        )
        assert answer.headers["x-cost"] == "0"
        assert ("payment-required" in answer.headers) == (seller.version != 1)
    assert seller.presented == []
    await left(world, agent, 10 * CAP)
    assert not await connection.fetchval("SELECT count(*) FROM chain.purchase WHERE publisher_id = $1", shop.id)


@pytest.mark.parametrize(
    ("mode", "status", "state"),
    [
        ("refusing", 502, "lapsed"),
        ("dearer", 502, "lapsed"),
        ("denying", 200, "bought"),
        ("thief", 502, "bought"),
        ("failing", 500, "bought"),
        ("missing", 404, "lapsed"),
    ],
)
async def test_a_caller_pays_only_for_what_was_delivered(
    mode: str, status: int, state: str, gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent,
    world: World, chain: Chain, connection: Connection,
) -> None:  # fmt: skip
    seller.mode, shop = mode, await reselling()
    headers = {**agent.headers, "Idempotency-Key": "k"}
    first = await gateway.client.get(f"/publishers/{shop.slug}/item", headers=headers)
    again = await gateway.client.get(f"/publishers/{shop.slug}/item", headers=headers)
    assert (first.status_code, again.status_code, first.headers["x-cost"]) == (status, status, "0")
    assert again.headers["idempotency-replayed"] == "true"
    assert len(seller.presented) == 1
    await left(world, agent, 10 * CAP)
    await expire(connection, chain)
    assert (await ended(connection, chain))[-1] == (state, False)
    await left(world, agent, 10 * CAP)


async def test_an_answer_that_breaks_off_is_not_charged_though_it_was_paid(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, world: World, chain: Chain,
    connection: Connection,
) -> None:  # fmt: skip
    seller.mode, shop = "cutting", await reselling()
    with pytest.raises(httpx.TransportError):
        await gateway.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)
    assert (await ended(connection, chain))[-1] == ("bought", False)
    await left(world, agent, 10 * CAP)


@pytest.mark.parametrize(("mode", "status"), [("absent", 404), ("moving", 302), ("honest", 200)])
async def test_a_publisher_gives_nothing_back_that_the_platform_has_paid(
    mode: str, status: int, gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, world: World,
    chain: Chain, connection: Connection,
) -> None:  # fmt: skip
    # The API takes no refund rules beside x402_passthrough; a publisher that has some all the same changes nothing.
    shop = await reselling(refund_on_status=["3xx", "404"], refund_rules={"later_than_ms": 1})
    seller.mode = mode
    asked = await gateway.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)
    assert (asked.status_code, asked.headers["x-cost"]) == (status, "0.01")
    assert (seller.asked, len(seller.presented), len(seller.bodies)) == (1, 1, 2), "redirects are not followed"
    assert (await ended(connection, chain))[-1] == ("bought", True)
    await left(world, agent, 10 * CAP - PRICE)


async def test_an_authorization_lives_no_longer_than_the_operator_says(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent
) -> None:
    seller.changes, shop = {"maxTimeoutSeconds": 10**9, "validBefore": 2**40}, await reselling()
    assert (await gateway.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)).status_code == 200
    (signed,) = seller.presented
    assert signed.valid_before <= time.time() + 86_400


async def test_a_payment_that_is_never_taken_goes_back_to_the_caller(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, world: World, chain: Chain,
    connection: Connection,
) -> None:  # fmt: skip
    seller.mode, shop = "late", await reselling()
    answer = await gateway.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.01")
    await left(world, agent, 10 * CAP - PRICE)
    await expire(connection, chain)
    assert (await ended(connection, chain))[-1] == ("lapsed", True)
    await left(world, agent, 10 * CAP)
    assert await world.earned(shop) == 0


async def test_a_thief_costs_the_exposure_at_most_until_it_is_forgiven(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, chain: Chain, connection: Connection,
    wallet: Signer, monkeypatch: pytest.MonkeyPatch, database_url: str,
) -> None:  # fmt: skip
    seller.mode, shop, other = "thief", await reselling(), await reselling()
    before, path = await chain.usdc_of(wallet.address), f"/publishers/{shop.slug}/item"
    answers = [await gateway.client.get(path, headers=agent.headers) for _ in range(6)]
    assert [one.status_code for one in answers] == [502, 502, 502, 502, 402, 402]
    assert answers[-1].json()["reason"] == "paused"
    assert before - await chain.usdc_of(wallet.address) == 4 * PRICE
    seller.mode = "honest"
    assert (await gateway.client.get(path, headers=agent.headers)).json()["reason"] == "paused"
    assert (await gateway.client.get(f"/publishers/{other.slug}/item", headers=agent.headers)).status_code == 200
    await ended(connection, chain)
    await operator(monkeypatch, database_url, "forgive", shop.slug)
    assert (await gateway.client.get(path, headers=agent.headers)).status_code == 200


async def operator(monkeypatch: pytest.MonkeyPatch, database_url: str, *arguments: str) -> object:
    """Run `tollway purchases`; in a thread, because commands have an event loop of their own."""
    monkeypatch.setenv("TOLLWAY_DATABASE_URL", database_url)
    return await asyncio.to_thread(cli.main, ["purchases", *arguments], standalone_mode=False)


async def test_calls_at_once_promise_no_more_than_the_exposure(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, connection: Connection
) -> None:
    seller.mode, shop = "refusing", await reselling()
    path = f"/publishers/{shop.slug}/item"
    answers = await asyncio.gather(*(gateway.client.get(path, headers=agent.headers) for _ in range(9)))
    assert sorted(one.status_code for one in answers) == [402] * 5 + [502] * 4
    assert len(seller.presented) == 4


async def test_who_hangs_up_while_it_is_being_paid_for_has_bought(
    gateway: RunningGateway, seller: Seller, reselling: Reselling, agent: Agent, world: World, chain: Chain,
    connection: Connection,
) -> None:  # fmt: skip
    seller.mode, shop = "silent", await reselling()
    async with httpx.AsyncClient(base_url=gateway.url) as leaving:
        call = asyncio.ensure_future(leaving.get(f"/publishers/{shop.slug}/item", headers=agent.headers))
        await asyncio.wait_for(seller.reached.wait(), 60)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    seller.release.set()
    assert (await ended(connection, chain))[-1] == ("bought", True)
    await left(world, agent, 10 * CAP - PRICE)


async def test_an_empty_wallet_signs_nothing(
    services: Services, database_url: str, chain: Chain, seller: Seller, reselling: Reselling, agent: Agent,
    world: World,
) -> None:  # fmt: skip
    broke = await start_gateway(services, database_url, **buys(chain, "0x" + "07" * 32))
    try:
        shop = await reselling()
        answer = await broke.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)
        assert (answer.status_code, answer.json()["reason"]) == (402, "wallet")
        assert seller.presented == []
        await left(world, agent, 10 * CAP)
    finally:
        await broke.stop()


async def test_only_listed_publishers_are_bought_from(
    services: Services, database_url: str, chain: Chain, key: str, seller: Seller, reselling: Reselling, agent: Agent,
    world: World, connection: Connection,
) -> None:  # fmt: skip
    listed, other = await reselling(wallet_address="0x" + "11" * 20), await reselling()
    settings = {"BUYING_PUBLISHERS": f"{listed.slug}=0x{seller.payee.hex()}", "BUYING_MOST": str(PRICE - 1)}
    picky = await start_gateway(services, database_url, **buys(chain, key, **settings))
    try:
        relayed = await picky.client.get(f"/publishers/{other.slug}/item", headers=agent.headers)
        assert (relayed.status_code, relayed.text) == (402, "{}")
        dear = await picky.client.get(f"/publishers/{listed.slug}/item", headers=agent.headers)
        assert (dear.status_code, dear.json()["reason"]) == (402, "price")
        seller.price = PRICE - 1
        bought = await picky.client.get(f"/publishers/{listed.slug}/item", headers=agent.headers)
        assert (bought.status_code, bought.headers["x-cost"]) == (200, "0.009999")
        await ended(connection, chain)
    finally:
        await picky.stop()
