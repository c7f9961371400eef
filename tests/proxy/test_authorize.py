"""Charges at moments that calls through the door hardly meet, on the real ledger: between the steps of another call, and
between two months.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from gateway.app import build_services
from gateway.billing.budgets import counters
from gateway.database.pool import Connection
from gateway.errors import BudgetExceeded
from gateway.identity.budgets import KeyBudget, Limits
from gateway.identity.principals import Principal
from gateway.ids import uuid7
from gateway.ledger.entries import Charge, Settlement
from gateway.ledger.exchanges import ChargeVerdict
from gateway.ledger.holds import Capture, Hold
from gateway.proxy import tiers
from gateway.proxy.exchange import Exchange
from gateway.proxy.parts import Parts
from gateway.proxy.purses.choice import choose
from gateway.proxy.quote import quote
from gateway.services import Services
from gateway.settings import DatabaseSettings, SecretSettings, Settings
from tests.support.gateway import SECRET_KEYS
from tests.support.world import USDC, Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

PRICE = 10_000
TIERED: dict[str, Any] = {"pricing_model": "tiered", "price_tiers": [{"up_to": 2, "price": "0.01"}, {"price": "0.004"}]}


@pytest_asyncio.fixture
async def parts(database_url: str) -> AsyncIterator[Services]:
    """The parts of one worker, without its door."""
    database, secrets = DatabaseSettings(url=database_url), SecretSettings(keys=SECRET_KEYS)
    made = build_services(Settings(database=database, secrets=secrets))
    await made.database.start()
    yield made
    await made.holds.stop()
    await made.ledger.stop()
    await made.database.stop()


async def quoted(parts: Services, agent: Agent, shop: Shop, budget: KeyBudget | None = None) -> Exchange:
    """Return a call that has been quoted."""
    await parts.catalog.load()
    exchange = Exchange({"method": "GET", "headers": []}, Any, Any)
    exchange.publisher = parts.catalog.find(shop.slug)
    exchange.principal = Principal(agent.id, agent.organization_id, uuid7(), "key", "agent", "agent", budget)
    quote(exchange, (None,))
    return exchange


class Behind:
    """The ledger, with the end of another call right behind the first charge that it is asked for."""

    def __init__(self, parts: Services, ending: Capture | None) -> None:
        self._parts = parts
        self._ending = ending
        self.charges = 0

    async def charge(self, charge: Charge) -> ChargeVerdict:
        verdict = await self._parts.ledger.charge(charge)
        self.charges += 1
        if self.charges == 1 and self._ending is not None:
            await self._parts.holds.finish(self._ending)
        return verdict


@pytest.mark.parametrize("document", [{}, TIERED])
@pytest.mark.parametrize("ends", [True, False])
async def test_a_budget_is_asked_again_for_what_an_earlier_call_is_just_giving_back(
    parts: Services, world: World, document: dict[str, Any], ends: bool
) -> None:
    agent = await world.agent(100 * PRICE)
    shop = await world.publisher(None if document else PRICE, **document)
    budget = KeyBudget(uuid7(), USDC, Limits(per_day=5 * PRICE))
    earlier = Hold(
        uuid7(), agent.wallet_id, shop.id, shop.account_id, 5 * PRICE, counters(budget, datetime.now(UTC).date())
    )
    assert (await parts.holds.place(earlier)).paid
    ending = Capture(Settlement(earlier.exchange_id, "delivered", 200, 0, 0), PRICE, 0)
    ledger: Any = Behind(parts, ending if ends else None)
    exchange = await quoted(parts, agent, shop, budget)
    purse = choose(exchange, Parts.build(replace(parts, ledger=ledger)))
    paying = purse.authorize(exchange)
    if ends:
        await paying
        assert purse.paid
        assert await world.balance(agent) == 98 * PRICE
    else:
        with pytest.raises(BudgetExceeded):
            await paying
        await parts.holds.finish(ending)
        assert await world.balance(agent) == 99 * PRICE


async def test_a_call_is_priced_and_counted_in_one_month_though_another_begins_meanwhile(
    parts: Services, world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, shop = await world.agent(100 * PRICE), await world.publisher(None, **TIERED)
    moments = [datetime(2031, 1, 31, 23, 59, 59, tzinfo=UTC)] * 3
    monkeypatch.setattr(tiers, "datetime", SimpleNamespace(now=lambda _zone: moments.pop() if moments else february))
    february = datetime(2031, 2, 1, tzinfo=UTC)
    worker, costs = Parts.build(parts), list[int]()
    for _ in range(6):
        exchange = await quoted(parts, agent, shop)
        await choose(exchange, worker).authorize(exchange)
        costs.append(exchange.quote.amount)
    assert costs == [10_000, 10_000, 4_000] * 2
    rows = await connection.fetch("SELECT period, value::int FROM ledger.counter WHERE subject = $1", shop.id)
    assert {row["period"]: row["value"] for row in rows} == {date(2031, 1, 1): 3, date(2031, 2, 1): 3}
