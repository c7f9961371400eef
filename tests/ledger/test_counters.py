"""Counters: bounded in the statement that takes the money, corrected in the one that gives it back, never in between."""

import asyncio
from collections import Counter as Tally
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta

import pytest
import pytest_asyncio

from gateway.database.pool import Connection, Database, connect
from gateway.ids import floor_at, uuid7
from gateway.jobs.reconcile import Reconciler
from gateway.ledger import proof
from gateway.ledger.counters import READ_COUNTER, Counter, month_of
from gateway.ledger.entries import Charge, Settlement, post
from gateway.ledger.exchanges import END_HOLD, START_WORKER, STOP_WORKER, refund
from gateway.ledger.group_commit import GroupCommit
from gateway.ledger.holds import Capture, Hold, post_holds
from gateway.ledger.resolutions import resolve, unended
from gateway.settings import DatabaseSettings
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
GRACE = timedelta(days=7)
DAY = date(2031, 3, 14)


@pytest_asyncio.fixture
async def ledger(database_url: str) -> AsyncIterator[GroupCommit]:
    opened = GroupCommit(DatabaseSettings(url=database_url), grace=GRACE)
    yield opened
    await opened.stop()


def calls(agent: Agent, shop: Shop, most: int | None = None, least: int = 0, adds: int = 1) -> Counter:
    return Counter(agent.id, shop.id, "calls", month_of(DAY), adds, least, most)


def spent(agent: Agent, shop: Shop, most: int | None = None) -> Counter:
    return Counter(agent.id, shop.id, "spent", DAY, None, 0, most)


def charge_of(agent: Agent, shop: Shop, amount: int, *counters: Counter) -> Charge:
    return Charge(uuid7(), agent.wallet_id, shop.id, shop.account_id, amount, 0, counters)


def hold_of(agent: Agent, shop: Shop, amount: int, *counters: Counter) -> Hold:
    return Hold(uuid7(), agent.wallet_id, shop.id, shop.account_id, amount, counters)


async def standing(connection: Connection, counter: Counter) -> int:
    return await READ_COUNTER.one(connection, counter.scope, counter.subject, counter.kind, counter.period)


def said(verdicts) -> list[str]:
    return [verdict.verdict for verdict in verdicts]


async def test_a_charge_counts_itself_and_its_money(ledger: GroupCommit, world: World, connection: Connection) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    for _ in range(3):
        assert (await ledger.charge(charge_of(agent, shop, 70, calls(agent, shop), spent(agent, shop)))).paid
    assert await standing(connection, calls(agent, shop)) == 3
    assert await standing(connection, spent(agent, shop)) == 210


async def test_what_would_pass_a_bound_is_refused_alone_and_says_where_the_counter_stands(
    world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    bound = spent(agent, shop, 100)
    asked = [charge_of(agent, shop, amount, calls(agent, shop), bound) for amount in (60, 50, 40, 1)]
    verdicts = await post(connection, [*asked, charge_of(agent, shop, 5)], None, [])
    assert said(verdicts) == ["posted", "beyond", "posted", "beyond", "posted"]
    assert (verdicts[1].kind, verdicts[1].counted, verdicts[3].counted) == ("spent", 60, 100)
    assert (await world.balance(agent), await standing(connection, calls(agent, shop))) == (895, 2)


async def test_a_counter_that_stands_below_what_the_price_was_made_for_refuses(
    world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    (refused,) = await post(connection, [charge_of(agent, shop, 10, calls(agent, shop, least=1))], None, [])
    assert (refused.verdict, refused.kind, refused.counted) == ("beyond", "calls", 0)
    assert await world.balance(agent) == 1_000


@pytest.mark.parametrize("together", [True, False])
async def test_what_cannot_be_paid_is_not_counted(world: World, connection: Connection, together: bool) -> None:
    rich, poor, shop = await world.agent(1_000), await world.agent(5), await world.publisher()
    asked = [charge_of(agent, shop, 10, calls(agent, shop, 9)) for agent in (rich, poor, rich)]
    asked += [] if together else [charge_of(rich, shop, 10, calls(rich, shop, adds=9, most=9))]
    verdicts = await post(connection, asked, None, [])
    assert said(verdicts) == ["posted", "short", "posted", *([] if together else ["beyond"])]
    assert await standing(connection, calls(rich, shop)) == 2
    assert await standing(connection, calls(poor, shop)) == 0


async def test_a_free_call_is_counted_and_bounded_without_a_wallet(world: World, connection: Connection) -> None:
    agent, shop = await world.agent(), await world.publisher()
    free = [replace(charge_of(agent, shop, 0, calls(agent, shop, 2)), wallet_id=0) for _ in range(2)]
    paid = charge_of(agent, shop, 10, calls(agent, shop))
    assert said(await post(connection, [free[0], paid, free[1]], None, [])) == ["posted", "short", "posted"]
    assert said(await post(connection, free, None, [])) == ["replayed", "replayed"]
    assert said(await post(connection, [charge_of(agent, shop, 0, calls(agent, shop, 2))], None, [])) == ["beyond"]
    assert await standing(connection, calls(agent, shop)) == 2
    with pytest.raises(ValueError, match="counts nothing"):
        charge_of(agent, shop, 0)


async def test_a_refund_uncounts_once(ledger: GroupCommit, world: World, connection: Connection) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    paid, free = (charge_of(agent, shop, amount, calls(agent, shop), spent(agent, shop)) for amount in (70, 0))
    for one in (paid, free):
        await ledger.charge(one)
        for verdict in ("refunded", "repeated" if one is paid else "settled"):
            assert (await ledger.refund(one.exchange_id, reason="x", status=503)).verdict == verdict
        assert (await ledger.charge(one)).verdict == "replayed", "its id is used up"
    assert await standing(connection, calls(agent, shop)) == await standing(connection, spent(agent, shop)) == 0
    assert (await ledger.refund(uuid7(), reason="x", status=None)).verdict == "unknown"


async def test_a_settled_free_call_stays_counted(ledger: GroupCommit, world: World, connection: Connection) -> None:
    agent, shop = await world.agent(), await world.publisher()
    free = charge_of(agent, shop, 0, calls(agent, shop))
    await ledger.charge(free)
    ledger.settle(Settlement(free.exchange_id, "delivered", 200, 0, 10))
    while ledger.open_exchanges:
        await asyncio.sleep(0.01)
    assert (await ledger.refund(free.exchange_id, reason="reconciled", status=None)).verdict == "settled"
    assert await standing(connection, calls(agent, shop)) == 1
    undone = await refund(connection, free.exchange_id, reason="operator", status=None, grace=GRACE, only_open=False)
    assert (undone.verdict, await standing(connection, calls(agent, shop))) == ("refunded", 0)


async def test_a_hold_counts_what_it_reserves_and_in_the_end_what_was_taken(
    world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    count, money = calls(agent, shop), spent(agent, shop, 150)
    first, second = (hold_of(agent, shop, 100, count, money) for _ in range(2))
    assert said(await post_holds(connection, [first], None, [], GRACE)) == ["held"]
    (refused,) = await post_holds(connection, [second], None, [], GRACE)
    assert (refused.verdict, refused.kind, refused.counted) == ("beyond", "spent", 100)
    end = Capture(Settlement(first.exchange_id, "delivered", 200, 0, 0), 30, 0)
    assert said(await post_holds(connection, [second], None, [end], GRACE)) == ["captured", "held"]
    assert (await standing(connection, count), await standing(connection, money)) == (2, 130)
    await END_HOLD.one(connection, second.exchange_id, "0", "0", "x", None, 0, 0, GRACE)
    assert (await standing(connection, count), await standing(connection, money)) == (1, 30)
    await refund(connection, first.exchange_id, reason="x", status=None, grace=GRACE, only_open=False)
    assert (await standing(connection, count), await standing(connection, money)) == (0, 0)


async def test_a_hold_that_does_not_fit_counts_nothing_and_one_sent_again_counts_once(
    world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(100), await world.publisher()
    hold = hold_of(agent, shop, 100, calls(agent, shop), spent(agent, shop))
    assert said(await post_holds(connection, [replace(hold, amount=101)], None, [], GRACE)) == ["short"]
    assert await standing(connection, calls(agent, shop)) == 0
    for verdict in ("held", "repeated"):
        assert said(await post_holds(connection, [hold], None, [], GRACE)) == [verdict]
    assert (await standing(connection, calls(agent, shop)), await standing(connection, spent(agent, shop))) == (1, 100)


async def test_a_lost_connection_counts_once(ledger: GroupCommit, world: World, connection: Connection) -> None:
    agent, shop = await world.agent(10_000), await world.publisher()
    await ledger.charge(charge_of(agent, shop, 1))
    asked = [charge_of(agent, shop, number % 2, calls(agent, shop, 20)) for number in range(20)]
    waiting = [asyncio.create_task(ledger.charge(one)) for one in asked]
    await asyncio.sleep(0)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert all(verdict.paid for verdict in await asyncio.gather(*waiting))
    assert await standing(connection, calls(agent, shop)) == 20


async def test_workers_that_race_for_the_same_counters_pass_no_bound_and_no_deadlock(
    database_url: str, world: World, connection: Connection
) -> None:
    """Charges, holds, ends and refunds name counters in different orders; 40 calls fit."""
    agents, shop = [await world.agent(10_000) for _ in range(3)], await world.publisher()
    shared = [Counter(shop.id, shop.id, kind, DAY, 1, 0, 40) for kind in ("a", "b")]
    workers = [GroupCommit(DatabaseSettings(url=database_url), grace=GRACE) for _ in range(3)]
    holding = await connect(DatabaseSettings(url=database_url))

    async def hold(number: int) -> str:
        one = hold_of(agents[number % 3], shop, 10, *shared[:: (-1) ** number])
        async with lock:
            (verdict,) = await post_holds(holding, [one], None, [], GRACE)
            if verdict.verdict == "held":
                await END_HOLD.one(holding, one.exchange_id, "0", "0", "x", None, 0, 0, GRACE)
        return "given back" if verdict.verdict == "held" else verdict.verdict

    async def charge(number: int) -> str:
        counters = (*shared[:: (-1) ** number], calls(agents[number % 3], shop))
        one = charge_of(agents[(number + 1) % 3], shop, number % 4, *counters)
        verdict = await workers[number % 3].charge(one)
        if verdict.paid and number % 5 == 0:
            await workers[number % 3].refund(one.exchange_id, reason="x", status=None)
            return "given back"
        return verdict.verdict

    lock = asyncio.Lock()
    outcomes = Tally(await asyncio.gather(*(charge(number) for number in range(150)), *(hold(n) for n in range(20))))
    for worker in workers:
        await worker.stop()
    await holding.close()
    assert outcomes["posted"] == await standing(connection, shared[0]) <= 40
    assert {*outcomes} <= {"posted", "given back", "beyond"}
    assert outcomes["beyond"] > 0


async def test_a_dead_workers_free_calls_are_given_back(
    database_url: str, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(100), await world.publisher()
    worker = await START_WORKER.one(connection, floor_at(0), [])
    asked = [charge_of(agent, shop, amount, calls(agent, shop)) for amount in (0, 10)]
    assert said(await post(connection, asked, worker, [])) == ["posted", "posted"]
    await STOP_WORKER.run(connection, worker, floor_at(0))
    assert {row.exchange_id for row in await unended(connection, dead_after=GRACE)} >= {
        one.exchange_id for one in asked
    }
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    assert await Reconciler(database, GRACE, timedelta(seconds=5), lambda: True).run() >= 2
    await database.stop()
    assert (await standing(connection, calls(agent, shop)), await world.balance(agent)) == (0, 100)
    (fenced,) = await post(connection, [charge_of(agent, shop, 0, calls(agent, shop))], worker, [])
    assert fenced.verdict == "fenced"


@pytest.mark.parametrize(("decision", "left"), [("refund", 0), ("keep", 1)])
async def test_an_operator_ends_an_open_free_call(
    database_url: str, world: World, connection: Connection, decision, left: int
) -> None:
    agent, shop = await world.agent(), await world.publisher()
    free = charge_of(agent, shop, 0, calls(agent, shop), spent(agent, shop))
    await post(connection, [free], await START_WORKER.one(connection, floor_at(0), []), [])
    (row,) = await unended(connection, dead_after=GRACE, exchange_id=free.exchange_id)
    assert (row.exchange_id, row.kind, row.owner_id, row.publisher) == (free.exchange_id, "count", agent.id, shop.slug)
    assert round(row.since.timestamp() * 1000) == free.exchange_id.int >> 80
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    async with database.transaction() as own:
        await resolve(own, free.exchange_id, decision, actor="test", note=None, grace=GRACE)
    await database.stop()
    assert await standing(connection, calls(agent, shop)) == left
    assert await unended(connection, dead_after=GRACE, exchange_id=free.exchange_id) == []


async def test_the_proof_finds_counters_that_were_tampered_with(world: World, connection: Connection) -> None:
    agent, shop = await world.agent(100), await world.publisher()
    await post(connection, [charge_of(agent, shop, 10, calls(agent, shop), spent(agent, shop))], None, [])
    attempts = (
        "UPDATE ledger.counter SET value = value + 1 WHERE kind = 'calls' AND scope = $1",
        "DELETE FROM ledger.counter WHERE kind = 'calls' AND scope = $1",
        "WITH c AS (UPDATE ledger.counted SET amount = 9 WHERE kind = 'spent' AND scope = $1)"
        " UPDATE ledger.counter SET value = 9 WHERE kind = 'spent' AND scope = $1",
        "UPDATE ledger.counted SET alone = true WHERE kind = 'calls' AND scope = $1",
    )
    for statement in attempts:
        tampering = connection.transaction()
        await tampering.start()
        await connection.execute(statement, agent.id)
        found = [rule for rule, query in proof.RULES.items() if await query.all(connection)]
        await tampering.rollback()
        assert len(found) == 1, (statement, found)


async def test_a_caller_that_hangs_up_while_its_free_call_is_counted_gives_it_back(
    ledger: GroupCommit, world: World, connection: Connection
) -> None:
    agent, shop = await world.agent(), await world.publisher()
    waiting = asyncio.create_task(ledger.charge(charge_of(agent, shop, 0, calls(agent, shop))))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    while ledger.open_exchanges:
        await asyncio.sleep(0.01)
    assert await standing(connection, calls(agent, shop)) == 0
