"""What a distributed PostgreSQL would need: a call writes and locks rows of its own agent only, except sums of sellers.

docs/scaling.md has the plan; this holds it against the statements that move money. Whatever a call begins to share
between agents appears here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from gateway.database.pool import Connection
from gateway.ids import floor_at, uuid7
from gateway.ledger.answers import CLAIM, STORE
from gateway.ledger.counters import Counter, month_of
from gateway.ledger.entries import Charge, Settlement, post
from gateway.ledger.exchanges import START_WORKER, refund
from gateway.ledger.holds import Capture, Hold, post_holds
from gateway.ledger.wallets import EXPIRE_LOTS, grant
from tests.house.source import ROOT
from tests.support.world import Agent, Shop, World

GRACE = timedelta(days=7)
PLAN = (ROOT / "docs/scaling.md").read_text().partition("## More than one PostgreSQL")[2]
# Whose a row is: the column, and what it holds.
OWNER = {
    "ledger.wallet": ("id", "wallet"),
    "ledger.account": ("wallet_id", "wallet"),
    "ledger.transfer": ("wallet_id", "wallet"),
    "ledger.hold": ("wallet_id", "wallet"),
    "ledger.settlement": ("exchange_id", "exchange"),
    "ledger.counter": ("scope", "account"),
    "ledger.counted": ("scope", "account"),
    "ledger.answer": ("owner_id", "account"),
}
# What a call shares with others: sums of publishers, added up on each node; what is copied to every node and only locked
# against being changed meanwhile, the worker's own row and what foreign keys name.
SHARED = {"ledger.shard", "ledger.worker", "catalog.asset"}
TABLES = """
    SELECT format('%s.%s', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = ANY ($1) ORDER BY 1
"""


class Till:
    """Two agents at one shop, and what is done for the first."""

    def __init__(self, connection: Connection, agent: Agent, other: Agent, shop: Shop, worker: int) -> None:
        self.connection, self.agent, self.other, self.shop, self.worker = connection, agent, other, shop, worker
        self.exchanges: list[UUID] = []

    def charge(self, agent: Agent | None = None) -> Charge:
        who = agent or self.agent
        self.exchanges.append(uuid7())
        month = month_of(datetime.now(UTC).date())
        calls = Counter(who.id, self.shop.id, "calls", month, amount=1)
        return Charge(self.exchanges[-1], who.wallet_id, self.shop.id, self.shop.account_id, 100, 7, (calls,))

    def end(self, exchange_id: UUID) -> Settlement:
        return Settlement(exchange_id, "delivered", 200, 0, 9)

    def hold(self) -> Hold:
        self.exchanges.append(uuid7())
        return Hold(self.exchanges[-1], self.agent.wallet_id, self.shop.id, self.shop.account_id, 100)


async def alone(till: Till) -> None:
    await post(till.connection, [till.charge()], till.worker, [])


async def together(till: Till) -> None:
    charges = [till.charge() for _ in range(3)]
    await post(till.connection, charges, till.worker, [])
    await post(till.connection, [], till.worker, [till.end(one.exchange_id) for one in charges])


async def held(till: Till) -> None:
    holds = [till.hold() for _ in range(3)]
    await post_holds(till.connection, holds, till.worker, [], GRACE)
    ends = [Capture(till.end(one.exchange_id), amount, 1) for one, amount in zip(holds, (100, 40, 1), strict=True)]
    await post_holds(till.connection, [till.hold()], till.worker, ends, GRACE)


async def refunded(till: Till) -> None:
    charge = till.charge()
    await post(till.connection, [charge], till.worker, [])
    await refund(till.connection, charge.exchange_id, reason="x", status=None, grace=GRACE, only_open=True)


async def answered(till: Till) -> None:
    charge, owner, key = till.charge(), till.agent.id, "key"
    await CLAIM.all(till.connection, [owner], [key], [b"h"], [charge.exchange_id], [till.worker], [GRACE], "0")
    await post(till.connection, [charge], till.worker, [])
    said = await STORE.one(
        till.connection, owner, key, charge.exchange_id, 200, b"[]", b"x", b"h", True, "delivered", 200, 0, 9, None,
        None, None, "/x", None,
    )  # fmt: skip
    assert said == "stored"


async def credited(till: Till) -> None:
    await grant(till.connection, till.agent.wallet_id, source="promo", reference="x", amount=5)
    await till.connection.execute(
        "UPDATE ledger.account SET expires_at = now() WHERE wallet_id = $1 AND reference = 'x'", till.agent.wallet_id
    )
    assert await EXPIRE_LOTS.one(till.connection, 100) == 1


async def touched(till: Till) -> dict[str, set[object]]:
    """Return whose rows this transaction has written or locked, by table."""
    found: dict[str, set[object]] = {}
    for (table,) in await till.connection.fetch(TABLES, ["ledger", "catalog", "identity", "chain"]):
        column = OWNER[table][0] if table in OWNER else "tableoid"
        rows = await till.connection.fetch(
            f"SELECT {column} FROM {table} WHERE xmin = pg_current_xact_id()::xid OR xmax = pg_current_xact_id()::xid"
        )
        if rows:
            found[table] = {row[0] for row in rows}
    return found


@pytest.mark.parametrize("work", [alone, together, held, refunded, answered, credited])
async def test_a_call_touches_rows_of_its_own_agent_and_sums_of_sellers(
    connection: Connection, world: World, work: Callable[[Till], Awaitable[None]]
) -> None:
    agent, other, shop = await world.agent(10_000), await world.agent(10_000), await world.publisher()
    till = Till(connection, agent, other, shop, await START_WORKER.one(connection, floor_at(0), []))
    await post(connection, [till.charge(other)], till.worker, [])  # the other is a customer as well
    transaction = connection.transaction()
    await transaction.start()
    await work(till)
    found = await touched(till)
    await transaction.rollback()
    own = {"wallet": {agent.wallet_id}, "exchange": set(till.exchanges), "account": {agent.id}}
    assert found.keys() - OWNER.keys() <= SHARED
    assert "ledger.shard" in found, "the seller's sums are what crosses agents"
    found.get("ledger.account", set[object]()).discard(None)  # the seller's and the platform's, which their sums name
    for table in found.keys() & OWNER.keys():
        assert found[table] <= own[OWNER[table][1]], table


async def test_a_batch_crosses_agents_and_so_has_to_be_split(connection: Connection, world: World) -> None:
    agent, other, shop = await world.agent(10_000), await world.agent(10_000), await world.publisher()
    till = Till(connection, agent, other, shop, await START_WORKER.one(connection, floor_at(0), []))
    transaction = connection.transaction()
    await transaction.start()
    await post(connection, [till.charge(), till.charge(other)], till.worker, [])
    found = await touched(till)
    await transaction.rollback()
    assert found["ledger.wallet"] == {agent.wallet_id, other.wallet_id}


async def test_the_plan_names_every_table(connection: Connection) -> None:
    """One of the ledger by itself; the others by their schemas."""
    told = {name for line in re.findall(r"^\| (`[^|]*) \|", PLAN, re.M) for name in re.findall(r"`([\w.]+)`", line)}
    ledger = [row[0] for row in await connection.fetch(TABLES, ["ledger"])]
    assert set(ledger) - told == set()
    schemas = await connection.fetch(
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$|public$|ledger$)'"
    )
    assert {row[0] for row in schemas} - told == set()
