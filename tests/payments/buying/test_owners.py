"""What one owner can take from the buying wallet, with whatever publishers, agents and gateways."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal

import pytest

from gateway.database.pool import Connection
from gateway.ledger import wallets
from gateway.payments.evm.encoding import show_address
from tests.payments.buying.conftest import CAP, Reselling, buys, ended, expire, left
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.seller import PRICE, Seller
from tests.support.services import Services
from tests.support.world import Agent, Shop, World


async def of_one_owner(connection: Connection, first: Shop, second: Shop) -> None:
    """Let two publishers have the same owner."""
    await connection.execute(
        "UPDATE catalog.publisher SET organization_id = o.organization_id FROM catalog.publisher o"
        " WHERE o.id = $1 AND catalog.publisher.id = $2",
        first.id, second.id,
    )  # fmt: skip


async def test_an_owners_publishers_share_one_exposure_over_all_gateways(
    services: Services, database_url: str, gateway: RunningGateway, chain: Chain, key: str, seller: Seller,
    reselling: Reselling, agent: Agent, world: World, connection: Connection,
) -> None:  # fmt: skip
    seller.mode, shops = "refusing", [await reselling(), await reselling()]
    await of_one_owner(connection, *shops)
    other = await start_gateway(services, database_url, **buys(chain, key))
    try:
        calls = [
            one.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers)
            for one in (gateway, other) for shop in shops for _ in range(2)
        ]  # fmt: skip
        answers = await asyncio.gather(*calls)
        assert sorted(one.status_code for one in answers) == [402] * 4 + [502] * 4
        assert {one.json()["reason"] for one in answers if one.status_code == 402} == {"paused"}
        assert len(seller.presented) == 4
        # A publisher that is made anew is paused as well; another owner's is not.
        fresh, strangers = await reselling(), await reselling()
        await of_one_owner(connection, shops[0], fresh)
        await connection.execute("UPDATE catalog.publisher SET deleted_at = now() WHERE id = $1", shops[0].id)
        paused = await other.client.get(f"/publishers/{fresh.slug}/item", headers=agent.headers)
        assert paused.json()["reason"] == "paused"
        seller.mode = "honest"
        sold = await other.client.get(f"/publishers/{strangers.slug}/item", headers=agent.headers)
        assert sold.status_code == 200
        # What was not taken in time cannot be taken any more, and counts no more.
        await expire(connection, chain)
        await ended(connection, chain)
        again = await other.client.get(f"/publishers/{fresh.slug}/item", headers=agent.headers)
        assert again.status_code == 200
    finally:
        await other.stop()


async def test_all_owners_together_have_an_exposure_too(
    services: Services, database_url: str, chain: Chain, key: str, funded: None, seller: Seller, reselling: Reselling,
    agent: Agent, connection: Connection,
) -> None:  # fmt: skip
    lost = int(await connection.fetchval("SELECT chain.at_risk(NULL)"))
    seller.mode, shops = "refusing", [await reselling() for _ in range(4)]
    bounded = await start_gateway(
        services, database_url, **buys(chain, key, BUYING_EXPOSURE_TOTAL=str(lost + 3 * PRICE))
    )
    try:
        calls = [bounded.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers) for shop in shops]
        answers = await asyncio.gather(*calls)
        assert sorted(one.status_code for one in answers) == [402, 502, 502, 502]
        assert len(seller.presented) == 3
    finally:
        await bounded.stop()


async def test_an_owner_cannot_collect_the_bonuses_of_agents_that_it_makes(
    services: Services, database_url: str, chain: Chain, key: str, funded: None, seller: Seller, reselling: Reselling,
    world: World, connection: Connection,
) -> None:  # fmt: skip
    careful = await start_gateway(services, database_url, **buys(chain, key, BUYING_BONUSES=str(2 * PRICE)))
    try:
        shop, second = await reselling(), await reselling()
        await of_one_owner(connection, shop, second)
        made = [await world.agent() for _ in range(4)]
        for one in made:
            await wallets.grant(connection, one.wallet_id, source="signup_bonus", reference="once", amount=CAP)
        answers = [
            await careful.client.get(f"/publishers/{slug}/item", headers=one.headers)
            for slug, one in zip([shop.slug, second.slug] * 2, made, strict=True)
        ]
        assert [one.status_code for one in answers] == [200, 200, 402, 402]
        assert answers[-1].json()["reason"] == "bonuses"
        await left(world, made[-1], CAP)
        assert len(seller.presented) == 2
        granted = await world.agent(CAP)  # by the operator
        answer = await careful.client.get(f"/publishers/{shop.slug}/item", headers=granted.headers)
        assert answer.status_code == 200
    finally:
        await careful.stop()


async def test_the_payee_that_an_operator_names_is_not_an_owners_to_change(
    services: Services, database_url: str, chain: Chain, key: str, funded: None, seller: Seller, reselling: Reselling,
    agent: Agent, connection: Connection,
) -> None:  # fmt: skip
    shop = await reselling()
    settings = {"BUYING_PUBLISHERS": f"{shop.slug}={show_address(seller.payee)}"}
    picky = await start_gateway(services, database_url, **buys(chain, key, **settings))
    try:
        path, thief = f"/publishers/{shop.slug}/item", show_address(secrets.token_bytes(20))
        await connection.execute("UPDATE catalog.publisher SET wallet_address = $2 WHERE id = $1", shop.id, thief)
        seller.changes = {"payTo": thief}
        assert (await picky.client.get(path, headers=agent.headers)).json()["reason"] == "payee"
        assert seller.presented == []
        seller.changes = {}
        assert (await picky.client.get(path, headers=agent.headers)).status_code == 200
    finally:
        await picky.stop()


@pytest.mark.slow
async def test_a_gateway_that_was_taken_for_dead_signs_nothing(
    services: Services, database_url: str, gateway: RunningGateway, chain: Chain, key: str, seller: Seller,
    reselling: Reselling, agent: Agent, world: World, connection: Connection,
) -> None:  # fmt: skip
    seller.mode, shop = "slow", await reselling()
    frozen = await start_gateway(services, database_url, **buys(chain, key))
    try:
        call = asyncio.ensure_future(frozen.client.get(f"/publishers/{shop.slug}/item", headers=agent.headers))
        await asyncio.wait_for(seller.reached.wait(), 60)
        os.killpg(frozen.process.pid, signal.SIGSTOP)  # its workers too
        try:
            await left(world, agent, 10 * CAP)  # the other gateway has let go of what the call held
        finally:
            seller.release.set()
            os.killpg(frozen.process.pid, signal.SIGCONT)
        answer = await call
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
        assert seller.presented == []
        assert not await connection.fetchval("SELECT count(*) FROM chain.purchase WHERE publisher_id = $1", shop.id)
    finally:
        await frozen.stop()
