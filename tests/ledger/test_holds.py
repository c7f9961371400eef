"""Two-phase transfers: hold, capture a part, release the rest, and every way to do that wrongly."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gateway.database.pool import Connection, connect
from gateway.ids import uuid7
from gateway.ledger import wallets
from gateway.ledger.exchanges import END_HOLD, refund
from gateway.ledger.holds import Hold, post_holds
from gateway.settings import DatabaseSettings
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
GRACE = timedelta(days=7)


async def place(connection: Connection, agent: Agent, shop: Shop, amount: int):
    exchange = uuid7()
    hold = Hold(exchange, agent.wallet_id, shop.id, shop.account_id, amount)
    return exchange, (await post_holds(connection, [hold], None, [], GRACE))[0]


async def end(connection: Connection, exchange, capture: int, fee: int = 0):
    return await END_HOLD.one(connection, exchange, str(capture), str(fee), "delivered", 200, 0, 0, GRACE)


async def test_hold_100_capture_37_releases_63(connection: Connection, world: World) -> None:
    agent, shop = await world.agent(100), await world.publisher()
    exchange, held = await place(connection, agent, shop, 100)
    assert (held.verdict, held.available, await world.balance(agent)) == ("held", 0, 0)
    ended = await end(connection, exchange, 37, 3)
    assert (ended.verdict, ended.available) == ("captured", 63)
    assert await world.earned(shop) == 34


async def test_the_rest_goes_back_to_the_lots_drawn_last(connection: Connection, world: World) -> None:
    agent, shop = await world.agent(), await world.publisher()
    for source in ("signup_bonus", "fiat_purchase"):
        await wallets.grant(connection, agent.wallet_id, source=source, reference=source, amount=100)
    exchange, _ = await place(connection, agent, shop, 180)
    await end(connection, exchange, 120)
    left = {row.source: row.balance for row in await wallets.BALANCES.all(connection, agent.wallet_id)}
    assert left == {"fiat_purchase": 80}, "promotional money is used up before funded money"
    undone = await refund(connection, exchange, reason="x", status=None, grace=GRACE, only_open=False)
    left = {row.source: row.balance for row in await wallets.BALANCES.all(connection, agent.wallet_id)}
    assert (undone.amount, left) == (120, {"signup_bonus": 100, "fiat_purchase": 100})


async def test_holds_do_not_keep_expired_credit_alive(connection: Connection, world: World) -> None:
    """What comes back lives until a week after its lot expired, however often it is held and released."""
    agent, shop = await world.agent(), await world.publisher()
    granted = await wallets.grant(
        connection, agent.wallet_id, source="promo_code", reference="x", amount=100,
        expires_at=datetime.now(UTC) + timedelta(days=3),
    )  # fmt: skip
    assert granted.verdict == "granted"

    async def passes(days: int) -> None:
        lot = await connection.fetchval(
            "SELECT id FROM ledger.account WHERE wallet_id = $1 AND granted > 0", agent.wallet_id
        )
        for table, column in (("account", "expires_at"), ("account", "lapsed_at"), ("transfer", "created_at")):
            which = "id" if table == "account" else "debit_account"
            await connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER")
            await connection.execute(
                f"UPDATE ledger.{table} SET {column} = {column} - $2::interval WHERE {which} = $1",
                lot, timedelta(days=days),
            )  # fmt: skip
            await connection.execute(f"ALTER TABLE ledger.{table} ENABLE TRIGGER USER")

    for days, left in ((4, 100), (5, 100), (2, 0)):  # it expires after 3 days, and for good after 10
        exchange, held = await place(connection, agent, shop, 100)
        assert held.verdict == "held"
        await passes(days)
        assert (await end(connection, exchange, 0)).verdict == "voided"
        assert await world.balance(agent) == left, days
    assert (await place(connection, agent, shop, 1))[1].verdict == "short"


async def test_a_hold_that_does_not_fit_moves_nothing(connection: Connection, world: World) -> None:
    agent, shop = await world.agent(99), await world.publisher()
    _, held = await place(connection, agent, shop, 100)
    assert (held.verdict, held.available, await world.balance(agent)) == ("short", 99, 99)


async def test_a_late_capture_after_a_release_moves_nothing(connection: Connection, world: World) -> None:
    agent, shop = await world.agent(100), await world.publisher()
    exchange, _ = await place(connection, agent, shop, 100)
    assert (await end(connection, exchange, 0)).verdict == "voided"
    assert (await end(connection, exchange, 50)).verdict == "conflict"
    assert (await end(connection, exchange, 0)).verdict == "repeated"
    assert (await world.balance(agent), await world.earned(shop)) == (100, 0)


async def test_more_than_was_held_is_refused(connection: Connection, world: World) -> None:
    agent, shop = await world.agent(100), await world.publisher()
    exchange, _ = await place(connection, agent, shop, 50)
    assert (await end(connection, exchange, 51)).verdict == "excess"
    assert (await end(connection, exchange, 10, 11)).verdict == "excess"
    assert (await end(connection, uuid7(), 1)).verdict == "unknown"
    assert (await end(connection, exchange, 50)).verdict == "captured"


async def test_two_captures_from_two_workers_pay_once(connection: Connection, world: World, database_url: str) -> None:
    agent, shop = await world.agent(100), await world.publisher()
    exchange, _ = await place(connection, agent, shop, 100)
    others = [await connect(DatabaseSettings(url=database_url)) for _ in range(2)]
    verdicts = await asyncio.gather(end(others[0], exchange, 40), end(others[1], exchange, 60))
    for other in others:
        await other.close()
    assert sorted(verdict.verdict for verdict in verdicts) == ["captured", "conflict"]
    assert await world.earned(shop) in (40, 60)
    assert await world.balance(agent) == 100 - await world.earned(shop)
