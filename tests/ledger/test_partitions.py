"""Partitions by time: a filled ledger gets them without being copied, calls look into one, and none fails without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from gateway.catalog.assets import store_assets
from gateway.database import migrate as migrating
from gateway.database.migrate import migrate, migrations
from gateway.database.pool import Connection, Database, connect
from gateway.ids import floor_at, uuid7
from gateway.ledger import proof
from gateway.ledger.entries import Charge, Settlement, post
from gateway.ledger.exchanges import END_HOLD, refund
from gateway.ledger.holds import Hold, post_holds
from gateway.ledger.partitions import make_ahead
from gateway.settings import DatabaseSettings
from tests.support.databases import replaced
from tests.support.services import Services
from tests.support.world import Agent, Shop, World

GRACE = timedelta(days=7)
OURS = next(number for number, (name, _) in enumerate(migrations()) if name.endswith("_partitions.sql"))


def month_from_now(months: int) -> datetime:
    """Return a moment in the middle of a month."""
    now = datetime.now(UTC)
    number = now.year * 12 + now.month - 1 + months
    return datetime(number // 12, number % 12 + 1, 15, tzinfo=UTC)


def id_in(months: int) -> UUID:
    """Return an id of that month, as a call then would have it."""
    return UUID(int=floor_at(int(month_from_now(months).timestamp() * 1000)).int | uuid4().int & (1 << 62) - 1)


async def call(connection: Connection, agent: Agent, shop: Shop, exchange_id: UUID | None = None) -> UUID:
    """Charge a call and record its end."""
    charge = Charge(exchange_id or uuid7(), agent.wallet_id, shop.id, shop.account_id, 100, 7)
    (verdict,) = await post(connection, [charge], None, [])
    assert verdict.verdict == "posted"
    await post(connection, [], None, [Settlement(charge.exchange_id, "delivered", 200, 0, 9)])
    return charge.exchange_id


async def held(connection: Connection, agent: Agent, shop: Shop, captured: int) -> UUID:
    """Hold 100 and capture a part."""
    hold = Hold(uuid7(), agent.wallet_id, shop.id, shop.account_id, 100)
    assert [one.verdict for one in await post_holds(connection, [hold], None, [], GRACE)] == ["held"]
    fee = "1" if captured else "0"
    ended = await END_HOLD.one(connection, hold.exchange_id, str(captured), fee, "delivered", 200, 0, 9, GRACE)
    assert ended.verdict == ("captured" if captured else "voided")
    return hold.exchange_id


# As a gateway of that time said them.
OLDER_CALL = """
    SELECT verdict FROM ledger.post_charges(ARRAY[$1::uuid], ARRAY[$2::bigint], ARRAY[$3::uuid], ARRAY[$4::bigint],
        ARRAY[100::numeric], ARRAY[7::numeric], NULL, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')
"""
OLDER_HOLD = """
    SELECT verdict FROM ledger.place_holds(ARRAY[$1::uuid], ARRAY[$2::bigint], ARRAY[$3::uuid], ARRAY[$4::bigint],
        ARRAY[100::numeric], NULL, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '7 days')
"""
OLDER_END = (
    "SELECT ledger.settle(ARRAY[$1::uuid], '{delivered}', '{200}', '{0}', '{9}', '{NULL}', '{NULL}', '{NULL}', false)"
)


async def older_call(connection: Connection, agent: Agent, shop: Shop) -> UUID:
    """Charge a call and record its end."""
    exchange = uuid7()
    verdict = await connection.fetchval(OLDER_CALL, exchange, agent.wallet_id, shop.id, shop.account_id)
    assert verdict == "posted"
    await connection.execute(OLDER_END, exchange)
    return exchange


async def older_hold(connection: Connection, agent: Agent, shop: Shop) -> None:
    """Hold 100 and capture a part."""
    exchange = uuid7()
    verdict = await connection.fetchval(OLDER_HOLD, exchange, agent.wallet_id, shop.id, shop.account_id)
    assert verdict == "held"
    ended = await END_HOLD.one(connection, exchange, "40", "1", "delivered", 200, 0, 9, GRACE)
    assert ended.verdict == "captured"


async def rows(connection: Connection) -> list[tuple[Any, ...]]:
    """Return everything that the two tables hold, less what later migrations add."""
    return [
        tuple(row)
        for table in ("transfer", "settlement")
        for row in await connection.fetch(
            f"SELECT (to_jsonb(t) - 'endpoint' - 'row_count')::text FROM ledger.{table} t ORDER BY 1"
        )
    ]


async def where(connection: Connection, exchange_id: UUID, table: str = "transfer", key: str = "cause_id") -> set[str]:
    """Return the partitions that an exchange lies in."""
    found = await connection.fetch(f"SELECT tableoid::regclass::text FROM ledger.{table} WHERE {key} = $1", exchange_id)
    return {row[0].removeprefix("ledger.") for row in found}


@pytest_asyncio.fixture
async def older(services: Services, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A database as it was before there were partitions."""
    admin = await asyncpg.connect(services.database_url)
    await admin.execute("CREATE DATABASE tw_older")
    url = replaced(services.database_url, "tw_older")
    everything = migrations()
    monkeypatch.setattr(migrating, "migrations", lambda: everything[:OURS])
    await migrate(url)
    monkeypatch.undo()
    yield url
    await admin.execute("DROP DATABASE tw_older WITH (FORCE)")
    await admin.close()


async def test_a_filled_ledger_is_partitioned_as_it_stands(older: str) -> None:
    connection = await connect(DatabaseSettings(url=older))
    await store_assets(connection)
    world = World(connection)
    agent, shop = await world.agent(10_000), await world.publisher()
    calls = [await older_call(connection, agent, shop) for _ in range(5)]
    await refund(connection, calls[0], reason="x", status=None, grace=GRACE, only_open=False)
    await older_hold(connection, agent, shop)
    # What expired had an id without a time, here one that lies behind every month.
    lot = await connection.fetchval(
        "SELECT id FROM ledger.account WHERE wallet_id = $1 AND granted > 0", agent.wallet_id
    )
    await connection.execute("UPDATE ledger.account SET expires_at = now() WHERE id = $1", lot)
    timeless = UUID("f0000000-0000-4000-8000-000000000001")
    await connection.execute("SELECT ledger.expire_lot($1, $2)", lot, timeless)
    before = await rows(connection)
    file = "SELECT pg_relation_filenode($1::text::regclass)"
    files = [await connection.fetchval(file, f"ledger.{table}") for table in ("transfer", "settlement")]
    assert len(before) == 17
    await connection.close()

    assert migrations()[OURS][0] in await migrate(older)
    connection = await connect(DatabaseSettings(url=older))
    assert await rows(connection) == before
    after = [await connection.fetchval(file, f"ledger.{table}_first") for table in ("transfer", "settlement")]
    assert after == files, "they were not copied"
    assert await where(connection, timeless) == {"transfer_other"}
    assert await where(connection, calls[0]) == {"transfer_first"}
    assert (await proof.verify(connection)).sound
    rich = await World(connection).agent(1_000)
    assert await where(connection, await call(connection, rich, shop)) == {"transfer_first"}
    assert (await proof.verify(connection)).sound
    await connection.close()


async def test_every_month_to_come_has_its_partition_and_is_written_to_alone(
    connection: Connection, world: World
) -> None:
    agent, shop = await world.agent(10_000), await world.publisher()
    for months in range(3):
        exchange = await call(connection, agent, shop, id_in(months))
        name = "first" if months == 0 else f"{month_from_now(months):%Y_%m}"
        assert await where(connection, exchange) == {f"transfer_{name}"}
        assert await where(connection, exchange, "settlement", "exchange_id") == {f"settlement_{name}"}
    far = await call(connection, agent, shop, id_in(7))
    assert await where(connection, far) == {"transfer_other"}
    assert (await proof.verify(connection)).sound


async def test_calls_without_a_partition_go_on_and_are_moved_when_it_is_made(
    connection: Connection, world: World, database_url: str
) -> None:
    agent, shop = await world.agent(10_000), await world.publisher()
    last = f"{month_from_now(3):%Y_%m}"
    for table in ("transfer", "settlement"):
        await connection.execute(f"ALTER TABLE ledger.{table} DETACH PARTITION ledger.{table}_{last}")
        await connection.execute(f"DROP TABLE ledger.{table}_{last}")
    exchange = await call(connection, agent, shop, id_in(3))
    assert await where(connection, exchange) == {"transfer_other"}
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    try:
        ahead = await make_ahead(database)
    finally:
        await database.stop()
    assert await where(connection, exchange) == {f"transfer_{last}"}
    assert await where(connection, exchange, "settlement", "exchange_id") == {f"settlement_{last}"}
    assert ahead > 80 * 86_400
    assert (await proof.verify(connection)).sound
    verdicts = await post(connection, [Charge(exchange, agent.wallet_id, shop.id, shop.account_id, 100, 7)], None, [])
    assert [one.verdict for one in verdicts] == ["replayed"], "it was charged once, wherever it lies"


async def test_whoever_makes_partitions_waits_for_nobody_for_long(
    connection: Connection, world: World, database_url: str
) -> None:
    """A proof may read for an hour; a lock that waits for it would hold up every call."""
    agent, shop = await world.agent(10_000), await world.publisher()
    reader = await connect(DatabaseSettings(url=database_url))
    async with reader.transaction(isolation="repeatable_read", readonly=True):
        await reader.execute("SELECT count(*) FROM ledger.transfer")
        with pytest.raises(asyncpg.LockNotAvailableError):
            async with connection.transaction():
                await connection.execute("SELECT ledger.make_ahead('transfer', 5)")
        await call(connection, agent, shop)
    await reader.close()
    assert await connection.fetchval("SELECT ledger.make_ahead('transfer', 5)") == 2
    assert await connection.fetchval("SELECT ledger.make_ahead('transfer', 5)") == 0


async def test_two_workers_make_a_month_once(connection: Connection, database_url: str) -> None:
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    try:
        for table in ("transfer", "settlement"):
            await connection.execute(f"DROP TABLE ledger.{table}_{month_from_now(2):%Y_%m}")
        await asyncio.gather(*(make_ahead(database) for _ in range(4)))
        await make_ahead(database)
    finally:
        await database.stop()
    names = [row[0] for row in await connection.fetch("SELECT name FROM ledger.partitions('settlement')")]
    assert f"settlement_{month_from_now(2):%Y_%m}" in names


SCANS = """
    SELECT relname FROM pg_stat_xact_user_tables
     WHERE schemaname = 'ledger' AND relname ~ '^(transfer|settlement)_'
       AND coalesce(seq_scan, 0) + coalesce(idx_scan, 0) + n_tup_ins > 0
"""


@pytest.mark.parametrize("times", [1, 8])
async def test_a_call_looks_into_one_partition_only(connection: Connection, world: World, times: int) -> None:
    """Also when its plans are kept, which the sixth use of a statement may be."""
    agent, shop = await world.agent(10_000), await world.publisher()
    for _ in range(times):
        await connection.execute("SELECT pg_stat_force_next_flush()")  # what was counted before is not counted again
        async with connection.transaction():
            await call(connection, agent, shop)
            charges = [Charge(uuid7(), agent.wallet_id, shop.id, shop.account_id, 100, 7) for _ in range(3)]
            await post(connection, charges, None, [Settlement(charges[0].exchange_id, "delivered", 200, 0, 9)])
            await post(connection, charges[:1], None, [])  # again
            await refund(connection, charges[1].exchange_id, reason="x", status=None, grace=GRACE, only_open=True)
            taken = await held(connection, agent, shop, 40)
            await refund(connection, taken, reason="x", status=None, grace=GRACE, only_open=False)
            await held(connection, agent, shop, 0)
            touched = {row[0] for row in await connection.fetch(SCANS)}
        assert touched == {"transfer_first", "settlement_first"}


async def test_history_cannot_be_changed_in_a_partition_either(connection: Connection, world: World) -> None:
    agent, shop = await world.agent(10_000), await world.publisher()
    await call(connection, agent, shop)
    await call(connection, agent, shop, id_in(1))
    await call(connection, agent, shop, id_in(9))
    names = [row[0] for row in await connection.fetch("SELECT name FROM ledger.partitions('transfer')")]
    assert len(names) >= 5
    for name in names:
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await connection.execute(f"TRUNCATE ledger.{name}")
        if await connection.fetchval(f"SELECT count(*) FROM ledger.{name}"):
            for change in (f"UPDATE ledger.{name} SET amount = 1", f"DELETE FROM ledger.{name}"):
                with pytest.raises(asyncpg.RaiseError, match="append-only"):
                    await connection.execute(change)


async def test_what_expires_has_its_time(connection: Connection, world: World) -> None:
    agent = await world.agent(100)
    await connection.execute("UPDATE ledger.account SET expires_at = now() WHERE wallet_id = $1", agent.wallet_id)
    assert await connection.fetchval("SELECT ledger.expire_lots(100)") >= 1
    cause = await connection.fetchval("SELECT cause_id FROM ledger.transfer WHERE kind = 'expire' AND wallet_id = $1", agent.wallet_id)  # fmt: skip
    assert cause.version == 7
    assert abs((cause.int >> 80) / 1000 - datetime.now(UTC).timestamp()) < 3_600
    assert await where(connection, cause) == {"transfer_first"}
