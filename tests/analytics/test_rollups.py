"""The sums of days against a model that counts by itself: whatever is booked, in whatever order, rolled up or not yet."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from gateway.analytics.endpoints import REVENUE, EndpointRevenue
from gateway.analytics.revenue import BY_DAY, TOP, WINDOW
from gateway.analytics.rollups import REBUILD, ROLL_UP, catch_up, differences
from gateway.catalog.usage import usage_of
from gateway.database.pool import Connection, connect
from gateway.ids import floor_at
from gateway.ledger import exchanges
from gateway.ledger.entries import SETTLE, Charge, Settlement, post, settlement_columns
from gateway.ledger.holds import Capture, Hold, post_holds
from gateway.settings import DatabaseSettings
from tests.support.world import Agent, Shop, World

GRACE = timedelta(days=7)
DAYS = 5
PAY = """
    INSERT INTO chain.payment (id, network, verifier, asset, payer, nonce, method, payee, authorized, amount, fee,
                               valid_after, valid_before, signature, deferred, booking, account_id, state,
                               mined_transaction, block_number)
    SELECT $1, 'eip155:8453', b, b, $3, sha256(uuid_send($1)), 'eip3009', b, $4, $4, $5, 0, 1,
           decode(repeat('ab', 65), 'hex'), false, 'earnings', $2, 'confirmed', b, 1
      FROM decode(repeat('ab', 20), 'hex') AS x (b)
"""


def today() -> date:
    return datetime.now(UTC).date()


def id_on(day: date) -> UUID:
    """Return an id of a call on that day."""
    noon = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return UUID(int=floor_at(int(noon.timestamp() * 1000)).int | uuid4().int & (1 << 62) - 1)


@dataclass
class Call:
    """A paid call, as the model knows it."""

    id: UUID
    shop: Shop
    payer: str
    day: date
    amount: int
    fee: int
    end: Settlement
    kept: bool = True
    ended: bool = False


@dataclass
class Books:
    """Books calls in the ledger and in a list."""

    connection: Connection
    agents: list[Agent]
    shops: list[Shop]
    chance: random.Random
    calls: list[Call] = field(default_factory=list[Call])
    open: list[Call] = field(default_factory=list[Call])
    held: list[tuple[Call, Hold]] = field(default_factory=list[tuple[Call, Hold]])

    def _call(self, payer: str) -> Call:
        day = today() - timedelta(days=self.chance.randrange(DAYS))
        amount = self.chance.randrange(2, 1000)
        exchange = id_on(day)
        method, endpoint = self.chance.choice([("GET", "/a/{id}"), ("POST", "/a/{id}"), ("GET", "/b"), ("GET", None)])
        size, rows = self.chance.randrange(9), self.chance.choice([None, 0, 7])
        end = Settlement(exchange, "delivered", 200, 3, size, method, b"\1" * 32, None, endpoint, rows)
        return Call(exchange, self.chance.choice(self.shops), payer, day, amount, self.chance.randrange(amount), end)

    async def charge(self) -> None:
        agent = self.chance.choice(self.agents)
        call = self._call(f"agent:{agent.id}")
        entry = Charge(call.id, agent.wallet_id, call.shop.id, call.shop.account_id, call.amount, call.fee)
        call.ended = self.chance.random() < 0.5
        ends = [call.end] if call.ended else []
        assert [one.verdict for one in await post(self.connection, [entry], None, ends)] == ["posted"]
        self.calls.append(call)
        if not call.ended:
            self.open.append(call)

    async def end(self) -> None:
        if self.open:
            call = self.open.pop(self.chance.randrange(len(self.open)))
            await SETTLE.run(self.connection, *settlement_columns([call.end]))
            call.ended = True

    async def hold(self) -> None:
        agent = self.chance.choice(self.agents)
        call = self._call(f"agent:{agent.id}")
        hold = Hold(call.id, agent.wallet_id, call.shop.id, call.shop.account_id, call.amount + 5)
        assert [one.verdict for one in await post_holds(self.connection, [hold], None, [], GRACE)] == ["held"]
        self.held.append((call, hold))

    async def capture(self) -> None:
        if self.held:
            call, _ = self.held.pop(self.chance.randrange(len(self.held)))
            end = Capture(call.end, call.amount, call.fee)
            assert [one.verdict for one in await post_holds(self.connection, [], None, [end], GRACE)] == ["captured"]
            self.calls.append(call)
            call.ended = True

    async def refund(self) -> None:
        mine = [call for call in self.calls if call.kept and call.payer.startswith("agent:")]
        if mine:
            call = self.chance.choice(mine)
            await exchanges.refund(self.connection, call.id, reason="test", status=503, grace=GRACE, only_open=False)
            call.kept = False
            if call in self.open:  # that was its end: nothing was delivered
                self.open.remove(call)

    async def pay_on_chain(self) -> None:
        payer = bytes([self.chance.randrange(1, 4)]) * 20
        call = self._call("0x" + payer.hex())
        await self.connection.execute(PAY, call.id, call.shop.account_id, payer, call.amount, call.fee)
        await self.connection.execute("SELECT chain.book(p) FROM chain.payment p WHERE p.id = $1", call.id)
        self.calls.append(call)
        self.open.append(call)

    async def give_back_on_chain(self) -> None:
        mine = [call for call in self.calls if call.kept and call.payer.startswith("0x")]
        if mine:
            call = self.chance.choice(mine)
            how = self.chance.choice(["repay($1, 'test')", "unbook((SELECT p FROM chain.payment p WHERE p.id = $1))"])
            await self.connection.execute(f"SELECT chain.{how}", call.id)
            call.kept = False

    async def roll_up(self) -> None:
        await catch_up(self.connection, timedelta(0), math.inf)

    async def step(self) -> None:
        steps = [self.charge, self.charge, self.hold, self.capture, self.end, self.refund, self.pay_on_chain]
        await self.chance.choice([*steps, self.give_back_on_chain, self.roll_up])()

    async def check(self) -> None:
        """Compare every window, day and agent of every shop with what the model says."""
        for shop in self.shops:
            calls = [call for call in self.calls if call.shop is shop and call.kept]
            for first in range(DAYS):
                for last in range(first + 1):
                    since, upto = today() - timedelta(days=first), today() - timedelta(days=last)
                    found = await WINDOW.one(self.connection, shop.account_id, since, upto)
                    assert figures(found) == expected(call for call in calls if since <= call.day <= upto)
            since = today() - timedelta(days=DAYS)
            days = await BY_DAY.all(self.connection, shop.account_id, since, today())
            assert [one.day for one in days] == [since + timedelta(days=number) for number in range(DAYS + 1)]
            assert [figures(one) for one in days] == [
                expected(call for call in calls if call.day == one.day) for one in days
            ]
            await self._check_top(shop, calls)
            await self._check_endpoints(shop)

    async def _check_endpoints(self, shop: Shop) -> None:
        """Compare what is known of each endpoint, and that the rest is added up however few are named."""
        for first in (0, DAYS - 1):
            since = today() - timedelta(days=first)
            sums: dict[tuple[str, str], list[int]] = {}
            for call in self.calls:
                end = call.end
                if call.shop is shop and call.ended and call.day >= since and end.endpoint is not None:
                    key = (end.method or "", end.endpoint)
                    money = (1, call.amount, call.fee) if call.kept else (0, 0, 0)
                    line = (*money, end.bytes_in, end.bytes_out, end.rows or 0)
                    sums[key] = [kept + more for kept, more in zip(sums.get(key, [0] * 6), line, strict=True)]
            found = await REVENUE.all(self.connection, shop.account_id, since, today(), 100)
            assert {(one.method, one.endpoint): numbers(one) for one in found} == sums
            assert found == sorted(found, key=lambda one: one.fee - one.spent)
            for limit in range(1, len(found)):
                fewer = await REVENUE.all(self.connection, shop.account_id, since, today(), limit)
                assert fewer == found[:limit]

    async def _check_top(self, shop: Shop, calls: list[Call]) -> None:
        spent, number = Counter[str](), Counter[str]()
        for call in calls:
            spent[call.payer] += call.amount
            number[call.payer] += 1
        for limit in (1, 3, 100):
            top = await TOP.all(self.connection, shop.account_id, limit)
            assert len(top) == min(limit, len(spent))
            assert [one.spent for one in top] == sorted(spent.values(), reverse=True)[:limit]
            assert top == sorted(top, key=lambda one: (-one.spent, one.payer))
            for one in top:
                payer = one.wallet.split("/")[0]
                assert (one.spent, one.calls) == (spent[payer], number[payer])


def numbers(found: EndpointRevenue) -> list[int]:
    return [found.calls, found.spent, found.fee, found.bytes_in, found.bytes_out, found.rows]


def figures(found: object) -> tuple[int, ...]:
    return tuple(getattr(found, name) for name in ("calls", "spent", "fee", "agents"))


def expected(calls: Iterable[Call]) -> tuple[int, ...]:
    found = list(calls)
    spent, fee = sum(call.amount for call in found), sum(call.fee for call in found)
    return len(found), spent, fee, len({call.payer for call in found})


@pytest.mark.parametrize("seed", range(4))
async def test_sums_are_those_of_the_calls_whenever_they_are_rolled_up(
    connection: Connection, world: World, seed: int
) -> None:
    agents = [await world.agent(1_000_000) for _ in range(4)]
    shops = [await world.publisher() for _ in range(2)]
    books = Books(connection, agents, shops, random.Random(seed))
    for _ in range(6):
        for _ in range(9):
            await books.step()
        await books.check()
    await books.roll_up()
    await books.check()
    assert await differences(connection) == []


OF_ENDPOINTS = "WHERE endpoint_id IN (SELECT id FROM analytics.endpoint WHERE account_id = $1)"


async def test_a_difference_is_found_and_a_rebuild_takes_it_away(connection: Connection, world: World) -> None:
    books = Books(connection, [await world.agent(10_000)], [await world.publisher()], random.Random(7))
    for _ in range(3):
        await books.charge()
    await books.pay_on_chain()
    while books.open:
        await books.end()
    await books.roll_up()
    for wrong in (
        "UPDATE analytics.agent_day SET spent = spent + 1 WHERE account_id = $1 AND payer > 0",
        "DELETE FROM analytics.agent_day WHERE account_id = $1 AND payer < 0",
        "UPDATE analytics.agent_day SET bytes_out = bytes_out - 1 WHERE account_id = $1 AND bytes_out > 0",
        "UPDATE analytics.day SET fee = fee + 1 WHERE account_id = $1",
        "UPDATE analytics.agent SET last_at = now() WHERE account_id = $1",
        "UPDATE analytics.reach SET agents = agents + 1 WHERE account_id = $1",
        "UPDATE analytics.total SET agents = agents + 1 WHERE account_id = $1",
        f"UPDATE analytics.endpoint_agent_day SET spent = spent + 1 {OF_ENDPOINTS}",
        f"UPDATE analytics.endpoint_day SET row_count = row_count + 1 {OF_ENDPOINTS}",
        f"DELETE FROM analytics.endpoint_agent_day {OF_ENDPOINTS}",
    ):
        assert await connection.execute(wrong, books.shops[0].account_id) not in ("UPDATE 0", "DELETE 0")
        assert await differences(connection) != [], wrong
        await REBUILD.run(connection)
        assert await differences(connection) == [], wrong
    await books.check()


async def test_what_a_running_transaction_books_is_not_missed(
    connection: Connection, world: World, database_url: str
) -> None:
    """It bears the time at which it began; the sums wait for it, however late it commits."""
    books = Books(connection, [await world.agent(10_000)], [await world.publisher()], random.Random(1))
    slow = await connect(DatabaseSettings(url=database_url))
    transaction = slow.transaction()
    await transaction.start()
    late = Books(slow, books.agents, books.shops, books.chance)
    await late.pay_on_chain()
    await books.charge()
    await books.roll_up()
    await transaction.commit()
    await slow.close()
    books.calls += late.calls
    await books.check()
    await books.roll_up()
    await books.check()
    assert await differences(connection) == []


async def test_one_worker_rolls_up_and_the_others_leave_it_alone(
    connection: Connection, world: World, database_url: str
) -> None:
    books = Books(connection, [await world.agent(10_000)], [await world.publisher()], random.Random(2))
    await books.charge()
    other = await connect(DatabaseSettings(url=database_url))
    transaction = other.transaction()
    await transaction.start()
    now = datetime.now(UTC)
    assert (await ROLL_UP.one(other, now)).upto == now
    assert (await ROLL_UP.one(connection, now + timedelta(seconds=1))).upto is None
    await transaction.rollback()
    await other.close()
    await books.roll_up()
    await books.check()


READ = """
    SELECT coalesce(sum(s.seq_scan), 0)::bigint AS whole, coalesce(sum(s.idx_scan), 0)::bigint AS index
      FROM pg_stat_user_tables s
     WHERE s.schemaname = 'ledger' AND (s.relname LIKE 'transfer%' OR s.relname LIKE 'settlement%')
"""


async def scans(connection: Connection) -> tuple[int, int]:
    """Return how often tables of the ledger were read whole, and by an index, by this connection too."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return tuple(await connection.fetchrow(READ))


async def test_no_answer_reads_a_table_of_the_ledger_whole(connection: Connection, world: World) -> None:
    books = Books(connection, [await world.agent(10_000)], [await world.publisher()], random.Random(3))
    await books.charge()
    account, shop = books.shops[0].account_id, books.shops[0].id
    before = await scans(connection)
    await WINDOW.one(connection, account, today(), today())
    await BY_DAY.all(connection, account, today(), today())
    await TOP.all(connection, account, 10)
    await usage_of(connection, [shop])
    await REVENUE.all(connection, account, today(), today(), 10)
    await books.roll_up()
    after = await scans(connection)
    assert after[0] == before[0]
    assert after[1] > before[1]
    await connection.fetch("SELECT FROM ledger.transfer")  # so that this can fail
    assert (await scans(connection))[0] > before[0]
