"""The counters on a page of integers: what each call's place in its month was and cost, and what each key has spent.

It follows the journal of counted exchanges (journal.sql), whose order is that of each counter's lock, and works out for
itself what every entry should be. A call of a tiered publisher that took no place, one that took the price of another
place, and a key that has spent more than it may at any moment are all refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Set
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from gateway.database.pool import Connection
from tests.simulator.conductor import EPOCH
from tests.simulator.model import Model, expect
from tests.simulator.tariffs import Budget
from tests.simulator.town import Town

TIER, DAY, MONTH = "tier", "budget_day", "budget_month"
Key = tuple[UUID, UUID, str, date]
"""A counter: who, what, its kind and its period."""


@dataclass(frozen=True)
class Entry:
    """What one exchange counts in one counter: `now`, and `before` that entry. `gone`: it was not paid after all."""

    seq: int
    at: datetime
    exchange_id: UUID
    scope: UUID
    subject: UUID
    kind: str
    period: date
    before: int
    now: int
    gone: bool

    @property
    def counter(self) -> Key:
        """Return whose entry it is."""
        return (self.scope, self.subject, self.kind, self.period)


@dataclass
class Counts:
    """See the module. `places` says of each call of a tiered publisher which place of its month it was paid for."""

    town: Town
    places: dict[UUID, int] = field(default_factory=dict)
    values: defaultdict[Key, int] = field(default_factory=lambda: defaultdict(int))
    of: defaultdict[UUID, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """What each exchange counts now, by the kind of the counter."""

    kinds: Counter[str] = field(default_factory=Counter)
    _seen: Counter[Key] = field(default_factory=Counter)

    async def follow(self, connection: Connection) -> None:
        """Apply what the journal has beyond the last check, counter by counter."""
        for record in await connection.fetch("SELECT * FROM simulator.counts ORDER BY seq"):
            entry = Entry(**{**dict(record), "before": int(record["before"]), "now": int(record["now"])})
            if entry.seq > self._seen[entry.counter]:
                self._seen[entry.counter] = entry.seq
                self._apply(entry)
        for row in await connection.fetch("SELECT scope, subject, kind, period, value FROM ledger.counter"):
            key = (row["scope"], row["subject"], row["kind"], row["period"])
            expect(row["value"] == self.values[key], f"counter {key} is {row['value']}, expected {self.values[key]}")

    def _apply(self, entry: Entry) -> None:
        self.values[entry.counter] += entry.now - entry.before
        self.of[entry.exchange_id][entry.kind] = entry.now
        _check_period(entry)
        self.kinds[f"{entry.kind} {'short' if entry.gone else 'back' if entry.now < entry.before else 'counted'}"] += 1
        if entry.kind == TIER:
            self.kinds["another month"] += entry.period.month != EPOCH.month
            expect(entry.now in (0, 1), f"exchange {entry.exchange_id} counts as {entry.now} calls")
            self._take_place(entry, self.values[entry.counter])
            return
        budget = self._budget_of(entry.scope)
        limit = budget.per_day if entry.kind == DAY else budget.per_month
        spent = self.values[entry.counter]
        expect(limit is None or spent <= limit, f"key {entry.scope} has spent {spent} of {limit} ({entry.kind})")

    def _take_place(self, entry: Entry, place: int) -> None:
        if entry.gone:
            del self.places[entry.exchange_id]
        elif entry.now:
            expect(entry.exchange_id not in self.places, f"exchange {entry.exchange_id} took two places")
            self.places[entry.exchange_id] = place

    def _budget_of(self, scope: UUID) -> Budget:
        for agent, budget in zip(self.town.agents, self.town.plan.budgets, strict=True):
            if agent.id == scope and budget is not None:
                return budget
        raise AssertionError(f"nobody has a budget with the scope {scope}")

    def check_money(self, model: Model) -> None:
        """Hold what exchanges count against the money that moved for them, by the model of the transfers."""
        budgets = {
            agent.wallet_id: budget
            for agent, budget in zip(self.town.agents, self.town.plan.budgets, strict=True)
            if budget is not None
        }
        for exchange, taken in model.taken.items():
            back = exchange in model.refunded
            wallet = model.wallet_of(exchange)
            self._check_exchange(
                exchange, 0 if back else sum(leg.amount for leg in taken.values()), budgets.get(wallet)
            )
        for exchange, hold in model.holds.items():
            if exchange not in model.taken:
                wallet = model.wallet_of(exchange)
                self._check_exchange(exchange, 0 if hold.released else hold.amount, budgets.get(wallet))
        self._check_tiers(model)

    def _check_exchange(self, exchange: UUID, money: int, budget: Budget | None) -> None:
        counted = {kind: amount for kind, amount in self.of.get(exchange, {}).items() if kind != TIER}
        wanted = dict.fromkeys((DAY, MONTH), money) if budget is not None and budget.counted else {}
        expect(counted == wanted, f"exchange {exchange} counts {counted} of its key's budget, expected {wanted}")
        if budget is not None and budget.per_call is not None:
            expect(money <= budget.per_call, f"exchange {exchange} took {money}, a call may take {budget.per_call}")

    def _check_tiers(self, model: Model) -> None:
        for exchange, place in self.places.items():
            taken, price = sum(leg.amount for leg in model.taken.get(exchange, {}).values()), self.price_of(exchange)
            expect(taken == price, f"exchange {exchange} has place {place} and paid {taken}, expected {price}")

    def price_of(self, exchange: UUID) -> int:
        """Return what an exchange that has a place costs by it."""
        attempt = next(one for one in self.town.caller.attempts if one.exchange_id == str(exchange))
        tiers = self.town.plan.tiers[attempt.shop]
        if tiers is None:
            raise AssertionError(f"{attempt} has a place in tiers that its publisher does not have")
        return tiers.price(self.places[exchange])

    def check_ends(self, settled: Set[str]) -> None:
        """Hold each month's count against the calls that were not given back. `settled` has their exchange ids."""
        kept: defaultdict[tuple[UUID, UUID], int] = defaultdict(int)
        for attempt in self.town.caller.attempts:
            if self.town.plan.tiers[attempt.shop] is not None and attempt.exchange_id in settled:
                kept[attempt.agent.id, self.town.shops[attempt.shop].id] += 1
        counted: defaultdict[tuple[UUID, UUID], int] = defaultdict(int)
        for (scope, subject, kind, _), value in self.values.items():
            if kind == TIER and value:
                counted[scope, subject] += value
        expect(counted == kept, f"counted are {dict(counted)}, kept were {dict(kept)}")


def _check_period(entry: Entry) -> None:
    """A call counts in the day or month between its beginning and its payment: its id says when it began."""
    began = datetime.fromtimestamp((entry.exchange_id.int >> 80) / 1000, EPOCH.tzinfo)
    if entry.before:  # it is corrected where it was counted, however much later
        return
    days = [began.date() + timedelta(days=n) for n in range((entry.at.date() - began.date()).days + 1)]
    allowed = set(days) if entry.kind == DAY else {day.replace(day=1) for day in days}
    expect(entry.period in allowed, f"{entry} counts in another period than its own, {sorted(allowed)}")
