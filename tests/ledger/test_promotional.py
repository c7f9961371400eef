"""What promotional credit has paid to a publisher, against a derivation in plain integers: any mix of lots, calls at fixed
prices, holds and captures, refunds and rounds of the job that keeps the sums of days."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import pytest

from gateway.catalog.earnings import earnings_of
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.ledger import proof, wallets
from gateway.ledger.entries import Charge, Settlement, post
from gateway.ledger.exchanges import END_HOLD, refund
from gateway.ledger.holds import Hold, post_holds
from tests.support.world import USDC, Agent, Shop, World

GRACE = timedelta(days=7)
SOURCES = {
    "signup_bonus": True, "daily_claim": True, "tier_bonus": True, "admin_grant": False, "fiat_purchase": False,
}  # fmt: skip


@dataclass
class Till:
    """A shop, an agent who buys there, and what each lot of the agent is."""

    connection: Connection
    agent: Agent
    shop: Shop
    dice: random.Random
    promotional: dict[int, bool] = field(default_factory=dict[int, bool])
    earned: dict[UUID, int] = field(default_factory=dict[UUID, int])
    total: dict[UUID, int] = field(default_factory=dict[UUID, int])

    async def grants(self) -> None:
        source = self.dice.choice(list(SOURCES))
        granted = await wallets.grant(
            self.connection,
            self.agent.wallet_id,
            source=source,
            reference=str(uuid7()),
            amount=self.dice.randint(1, 90),
        )
        self.promotional[granted.lot_id] = SOURCES[source]

    async def calls(self) -> None:
        exchange, amount = uuid7(), self.dice.randint(1, 60)
        fee = self.dice.randint(0, amount)
        charge = Charge(exchange, self.agent.wallet_id, self.shop.id, self.shop.account_id, amount, fee)
        (said,) = await post(self.connection, [charge], None, [])
        if said.verdict == "posted":
            await post(self.connection, [], None, [Settlement(exchange, "delivered", 200, 0, 0)])
        await self._note(exchange, amount, fee)

    async def holds(self) -> None:
        exchange, amount = uuid7(), self.dice.randint(1, 90)
        hold = Hold(exchange, self.agent.wallet_id, self.shop.id, self.shop.account_id, amount)
        placed = await post_holds(self.connection, [hold], None, [], GRACE)
        if placed[0].verdict == "held":
            capture = self.dice.randint(0, amount)
            fee = self.dice.randint(0, capture)
            await END_HOLD.one(self.connection, exchange, str(capture), str(fee), "delivered", 200, 0, 0, GRACE)
            await self._note(exchange, capture, fee)

    async def _note(self, exchange: UUID, amount: int, fee: int) -> None:
        """Divide what was taken by the lots that it came from, in their order; of each part its share of the fee is off."""
        legs = await self.connection.fetch(
            "SELECT debit_account AS lot, amount FROM ledger.transfer WHERE cause_id = $1 AND kind IN ('charge', 'hold')"
            " ORDER BY leg",
            exchange,
        )
        left, upto, earned = amount if legs else 0, 0, 0
        for leg in legs:
            part = min(int(leg["amount"]), left)
            if part and self.promotional[leg["lot"]]:
                earned += part - (fee * (upto + part) // amount - fee * upto // amount)
            left, upto = left - part, upto + part
        if legs and amount:
            self.earned[exchange], self.total[exchange] = earned, amount - fee

    async def refunds(self) -> None:
        if self.earned:
            exchange = self.dice.choice(list(self.earned))
            await refund(self.connection, exchange, reason="x", status=None, grace=GRACE, only_open=False)
            del self.earned[exchange], self.total[exchange]

    async def rolls_up(self) -> None:
        await self.connection.execute("SELECT analytics.roll_up(clock_timestamp())")

    async def check(self) -> None:
        old = (await earnings_of(self.connection, self.shop.id)).get(USDC)
        if old is None:
            return
        promotional = sum(self.earned.values())
        assert old.holdings.promotional == promotional
        assert old.available == sum(self.total.values()) - promotional
        young = (await earnings_of(self.connection, self.shop.id, timedelta(days=7)))[USDC]
        assert (young.holdings.promotional, young.available) == (0, 0)
        assert young.holdings.held_back == sum(self.total.values())


@pytest.mark.parametrize("seed", range(8))
async def test_what_promotional_credit_has_paid_is_known_to_the_atomic_unit(
    connection: Connection, world: World, seed: int
) -> None:
    till = Till(connection, await world.agent(), await world.publisher(), random.Random(seed))
    for _ in range(60):
        await till.dice.choice(
            [till.grants, till.calls, till.calls, till.holds, till.holds, till.refunds, till.rolls_up]
        )()
        await till.check()
    await connection.execute("SELECT analytics.rebuild()")
    await till.check()
    assert await connection.fetch("SELECT * FROM analytics.differences()") == []
    assert (await proof.verify(connection)).violations == {}


async def test_the_proof_finds_a_payout_of_more_than_money_has_paid(connection: Connection, world: World) -> None:
    till = Till(connection, await world.agent(), await world.publisher(), random.Random(1))
    granted = await wallets.grant(connection, till.agent.wallet_id, source="signup_bonus", reference="x", amount=100)
    till.promotional[granted.lot_id] = True
    exchange = uuid7()
    charge = Charge(exchange, till.agent.wallet_id, till.shop.id, till.shop.account_id, 100, 0)
    await post(connection, [charge], None, [Settlement(exchange, "delivered", 200, 0, 0)])
    for promotional, sound in ((100, True), (0, False)):
        payout = uuid7()
        await connection.execute(
            "SELECT chain.request_payout($1, p.organization_id, p.id, $3, 'eip155:8453', b, b, 100, 0, '', NULL, false, $1,"
            " $4) FROM catalog.publisher p, decode(repeat('ab', 20), 'hex') AS x (b) WHERE p.id = $2",
            payout, till.shop.id, USDC, promotional,
        )  # fmt: skip
        assert (await proof.verify(connection)).sound is sound
        assert await connection.fetchval("SELECT chain.return_payout($1, 'cancelled', 'x')", payout)
        assert (await proof.verify(connection)).sound


async def test_the_proof_finds_sums_of_days_that_were_changed(connection: Connection, world: World) -> None:
    till = Till(connection, await world.agent(), await world.publisher(), random.Random(2))
    for _ in range(30):
        await till.dice.choice([till.grants, till.calls])()
    await till.rolls_up()
    change = "UPDATE ledger.promotional_day SET earned = earned + $2 WHERE account_id = $1"
    await connection.execute(change, till.shop.account_id, -1)
    assert list((await proof.verify(connection)).violations) == [
        "what promotional credit has paid to publishers is counted as it was booked"
    ]
    await connection.execute(change, till.shop.account_id, 1)
    assert (await proof.verify(connection)).sound
