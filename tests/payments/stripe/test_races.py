"""A card's money goes back that is spent, or while the same balance moves: what is there is taken, and no unit is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.billing.card_rows import RECOVER
from gateway.database.pool import Connection, connect
from gateway.ids import uuid7
from gateway.ledger.wallets import grant
from gateway.settings import DatabaseSettings
from tests.payments.stripe.stage import Stage
from tests.support.world import Agent

pytestmark = pytest.mark.usefixtures("sound_books")
WHOLE, PART, CENTS = 10_000_000, 6_000_000, 1_000


async def spend(connection: Connection, stage: Stage, agent: Agent, amount: int = PART) -> Any:
    call, shop = uuid7(), stage.shop
    posted = "SELECT verdict FROM ledger.post_charge($1, $2, $3, $4, $5, 0, NULL)"
    assert await connection.fetchval(posted, call, agent.wallet_id, shop.id, shop.account_id, amount) == "posted"
    return call


async def give_back(connection: Connection, call: Any) -> None:
    await connection.execute("SELECT ledger.refund($1, 'upstream_5xx', 503::smallint, interval '7 days', false)", call)


@pytest.mark.parametrize("moves", ["is spent", "comes back"])
@pytest.mark.parametrize("what", ["refund", "dispute"])
async def test_what_moves_meanwhile_is_counted_once(stage: Stage, database_url: str, what: str, moves: str) -> None:
    agent = await stage.agent()
    earlier = await stage.pays(await stage.deposit(agent, CENTS))
    getattr(stage.stripe, what)(earlier, CENTS)
    await stage.hears()
    intent = await stage.pays(await stage.deposit(agent, CENTS))
    call = None if moves == "is spent" else await spend(stage.connection, stage, agent)
    before = await stage.platform("receivable", f"account:{agent.id}")
    getattr(stage.stripe, what)(intent, CENTS)
    rival = await connect(DatabaseSettings(url=database_url))
    async with rival.transaction():
        await (spend(rival, stage, agent) if call is None else give_back(rival, call))
        hearing = asyncio.create_task(stage.hears())
        async with asyncio.timeout(60):
            while not await rival.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not hearing.done()
                await asyncio.sleep(0.02)
    await rival.close()
    await hearing
    assert (await stage.balance(agent))["balance_atomic"] == 0
    owed = PART if what == "refund" and call is None else 0
    assert before - await stage.platform("receivable", f"account:{agent.id}") == owed


async def test_a_dispute_of_what_is_spent_freezes_other_money_of_the_wallet(stage: Stage) -> None:
    agent = await stage.agent()
    spent = await stage.pays(await stage.deposit(agent, CENTS))
    await spend(stage.connection, stage, agent, WHOLE)
    await stage.pays(await stage.deposit(agent, CENTS))
    dispute = stage.stripe.dispute(spent, CENTS)
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == 0
    stage.stripe.close(dispute["id"], "won")
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == WHOLE


async def test_a_debt_is_not_paid_by_money_that_was_given(stage: Stage) -> None:
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, CENTS))
    await spend(stage.connection, stage, agent, WHOLE)
    await grant(stage.connection, agent.wallet_id, source="promo", reference="given", amount=PART)
    stage.stripe.refund(intent, CENTS)
    await stage.hears()
    assert await RECOVER.one(stage.connection, agent.wallet_id) == 0
    assert (await stage.balance(agent))["promotional_balance_atomic"] == PART
    assert await stage.platform("receivable", f"account:{agent.id}") == -WHOLE


async def test_what_came_back_does_not_come_again_when_more_is_heard(stage: Stage) -> None:
    """Each event has the whole payment asked for anew: a refund that failed, and a dispute that was won after all."""
    agent = await stage.agent()
    intent = await stage.pays(await stage.deposit(agent, CENTS))
    dispute, refund = stage.stripe.dispute(intent, 300), stage.stripe.refund(intent, 100)
    await stage.hears()
    stage.stripe.close(dispute["id"], "lost")
    stage.stripe.fail_refund(refund["id"])
    await stage.hears()
    stage.stripe.close(dispute["id"], "won")
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == WHOLE
    stage.stripe.refund(intent, 50)
    await stage.hears()
    assert (await stage.balance(agent))["balance_atomic"] == WHOLE - 500_000
