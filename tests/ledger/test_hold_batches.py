"""Holds that are placed together and ended behind their callers' backs: exact, in order, and never left behind."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from gateway.database.pool import Connection, Database, connect
from gateway.errors import Unavailable
from gateway.ids import uuid7
from gateway.ledger import batches, exactly, wallets
from gateway.ledger.entries import Settlement
from gateway.ledger.exchanges import START_WORKER
from gateway.ledger.group_commit import GroupCommit
from gateway.ledger.holds import Capture, Hold, Holds
from gateway.settings import DatabaseSettings
from tests.support.switch import Switch
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
GRACE = timedelta(days=7)


class Worker:
    """The ledger's two doors of one gateway process."""

    def __init__(self, url: str, **settings: float) -> None:
        self.database = Database(DatabaseSettings.model_validate({"url": url, **settings}))
        self.ledger = GroupCommit(self.database.settings, grace=GRACE)
        self.holds = Holds(self.database, self.ledger, grace=GRACE)

    async def stop(self) -> None:
        await self.holds.stop()
        await self.ledger.stop()
        await self.database.stop()

    async def all_ended(self) -> None:
        """Wait until every exchange of it has its durable end."""
        while self.ledger.open_exchanges:
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def worker(database_url: str) -> AsyncIterator[Worker]:
    started = Worker(database_url)
    await started.database.start()
    yield started
    await started.stop()


def hold_of(agent: Agent, shop: Shop, amount: int) -> Hold:
    return Hold(uuid7(), agent.wallet_id, shop.id, shop.account_id, amount)


def end_of(hold: Hold, amount: int, fee: int = 0) -> Capture:
    return Capture(Settlement(hold.exchange_id, "delivered", 200, 1, 2, "POST", b"t", b"b"), amount, fee)


async def test_200_at_once_with_funds_for_37_hold_exactly_37(worker: Worker, world: World) -> None:
    agent, shop = await world.agent(37 * 100), await world.publisher()
    holds = [hold_of(agent, shop, 100) for _ in range(200)]
    verdicts = await asyncio.gather(*(worker.holds.place(hold) for hold in holds))
    assert Counter(verdict.verdict for verdict in verdicts) == {"held": 37, "busy": 163}
    for hold, verdict in zip(holds, verdicts, strict=True):
        if verdict.paid:
            worker.holds.finish_later(end_of(hold, 60, 2))
    await worker.all_ended()
    assert (await world.balance(agent), await world.earned(shop)) == (37 * 40, 37 * 58)


async def test_what_an_end_releases_can_be_held_at_once(worker: Worker, world: World, connection: Connection) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    for spent in range(0, 500, 10):
        hold = hold_of(agent, shop, 1_000 - spent)
        assert (await worker.holds.place(hold)).verdict == "held", f"after {spent}"
        worker.holds.finish_later(end_of(hold, 10))
    await worker.all_ended()
    assert await world.balance(agent) == 500
    told = "SELECT outcome::text, status, bytes_in, bytes_out, method, body_hash FROM ledger.settlement WHERE exchange_id = $1"
    assert tuple(await connection.fetchrow(told, hold.exchange_id)) == ("settled", 200, 1, 2, "POST", b"b")


async def test_a_wallet_is_busy_while_its_money_is_held_elsewhere(
    worker: Worker, world: World, database_url: str
) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    other = Worker(database_url)
    hold = hold_of(agent, shop, 900)
    await other.holds.place(hold)
    verdict = await worker.holds.place(hold_of(agent, shop, 200))
    assert (verdict.verdict, verdict.available) == ("busy", 100)
    other.holds.finish_later(end_of(hold, 500))
    await other.stop()
    assert (await worker.holds.place(hold_of(agent, shop, 501))).verdict == "short"
    assert (await worker.holds.place(hold_of(agent, shop, 500))).verdict == "held"


async def test_four_workers_share_wallets_and_sellers_without_deadlock(database_url: str, world: World) -> None:
    agents, shops = [await world.agent(10_000) for _ in range(3)], [await world.publisher() for _ in range(3)]
    workers = [Worker(database_url) for _ in range(4)]

    async def call(number: int) -> None:
        worker, hold = workers[number % 4], hold_of(agents[number % 3], shops[number % 5 % 3], 90)
        assert (await worker.holds.place(hold)).verdict == "held"
        worker.holds.finish_later(end_of(hold, number % 7 * 10, number % 7))

    for turn in range(6):
        await asyncio.gather(*(call(turn * 50 + number) for number in range(50)))
    for worker in workers:
        await worker.stop()
    spent = sum(number % 7 * 10 for number in range(300))
    assert sum([await world.balance(agent) for agent in agents]) == 30_000 - spent


async def test_a_cancelled_caller_leaves_nothing_held(worker: Worker, world: World) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    placing = asyncio.create_task(worker.holds.place(hold_of(agent, shop, 100)))
    await asyncio.sleep(0)
    placing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await placing
    await worker.all_ended()
    assert await world.balance(agent) == 1_000


async def test_a_lost_connection_holds_and_ends_once(worker: Worker, world: World, connection: Connection) -> None:
    agent, shop = await world.agent(10_000), await world.publisher()
    first = hold_of(agent, shop, 1_000)
    await worker.holds.place(first)
    worker.holds.finish_later(end_of(first, 10))
    holds = [hold_of(agent, shop, 100) for _ in range(20)]
    placing = [asyncio.create_task(worker.holds.place(hold)) for hold in holds]
    await asyncio.sleep(0)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert all(verdict.paid for verdict in await asyncio.gather(*placing))
    for hold in holds:
        worker.holds.finish_later(end_of(hold, 100))
    await worker.all_ended()
    assert await world.balance(agent) == 10_000 - 10 - 2_000


async def test_ends_wait_for_a_database_that_is_away_and_holds_do_not(
    database_url: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exactly, "RETRY_SECONDS", (0.0, 0.05))
    monkeypatch.setattr(batches, "FLUSH_AGAIN_SECONDS", 0.1)
    agent, shop = await world.agent(1_000), await world.publisher()
    async with Switch(database_url) as switch:
        worker = Worker(switch.url, command_timeout=3)  # for so long a statement that was cut off stays in doubt
        await worker.database.start()
        delivered, refused = hold_of(agent, shop, 100), hold_of(agent, shop, 100)
        await worker.holds.place(delivered)
        await switch.off()
        worker.holds.finish_later(end_of(delivered, 30))
        with pytest.raises(Unavailable):
            await worker.holds.place(refused)
        assert worker.ledger.settled_through(2**47) <= delivered.exchange_id, "a crash now is the reconciler's"
        await switch.on()
        await worker.all_ended()
        assert await world.balance(agent) == 970
        await worker.stop()


async def test_a_hanging_ledger_answers_unavailable_and_keeps_nothing_held(
    worker: Worker, world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PATIENCE", 0.3)
    agent, shop = await world.agent(1_000), await world.publisher()
    blocker = await connect(DatabaseSettings(url=database_url))
    async with blocker.transaction():
        await wallets.LOCK_WALLET.run(blocker, agent.wallet_id)
        placing = [asyncio.create_task(worker.holds.place(hold_of(agent, shop, 10))) for _ in range(5)]
        outcomes = await asyncio.gather(*placing, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
    await blocker.close()
    await worker.all_ended()
    assert await world.balance(agent) == 1_000


async def test_an_end_that_cannot_be_written_is_in_nobodys_way(worker: Worker, world: World) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    holds = [hold_of(agent, shop, 100) for _ in range(4)]
    await asyncio.gather(*(worker.holds.place(hold) for hold in holds))
    impossible, too_much, *good = holds
    worker.holds.finish_later(end_of(impossible, 50, -1))  # the database has a check against it
    worker.holds.finish_later(end_of(too_much, 101))
    for hold in good:
        worker.holds.finish_later(end_of(hold, 50))
    while worker.ledger.open_exchanges > 1:
        await asyncio.sleep(0.02)
    assert await world.balance(agent) == 1_000 - 100 - 50 * 2, "what cannot be ended stays held, for the reconciler"
    assert (await worker.holds.place(hold_of(agent, shop, 1))).verdict == "held"


async def test_a_worker_taken_for_dead_holds_nothing(worker: Worker, world: World, connection: Connection) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    worker.ledger.worker_id = await START_WORKER.one(connection, uuid7(), [])
    await connection.execute("UPDATE ledger.worker SET fenced_at = now() WHERE id = $1", worker.ledger.worker_id)
    with pytest.raises(Unavailable, match="taken for dead"):
        await worker.holds.place(hold_of(agent, shop, 100))
    assert (worker.ledger.open_exchanges, await world.balance(agent)) == (0, 1_000)
