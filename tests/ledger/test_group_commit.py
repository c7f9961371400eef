"""Concurrent charges: one verdict each, exact at the last cent, whatever batch they share."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from gateway.database.pool import Connection, Database, connect
from gateway.errors import Unavailable
from gateway.ids import floor_at, uuid7
from gateway.jobs.heartbeat import Heartbeat
from gateway.jobs.reconcile import Reconciler
from gateway.ledger import batches, exactly, group_commit, proof, wallets
from gateway.ledger.entries import Charge, Settlement, post
from gateway.ledger.exchanges import EARNINGS_ACCOUNT, START_WORKER, refund
from gateway.ledger.group_commit import GroupCommit
from gateway.settings import DatabaseSettings
from tests.support.switch import Switch
from tests.support.world import ETHER, Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")


@pytest_asyncio.fixture
async def ledger(database_url: str) -> AsyncIterator[GroupCommit]:
    opened = GroupCommit(DatabaseSettings(url=database_url), grace=timedelta(days=7))
    yield opened
    await opened.stop()


def charge_of(agent: Agent, shop: Shop, amount: int, fee: int = 0) -> Charge:
    return Charge(uuid7(), agent.wallet_id, shop.id, shop.account_id, amount, fee)


async def test_200_at_once_with_funds_for_37_post_exactly_37(ledger: GroupCommit, world: World) -> None:
    agent, shop = await world.agent(37 * 10_000), await world.publisher()
    verdicts = await asyncio.gather(*(ledger.charge(charge_of(agent, shop, 10_000, 250)) for _ in range(200)))
    assert Counter(verdict.verdict for verdict in verdicts) == {"posted": 37, "short": 163}
    assert await world.balance(agent) == 0
    assert await world.earned(shop) == 37 * 9_750


async def test_four_workers_share_wallets_without_deadlock_or_overdraft(database_url: str, world: World) -> None:
    agents = [await world.agent(50 * 100) for _ in range(3)]
    shop = await world.publisher()
    workers = [GroupCommit(DatabaseSettings(url=database_url), grace=timedelta(days=7)) for _ in range(4)]
    charges = [charge_of(agents[index % 3], shop, 100) for index in range(600)]
    verdicts = await asyncio.gather(*(workers[index % 4].charge(item) for index, item in enumerate(charges)))
    for worker in workers:
        await worker.stop()
    assert Counter(verdict.verdict for verdict in verdicts) == {"posted": 150, "short": 450}
    assert [await world.balance(agent) for agent in agents] == [0, 0, 0]


async def test_a_charge_that_does_not_fit_fails_alone(ledger: GroupCommit, world: World) -> None:
    rich, poor, shop = await world.agent(10_000), await world.agent(50), await world.publisher()
    verdicts = await asyncio.gather(
        ledger.charge(charge_of(rich, shop, 100)),
        ledger.charge(charge_of(poor, shop, 100)),
        ledger.charge(charge_of(poor, shop, 50)),
        ledger.charge(charge_of(rich, shop, 100)),
    )
    assert [verdict.verdict for verdict in verdicts] == ["posted", "short", "posted", "posted"]
    assert verdicts[1].available == 50


@pytest.mark.parametrize("together", [1, 5])
async def test_lots_are_drawn_in_the_documented_order(
    ledger: GroupCommit, world: World, connection: Connection, together: int
) -> None:
    """Deposit for this publisher, promotional by earliest expiry, funded; another publisher's deposit never."""
    agent, shop, other = await world.agent(), await world.publisher(), await world.publisher()
    soon, later = datetime.now(UTC) + timedelta(days=1), datetime.now(UTC) + timedelta(days=9)
    give = wallets.grant
    await give(connection, agent.wallet_id, source="fiat_purchase", reference="1", amount=100)
    await give(connection, agent.wallet_id, source="daily_claim", reference="2", amount=100, expires_at=later)
    await give(connection, agent.wallet_id, source="signup_bonus", reference="3", amount=100, expires_at=soon)
    await wallets.deposit(
        connection, agent.wallet_id, publisher_id=shop.id, reference="4", amount=100, rail="eip155:8453"
    )
    await wallets.deposit(
        connection, agent.wallet_id, publisher_id=other.id, reference="5", amount=100, rail="eip155:8453"
    )
    verdicts = await asyncio.gather(*(ledger.charge(charge_of(agent, shop, 250 // together)) for _ in range(together)))
    assert sum(verdict.deposit for verdict in verdicts) == 100
    assert sum(verdict.promotional for verdict in verdicts) == 150
    assert sum(verdict.funded for verdict in verdicts) == 0
    left = {row.source: row.balance for row in await wallets.BALANCES.all(connection, agent.wallet_id)}
    assert left == {"onchain_deposit": 100, "daily_claim": 50, "fiat_purchase": 100}
    assert (await ledger.charge(charge_of(agent, shop, 151))).verdict == "short"


async def test_expired_money_cannot_be_spent(ledger: GroupCommit, world: World, connection: Connection) -> None:
    agent, shop = await world.agent(), await world.publisher()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    await wallets.grant(
        connection, agent.wallet_id, source="promo_code", reference="x", amount=100, expires_at=yesterday
    )
    assert (await ledger.charge(charge_of(agent, shop, 1))).verdict == "short"
    assert await world.balance(agent) == 0
    assert await wallets.EXPIRE_LOTS.one(connection, 100) == 1


async def test_the_same_exchange_is_charged_once(ledger: GroupCommit, world: World) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    item = charge_of(agent, shop, 100)
    verdicts = [(await ledger.charge(item)).verdict, (await ledger.charge(item)).verdict]
    together = await asyncio.gather(*(ledger.charge(item) for _ in range(5)), ledger.charge(charge_of(agent, shop, 1)))
    assert verdicts == ["posted", "replayed"]
    assert [verdict.verdict for verdict in together] == ["replayed"] * 5 + ["posted"]
    changed = Charge(item.exchange_id, item.wallet_id, shop.id, shop.account_id, 999, 0)
    assert (await ledger.charge(changed)).verdict == "conflict"
    assert await world.balance(agent) == 899


async def test_one_exchange_sent_by_two_workers_for_two_wallets_moves_money_once(
    database_url: str, world: World
) -> None:
    """The unique key is met inside a batch: the batch is sent again item by item and nobody else suffers."""
    first, second, shop = await world.agent(1_000), await world.agent(1_000), await world.publisher()
    workers = [GroupCommit(DatabaseSettings(url=database_url), grace=timedelta(days=7)) for _ in range(2)]
    shared = uuid7()
    mine = [Charge(shared, first.wallet_id, shop.id, shop.account_id, 10, 0), charge_of(first, shop, 10)]
    theirs = [Charge(shared, second.wallet_id, shop.id, shop.account_id, 10, 0), charge_of(second, shop, 10)]
    one, two = await asyncio.gather(
        asyncio.gather(*(workers[0].charge(item) for item in mine)),
        asyncio.gather(*(workers[1].charge(item) for item in theirs)),
    )
    for worker in workers:
        await worker.stop()
    assert sorted([one[0].verdict, two[0].verdict]) == ["conflict", "posted"]
    assert (one[1].verdict, two[1].verdict) == ("posted", "posted")


async def test_a_lost_connection_charges_once(ledger: GroupCommit, world: World, connection: Connection) -> None:
    agent, shop = await world.agent(10_000), await world.publisher()
    await ledger.charge(charge_of(agent, shop, 1))
    waiting = [asyncio.create_task(ledger.charge(charge_of(agent, shop, 10))) for _ in range(20)]
    await asyncio.sleep(0)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    verdicts = await asyncio.gather(*waiting)
    assert all(verdict.paid for verdict in verdicts)
    assert await world.balance(agent) == 10_000 - 1 - 200


async def test_an_unreachable_ledger_answers_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exactly, "RETRY_SECONDS", (0.0, 0.05))
    nowhere = GroupCommit(
        DatabaseSettings(url="postgresql://x@127.0.0.1:1/x", connect_timeout=0.2), grace=timedelta(days=7)
    )
    with pytest.raises(Unavailable):
        await asyncio.wait_for(nowhere.charge(Charge(uuid7(), 1, uuid4(), 1, 1, 0)), 20)
    await nowhere.stop()


async def test_a_cancelled_caller_gets_its_money_back(ledger: GroupCommit, world: World) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    task = asyncio.create_task(ledger.charge(charge_of(agent, shop, 100)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ledger.stop()
    assert await world.balance(agent) == 1_000


async def test_refund_returns_to_the_lots_once(ledger: GroupCommit, world: World, connection: Connection) -> None:
    agent, shop = await world.agent(), await world.publisher()
    soon = datetime.now(UTC) + timedelta(days=1)
    for number, source in enumerate(("signup_bonus", "fiat_purchase")):
        expires = soon if source == "signup_bonus" else None
        await wallets.grant(
            connection, agent.wallet_id, source=source, reference=str(number), amount=100, expires_at=expires
        )
    item = charge_of(agent, shop, 150, 3)
    await ledger.charge(item)
    first = await ledger.refund(item.exchange_id, reason="upstream_5xx", status=503)
    again = await ledger.refund(item.exchange_id, reason="upstream_5xx", status=503)
    assert (first.verdict, first.amount, again.verdict, again.amount) == ("refunded", 150, "repeated", 150)
    left = {row.source: row.balance for row in await wallets.BALANCES.all(connection, agent.wallet_id)}
    assert left == {"signup_bonus": 100, "fiat_purchase": 100}
    assert await world.earned(shop) == 0


async def test_a_refund_revives_an_expired_lot_for_the_grace_period(
    ledger: GroupCommit, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(), await world.publisher()
    moment = datetime.now(UTC) + timedelta(milliseconds=400)
    await wallets.grant(connection, agent.wallet_id, source="promo_code", reference="x", amount=100, expires_at=moment)
    item = charge_of(agent, shop, 60)
    assert (await ledger.charge(item)).paid
    await asyncio.sleep(0.5)
    await ledger.refund(item.exchange_id, reason="timeout", status=None)
    assert await world.balance(agent) == 60, "what was taken comes back; what had expired beside it does not"
    expires = await connection.fetchval("SELECT expires_at FROM ledger.account WHERE wallet_id = $1", agent.wallet_id)
    assert timedelta(days=6) < expires - datetime.now(UTC) <= timedelta(days=7)


async def test_a_settled_exchange_is_not_refunded_by_a_late_reconciler(ledger: GroupCommit, world: World) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    item = charge_of(agent, shop, 100)
    await ledger.charge(item)
    ledger.settle(Settlement(item.exchange_id, "delivered", 200, 0, 10))
    await asyncio.sleep(0.2)
    assert (await ledger.refund(item.exchange_id, reason="reconciled", status=None)).verdict == "settled"
    assert await world.balance(agent) == 900


async def test_18_decimals_move_exactly(ledger: GroupCommit, world: World, connection: Connection) -> None:
    funds, price = 12_345_678_901_234_567_890, 10_000_000_000_000_000_001
    agent = await world.agent(funds, asset=ETHER)
    shop = await world.publisher(asset=ETHER)
    account = await EARNINGS_ACCOUNT.one(connection, shop.id, ETHER)
    item = Charge(uuid7(), agent.wallet_id, shop.id, account, price, 7)
    verdicts = await asyncio.gather(
        ledger.charge(item), ledger.charge(Charge(uuid7(), agent.wallet_id, shop.id, account, price, 7))
    )
    assert [verdict.verdict for verdict in verdicts] == ["posted", "short"]
    assert verdicts[0].available == funds - price
    assert await world.balance(agent) == funds - price


async def test_an_end_that_somebody_else_has_recorded_costs_its_batch_nothing_but_time(
    ledger: GroupCommit, world: World, connection: Connection
) -> None:
    """The reconciler has refunded a call that this worker says was delivered; the end of another rides along too."""
    agent, shop = await world.agent(1_000), await world.publisher()
    refunded, delivered = charge_of(agent, shop, 100), charge_of(agent, shop, 10)
    for charged in (refunded, delivered):
        await ledger.charge(charged)
    await refund(
        connection, refunded.exchange_id, reason="worker_gone", status=None, grace=timedelta(days=7), only_open=True
    )
    for ended in (refunded, delivered, delivered):
        ledger.settle(Settlement(ended.exchange_id, "delivered", 200, 0, 10))
    verdicts = await asyncio.gather(*(ledger.charge(charge_of(agent, shop, 1)) for _ in range(3)))
    assert [verdict.verdict for verdict in verdicts] == ["posted"] * 3
    outcomes = await connection.fetch(
        "SELECT outcome::text FROM ledger.settlement WHERE exchange_id = ANY ($1) ORDER BY array_position($1, exchange_id)",
        [refunded.exchange_id, delivered.exchange_id],
    )
    assert [row["outcome"] for row in outcomes] == ["refunded", "settled"]
    assert (await world.balance(agent), await world.earned(shop)) == (987, 13)


async def test_history_cannot_be_changed(world: World, connection: Connection) -> None:
    await world.agent(100)
    for statement in (
        "UPDATE ledger.transfer SET amount = 1",
        "DELETE FROM ledger.transfer",
        "TRUNCATE ledger.transfer",
    ):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await connection.execute(statement)


async def test_the_database_itself_refuses_an_overdraft(world: World, connection: Connection) -> None:
    agent = await world.agent(100)
    with pytest.raises(asyncpg.CheckViolationError, match="no_overdraft"):
        await connection.execute(
            "UPDATE ledger.account SET balance = balance - 101 WHERE wallet_id = $1", agent.wallet_id
        )


async def test_the_proof_finds_what_was_tampered_with(world: World, connection: Connection) -> None:
    agent, shop = await world.agent(100), await world.publisher()
    tampered = connection.transaction()
    await tampered.start()
    await connection.execute("UPDATE ledger.account SET balance = balance + 1 WHERE wallet_id = $1", agent.wallet_id)
    await connection.execute("INSERT INTO ledger.shard VALUES ($1, 0, 0, 5)", shop.account_id)
    await connection.execute("INSERT INTO ledger.settlement VALUES ($1, 'settled', 'x')", uuid4())
    found = set()
    for rule, statement in proof.RULES.items():
        if await statement.all(connection):
            found.add(rule)
    await tampered.rollback()
    assert found == {
        "customer balances equal their transfers",
        "sharded balances equal their transfers",
        "every settlement has its charge, hold, payment or count",
    }


async def up_for(connection: Connection, time: timedelta) -> None:
    """Wait until the database is up for so long: before, a silent worker means nothing."""
    async with asyncio.timeout(60):
        while await connection.fetchval("SELECT pg_postmaster_start_time() >= now() - $1::interval", time):
            await asyncio.sleep(0.1)


async def test_a_worker_taken_for_dead_can_charge_nothing_until_it_registers_again(
    database_url: str, ledger: GroupCommit, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    dead_after = timedelta(seconds=5)
    heartbeat = Heartbeat(database, ledger, [], dead_after=dead_after)
    await heartbeat.start()
    await up_for(connection, dead_after)
    first = charge_of(agent, shop, 100)
    assert (await ledger.charge(first)).paid
    await connection.execute(
        "UPDATE ledger.worker SET seen_at = now() - interval '1 hour' WHERE id = $1", ledger.worker_id
    )
    assert await Reconciler(database, timedelta(days=7), dead_after, lambda: False).run() == 0, "who may not judge"
    assert await Reconciler(database, timedelta(days=7), dead_after, lambda: True).run() == 1
    with pytest.raises(Unavailable, match="taken for dead"):
        await ledger.charge(charge_of(agent, shop, 100))
    assert await world.balance(agent) == 1_000
    await heartbeat.beat()
    assert (await ledger.charge(charge_of(agent, shop, 100))).verdict == "posted"
    await database.stop()


async def test_a_worker_that_is_charging_is_not_fenced(database_url: str, world: World, connection: Connection) -> None:
    """The reconciler passes over it, and finds the charge afterwards: nothing falls between the two."""
    agent, shop = await world.agent(1_000), await world.publisher()
    worker = await START_WORKER.one(connection, floor_at(0), [])
    await connection.execute("UPDATE ledger.worker SET seen_at = now() - interval '1 hour' WHERE id = $1", worker)
    charging = await connect(DatabaseSettings(url=database_url))
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    reconciler = Reconciler(database, timedelta(days=7), timedelta(seconds=5), lambda: True)
    await up_for(connection, timedelta(seconds=5))
    async with charging.transaction():
        verdicts = await post(charging, [charge_of(agent, shop, 100)], worker, [])
        assert await reconciler.run() == 0
    assert (verdicts[0].verdict, await world.balance(agent)) == ("posted", 900)
    assert await reconciler.run() == 1
    assert await world.balance(agent) == 1_000
    await charging.close()
    await database.stop()


async def test_a_hanging_ledger_answers_unavailable_and_gives_back_what_it_took(
    ledger: GroupCommit, world: World, connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PATIENCE", 0.3)
    agent, shop = await world.agent(1_000), await world.publisher()
    blocker = await connect(DatabaseSettings(url=database_url))
    async with blocker.transaction():
        await wallets.LOCK_WALLET.run(blocker, agent.wallet_id)
        waiting = [asyncio.create_task(ledger.charge(charge_of(agent, shop, 10))) for _ in range(5)]
        await asyncio.sleep(0.1)
        waiting += [asyncio.create_task(ledger.charge(charge_of(agent, shop, 10))) for _ in range(5)]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        with pytest.raises(Unavailable, match="does not keep up"):
            await ledger.charge(charge_of(agent, shop, 10))
    await blocker.close()
    while ledger.open_exchanges:
        await asyncio.sleep(0.02)
    assert await world.balance(agent) == 1_000
    assert (await ledger.charge(charge_of(agent, shop, 10))).paid


async def test_a_refund_that_finds_no_database_is_made_when_it_is_back(
    database_url: str, world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exactly, "RETRY_SECONDS", (0.0, 0.05))
    agent, shop = await world.agent(1_000), await world.publisher()
    async with Switch(database_url) as switch:
        ledger = GroupCommit(DatabaseSettings(url=switch.url), grace=timedelta(days=7))
        charged = charge_of(agent, shop, 100)
        await ledger.charge(charged)
        await switch.off()
        with pytest.raises(Unavailable):
            await ledger.refund(charged.exchange_id, reason="upstream_5xx", status=503)
        with pytest.raises(Unavailable):
            await ledger.charge(charge_of(agent, shop, 100))
        assert (ledger.owed, await world.balance(agent)) == (2, 900)
        assert ledger.settled_through(2**47) <= charged.exchange_id, "a crash now must leave it to the reconciler"
        await switch.on()
        while await world.balance(agent) != 1_000:
            await asyncio.sleep(0.05)
        await ledger.stop()


async def test_settlements_that_find_no_database_are_written_when_it_is_back_without_another_call(
    database_url: str, world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exactly, "RETRY_SECONDS", (0.0, 0.05))
    agent, shop = await world.agent(1_000), await world.publisher()
    async with Switch(database_url) as switch:
        ledger = GroupCommit(DatabaseSettings(url=switch.url), grace=timedelta(days=7))
        charged = charge_of(agent, shop, 100)
        await ledger.charge(charged)
        await switch.off()
        ledger.settle(Settlement(charged.exchange_id, "delivered", 200, 0, 10))
        await asyncio.sleep(0.3)
        await switch.on()
        while ledger.open_exchanges:
            await asyncio.sleep(0.05)
        outcome = "SELECT outcome::text FROM ledger.settlement WHERE exchange_id = $1"
        assert await connection.fetchval(outcome, charged.exchange_id) == "settled"
        await ledger.stop()


async def test_a_call_too_old_for_the_reconciler_is_not_charged(ledger: GroupCommit, world: World) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    late = charge_of(agent, shop, 100)
    await asyncio.sleep(0.002)
    ledger.settled_through(time.time_ns() // 1_000_000 + group_commit.SLACK_MS)
    with pytest.raises(Unavailable, match="took too long"):
        await ledger.charge(late)
    assert await world.balance(agent) == 1_000


async def test_a_batch_that_ends_what_somebody_else_refunds_meanwhile_is_in_no_deadlock(
    world: World, connection: Connection, database_url: str
) -> None:
    """The refund has the wallet and wants to write the end; the batch wants both."""
    agent, shop = await world.agent(1_000), await world.publisher()
    first, second = charge_of(agent, shop, 10), charge_of(agent, shop, 10)
    await post(connection, [first], None, [])
    refunding, batching = [await connect(DatabaseSettings(url=database_url)) for _ in range(2)]
    async with refunding.transaction():
        await wallets.LOCK_WALLET.run(refunding, agent.wallet_id)
        end = Settlement(first.exchange_id, "delivered", 200, 0, 0)
        batch = asyncio.create_task(post(batching, [second], None, [end]))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while not await connection.fetchval(waits):
            await asyncio.sleep(0.01)
        undone = await refund(
            refunding, first.exchange_id, reason="x", status=None, grace=timedelta(days=7), only_open=True
        )
    assert (undone.verdict, [verdict.verdict for verdict in await batch]) == ("refunded", ["posted"])
    assert await world.balance(agent) == 990
    for one in (refunding, batching):
        await one.close()
