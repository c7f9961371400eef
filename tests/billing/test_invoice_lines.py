"""The lines of a month against the ledger: whatever was bought and given back, they sum to the unit."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from gateway.billing.invoices.lines import lines_of, organizations_of
from gateway.billing.invoices.month import month_of
from gateway.billing.invoices.taxes import tax_on
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.ledger.entries import Settlement
from gateway.ledger.holds import Capture, Hold, post_holds
from tests.support.past import moved, shift
from tests.support.world import World

LAST = month_of(datetime.now(UTC).date().replace(day=1) - timedelta(days=1))
CENT = 10_000


@pytest.mark.parametrize("seed", range(4))
async def test_lines_sum_to_what_the_ledger_moved_in_the_month(connection: Connection, world: World, seed: int) -> None:
    chance = random.Random(seed)
    agent = await world.agent(10_000_000)
    shops = [await world.publisher() for _ in range(3)]
    calls, expected = [], 0
    days = [
        LAST.start - timedelta(days=2),
        LAST.start,
        LAST.start + timedelta(days=11),
        LAST.end - timedelta(seconds=1),
    ]
    for _ in range(20):
        shop, amount, at = chance.choice(shops), chance.randint(1, 90_000), chance.choice(days)
        exchange = uuid7()
        verdict = await connection.fetchval(
            "SELECT verdict FROM ledger.post_charge($1, $2, $3, $4, $5, 0, NULL)",
            exchange, agent.wallet_id, shop.id, shop.account_id, amount,
        )  # fmt: skip
        assert verdict == "posted"
        await shift(connection, at, only=[exchange])
        calls.append((moved(exchange, at), amount, at))
        expected += amount if at >= LAST.start else 0
    for exchange, amount, at in chance.sample(calls, 7):
        await connection.fetchval(
            "SELECT verdict FROM ledger.refund($1, 'tested', 200::smallint, interval '7 days', false)", exchange
        )
        if chance.random() < 0.6:  # else it comes back this month, which is not that month's business
            await shift(connection, max(at, LAST.start) + timedelta(microseconds=1), causes=at, only=[exchange])
            expected -= amount
    bought = await lines_of(connection, agent.organization_id, LAST, CENT)
    assert bought.subtotal == expected
    assert bought.due == 0
    assert agent.organization_id in await organizations_of(connection, LAST)


async def test_a_metered_call_is_a_line_of_what_it_came_to(connection: Connection, world: World) -> None:
    agent, shop = await world.agent(1_000), await world.publisher()
    hold = Hold(uuid7(), agent.wallet_id, shop.id, shop.account_id, 500)
    end = Capture(Settlement(hold.exchange_id, "delivered", 200, 1, 2), 300, 0)
    for holds, ends in (([hold], []), ([], [end])):
        await post_holds(connection, holds, None, ends, timedelta(days=7))
    await shift(connection, LAST.start + timedelta(days=3), only=[hold.exchange_id])
    bought = await lines_of(connection, agent.organization_id, LAST, CENT)
    assert [(line.line_type, line.quantity, line.amount) for line in bought.lines] == [("usage", 1, 300)]
    assert agent.organization_id in await organizations_of(connection, LAST)


def test_a_tax_is_rounded_half_a_cent_up_and_never_by_more() -> None:
    for amount in range(0, 2_000_000, 10_000):
        for ppm in (0, 1, 55_000, 190_000, 1_000_000):
            tax = tax_on(amount, ppm, CENT)
            assert tax % CENT == 0
            assert -CENT * 1_000_000 <= 2 * (amount * ppm - tax * 1_000_000) < CENT * 1_000_000
