"""Whatever is charged, given back and slashed, in whatever order: the sums are those of plain integers, and the proof sees
what is not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.billing import charges
from gateway.billing.charges import DirectCharge
from gateway.catalog.records import FIND_ANY, Record
from gateway.database.pool import Connection, connect
from gateway.ledger import proof, wallets
from gateway.settings import DatabaseSettings
from tests.support.world import USDC, Agent, Shop, World

GRACE = timedelta(days=7)
BOUND, DAY = 400, 1_500
FEES = {"0": 0, "2.5": 250, "33.33": 3_333}
STEP = st.one_of(
    st.tuples(st.just("charge"), st.integers(1, 600), st.integers(0, 3)),
    st.tuples(st.just("refund"), st.integers(0, 7), st.integers(0, 2)),
    st.tuples(st.just("slash"), st.integers(0, 7), st.integers(1, 500)),
    st.tuples(st.just("fund"), st.integers(1, 800), st.just(0)),
)


@dataclass
class Expected:
    """One charge in plain integers."""

    amount: int
    slashed: int = 0
    refunded: bool = False

    @property
    def taken(self) -> int:
        return 0 if self.refunded else self.amount + self.slashed


@dataclass
class Model:
    """What an agent has, and what was done with it: all in plain integers."""

    funds: int
    made: list[Expected] = field(default_factory=list[Expected])
    keys: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])

    @property
    def taken(self) -> int:
        return sum(one.taken for one in self.made)

    def taking(self, amount: int, bound: int) -> str | None:
        """Return why an amount is not taken."""
        if amount > bound:
            return "above"
        if self.taken + amount > DAY:
            return "beyond"
        return "short" if amount > self.funds - self.taken else None

    def charge(self, amount: int, key: int) -> str:
        if key in self.keys:
            return "repeated" if self.keys[key][1] == amount else "conflict"
        refused = self.taking(amount, BOUND)
        if refused is None:
            if key:
                self.keys[key] = (len(self.made), amount)
            self.made.append(Expected(amount))
        return refused or "charged"

    def refund(self, which: Expected) -> str:
        if which.refunded:
            return "again"
        which.refunded = True
        return "refunded"

    def slash(self, which: Expected, amount: int) -> str:
        if which.refunded:
            return "refunded"
        refused = self.taking(amount, which.amount - which.slashed)
        if refused is None:
            which.slashed += amount
        return refused or "slashed"


async def stage(connection: Connection, fee: str) -> tuple[Agent, Shop, Record]:
    world = World(connection)
    agent, shop = await world.agent(1_000), await world.publisher(gateway_fee_percent=fee)
    await charges.SET_TERMS.run(connection, shop.id, USDC, str(BOUND), str(DAY))
    return agent, shop, await FIND_ANY.one(connection, shop.slug)


async def held(connection: Connection, shop: Shop, purpose: str) -> int:
    return await connection.fetchval(
        "SELECT coalesce(sum(s.credits - s.debits), 0)::bigint FROM ledger.account a JOIN ledger.shard s"
        " ON s.account_id = a.id WHERE a.publisher_id = $1 AND a.purpose = $2::text::ledger.purpose", shop.id, purpose,
    )  # fmt: skip


async def live(url: str, steps: list[tuple[str, int, int]], fee: str) -> None:
    connection = await connect(DatabaseSettings(url=url))
    try:
        agent, shop, publisher = await stage(connection, fee)
        wallet = await wallets.FIND_WALLET.one(connection, agent.id, USDC)
        model, made, keys = Model(1_000), list[DirectCharge](), [None, *(uuid4() for _ in range(3))]
        for word, first, second in steps:
            async with connection.transaction():
                if word == "fund":
                    reference = str(uuid4())
                    await wallets.grant(connection, wallet.id, source="promo", reference=reference, amount=first)
                    model.funds += first
                elif word == "charge":
                    outcome = await charges.charge(connection, publisher, wallet, first, "x", keys[second])
                    assert outcome.verdict == model.charge(first, second)
                    if outcome.verdict == "charged":
                        made.append(await charges.find(connection, publisher, outcome.charge_id))
                elif made and word == "refund":
                    place = first % len(made)
                    refunded = await charges.refund(connection, publisher, made[place], "x", None, GRACE)
                    assert refunded.verdict == model.refund(model.made[place])
                elif made:
                    place = first % len(made)
                    slashed = await charges.slash(connection, publisher, made[place], second, "x", None)
                    assert slashed.verdict == model.slash(model.made[place], second)
        assert await World(connection).balance(agent) == model.funds - model.taken
        stands = [one for one in model.made if not one.refunded]
        earned = sum(one.amount - one.amount * FEES[fee] // 10_000 for one in stands)
        assert await held(connection, shop, "earnings") == earned
        assert await held(connection, shop, "penalties") == sum(one.slashed for one in stands)
        report = await proof.verify(connection)
        assert report.sound, report.violations
    finally:
        await connection.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=14), fee=st.sampled_from(sorted(FEES)))
def test_the_sums_are_those_of_plain_integers(database_url: str, steps: list[tuple[str, int, int]], fee: str) -> None:
    asyncio.run(live(database_url, steps, fee))


SPOILS = {
    "a penalty without its row": "DELETE FROM ledger.penalty WHERE charge_id = $1",
    "more slashed than is said": "UPDATE ledger.direct_charge SET slashed = slashed - 1 WHERE id = $1",
    "another amount": "UPDATE ledger.direct_charge SET amount = amount + 1 WHERE id = $1",
    "another fee": "UPDATE ledger.direct_charge SET fee = fee + 1 WHERE id = $1",
    "said to be refunded": "UPDATE ledger.direct_charge SET refunded_at = now(), refund_reason = 'x' WHERE id = $1",
    "of another wallet": "UPDATE ledger.direct_charge SET wallet_id = (SELECT max(id) FROM ledger.wallet) WHERE id = $1",
    "of another publisher": "UPDATE ledger.penalty SET publisher_id = (SELECT max(id::text)::uuid FROM catalog.publisher)"
    " WHERE charge_id = $1",
    "no charge": "WITH p AS (DELETE FROM ledger.penalty WHERE charge_id = $1)"
    " DELETE FROM ledger.direct_charge WHERE id = $1",
}


@pytest.mark.parametrize("spoil", SPOILS)
async def test_the_proof_sees(connection: Connection, spoil: str) -> None:
    agent, _, publisher = await stage(connection, "2.5")
    wallet = await wallets.FIND_WALLET.one(connection, agent.id, USDC)
    async with connection.transaction():
        outcome = await charges.charge(connection, publisher, wallet, 300, "x", None)
        charged = await charges.find(connection, publisher, outcome.charge_id)
        await charges.slash(connection, publisher, charged, 100, "x", None)
    await World(connection).agent()
    await World(connection).publisher()
    assert (await proof.verify(connection)).sound
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("ALTER TABLE ledger.penalty DROP CONSTRAINT penalty_charge_id_fkey")
        await connection.execute(SPOILS[spoil], UUID(str(charged.id)))
        found = [rule for rule, query in proof.RULES.items() if await query.all(connection)]
    finally:
        await transaction.rollback()
    assert [rule for rule in found if "charge" in rule and ("penalties" in rule)], found
