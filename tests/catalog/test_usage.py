"""Usage counts: the same before and after the roll-up, whatever comes late."""

from __future__ import annotations

import math
from datetime import timedelta
from uuid import UUID

import pytest

from gateway.analytics.rollups import catch_up
from gateway.catalog.earnings import earnings_of
from gateway.catalog.usage import Usage, usage_of
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.ledger import exchanges
from gateway.ledger.entries import Charge, post
from gateway.ledger.holds import Hold, post_holds
from tests.support.world import USDC, Agent, Shop, World


async def roll_up(connection: Connection) -> None:
    """Add everything until now."""
    await catch_up(connection, timedelta(0), math.inf)


async def charge(connection: Connection, agent: Agent, shop: Shop, amount: int = 100, fee: int = 0) -> UUID:
    exchange = uuid7()
    charged = Charge(exchange, agent.wallet_id, shop.id, shop.account_id, amount, fee)
    assert [verdict.verdict for verdict in await post(connection, [charged], None, [])] == ["posted"]
    return exchange


async def refund(connection: Connection, exchange: UUID) -> None:
    await exchanges.refund(connection, exchange, reason="test", status=503, grace=timedelta(days=7), only_open=False)


async def test_counts_do_not_depend_on_when_they_were_rolled_up(connection: Connection, world: World) -> None:
    shop, other = await world.publisher(), await world.publisher()
    ann, bob = await world.agent(10_000), await world.agent(10_000)

    async def counts() -> tuple[Usage, Usage]:
        usage = await usage_of(connection, [shop.id, other.id])
        return usage[shop.id], usage[other.id]

    assert await counts() == (Usage(shop.id, 0, 0), Usage(other.id, 0, 0))
    await charge(connection, ann, shop)
    await charge(connection, ann, shop)
    await refund(connection, await charge(connection, bob, shop))
    assert (await counts())[0] == Usage(shop.id, 2, 1)
    await roll_up(connection)
    assert (await counts())[0] == Usage(shop.id, 2, 1)
    await charge(connection, ann, shop)
    await charge(connection, bob, shop)
    await charge(connection, bob, other)
    expected = (Usage(shop.id, 4, 2), Usage(other.id, 1, 1))
    assert await counts() == expected
    await roll_up(connection)
    assert await counts() == expected


async def test_a_capture_counts_however_long_after_its_hold_it_comes(connection: Connection, world: World) -> None:
    shop, agent = await world.publisher(), await world.agent(10_000)
    exchange = uuid7()
    hold = Hold(exchange, agent.wallet_id, shop.id, shop.account_id, 500)
    await post_holds(connection, [hold], None, [], timedelta(days=7))
    await charge(connection, agent, shop)
    await roll_up(connection)
    ended = await exchanges.END_HOLD.one(connection, exchange, "200", "0", "delivered", 200, 0, 0, timedelta(days=7))
    assert ended.verdict == "captured"
    assert (await usage_of(connection, [shop.id]))[shop.id] == Usage(shop.id, 2, 1)
    await roll_up(connection)
    assert (await usage_of(connection, [shop.id]))[shop.id] == Usage(shop.id, 2, 1)


@pytest.mark.usefixtures("sound_books")
async def test_earnings_are_net_of_fees_and_refunds(connection: Connection, world: World) -> None:
    shop, agent = await world.publisher(), await world.agent(10_000)
    await charge(connection, agent, shop, 1_000, fee=25)
    await refund(connection, await charge(connection, agent, shop, 300, fee=7))
    earnings = (await earnings_of(connection, shop.id))[USDC]
    assert (earnings.revenue, earnings.available, earnings.paying_out) == (975, 975, 0)
