"""Usage counts: the same before and after the roll-up, whatever comes late."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from uuid import UUID

import pytest

from gateway.catalog.usage import LAG_SECONDS, ROLL_UP, Usage, earnings_of, horizon, usage_of
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.ledger import exchanges
from gateway.ledger.entries import Charge, post
from gateway.ledger.holds import Hold, post_holds
from tests.support.world import USDC, Agent, Shop, World


async def roll_up(connection: Connection, limit: int = 1_000) -> bool:
    """Roll up everything until now; the pauses keep neighbours in time out of the same millisecond."""
    await asyncio.sleep(0.003)
    now = horizon(time.time() + LAG_SECONDS)
    await asyncio.sleep(0.003)
    return await ROLL_UP.one(connection, now, limit)


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
    assert await roll_up(connection)
    assert (await counts())[0] == Usage(shop.id, 2, 1)
    await charge(connection, ann, shop)
    await charge(connection, bob, shop)
    await charge(connection, bob, other)
    expected = (Usage(shop.id, 4, 2), Usage(other.id, 1, 1))
    assert await counts() == expected
    for _ in range(10):
        done = await roll_up(connection, 1)
        assert await counts() == expected
    assert done


async def test_an_open_hold_stops_the_roll_up_so_that_its_capture_is_counted(
    connection: Connection, world: World
) -> None:
    shop, agent = await world.publisher(), await world.agent(10_000)
    exchange = uuid7()
    hold = Hold(exchange, agent.wallet_id, shop.id, shop.account_id, 500)
    await post_holds(connection, [hold], None, [], timedelta(days=7))
    await charge(connection, agent, shop)
    assert await roll_up(connection)
    ended = await exchanges.END_HOLD.one(connection, exchange, "200", "0", "delivered", 200, 0, 0, timedelta(days=7))
    assert ended.verdict == "captured"
    assert (await usage_of(connection, [shop.id]))[shop.id] == Usage(shop.id, 2, 1)
    assert await roll_up(connection)
    assert (await usage_of(connection, [shop.id]))[shop.id] == Usage(shop.id, 2, 1)


@pytest.mark.usefixtures("sound_books")
async def test_earnings_are_net_of_fees_and_refunds(connection: Connection, world: World) -> None:
    shop, agent = await world.publisher(), await world.agent(10_000)
    await charge(connection, agent, shop, 1_000, fee=25)
    await refund(connection, await charge(connection, agent, shop, 300, fee=7))
    earnings = (await earnings_of(connection, shop.id))[USDC]
    assert (earnings.revenue, earnings.available, earnings.paying_out) == (975, 975, 0)
