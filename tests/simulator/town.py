"""Everything that one run works with: agents, shops, processes, and what people know of their own doing."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta

from gateway.identity.budgets import KeyBudget, Limits
from gateway.settings import DatabaseSettings, MoneySettings, SecretSettings, Settings
from tests.simulator.callers import Caller
from tests.simulator.conductor import Conductor
from tests.simulator.payouts import NETWORK, WALLET
from tests.simulator.plan import Plan
from tests.simulator.process import Process
from tests.simulator.publishers import Publishers
from tests.support.gateway import SECRET_KEYS
from tests.support.world import USDC, Agent, Shop, World

DEAD_AFTER = 15.0


@dataclass
class Held:
    """A call whose price is known afterwards, as its own process saw it. `ended` is the ledger's last word to it."""

    exchange_id: str
    agent: int
    process: Process
    amount: int
    capture: int
    placed: str = ""
    ended: str = ""


@dataclass
class Town:
    """See the module. `granted` counts per agent what operations credited and were told so,
    `resolved` what operators wanted of an exchange: several may try at once, the first is heard.
    """

    plan: Plan
    conductor: Conductor
    settings: Settings
    agents: list[Agent]
    shops: list[Shop]
    publishers: Publishers
    caller: Caller
    processes: list[Process] = field(default_factory=list)
    granted: Counter[int] = field(default_factory=Counter)
    held: list[Held] = field(default_factory=list)
    given_back: set[str] = field(default_factory=set)
    resolved: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    unended: list[str] = field(default_factory=list)
    keys_waiting: int = 0
    grace: timedelta = timedelta(days=7)

    def key_budget(self, agent: int) -> KeyBudget | None:
        """Return the budget of an agent's key, as the gateway knows it."""
        budget = self.plan.budgets[agent]
        if budget is None:
            return None
        return KeyBudget(self.agents[agent].id, USDC, Limits(budget.per_call, budget.per_day, budget.per_month))

    async def some_process(self) -> Process:
        """Return a process that is up, waiting for one if there is none."""
        while not (up := self.alive()):
            await asyncio.sleep(0.25)
        return self.conductor.random.choice(up)

    def alive(self) -> list[Process]:
        """Return the processes that run."""
        return [process for process in self.processes if process.alive and process.started]

    async def start_process(self) -> None:
        """Start a process under the next name; one that cannot start is tried again."""
        process = Process(f"w{len(self.processes) + 1}", self.conductor, self.settings, self.publishers)
        self.processes.append(process)
        task = process.spawn(process.start())
        await asyncio.wait({task})
        if not process.started:
            reason = None if task.cancelled() else task.exception()
            self.conductor.note(f"{process} cannot start: {type(reason).__name__ if reason else 'killed'}")
            process.crash()
            await asyncio.sleep(0.5)

    def fee_of(self, shop: int, amount: int) -> int:
        """Return the platform's part of an amount: rounded down."""
        return amount * round(float(self.plan.fees[shop]) * 10) // 1000

    async def keep_up(self) -> None:
        """Replace processes that have died, for ever."""
        while True:
            if sum(process.alive for process in self.processes) < self.plan.processes:
                await self.start_process()
            else:
                await asyncio.sleep(1.0)


async def make_town(plan: Plan, conductor: Conductor, database_url: str) -> Town:
    """Fill a fresh database and return the town; nothing runs yet."""

    async def fill(connection) -> tuple[list[Agent], list[Shop]]:
        world = World(connection)
        agents = [await world.agent(plan.funds) for _ in range(plan.agents)]
        for one, two in zip(agents, [*agents[1:], agents[0]], strict=True):
            if one is not two:  # each is the other's referrer, which is where two wallets could wait for each other
                await connection.execute(
                    "UPDATE identity.account SET referred_by = $2 WHERE id = $1", one.id, two.id
                )  # fmt: skip
        for agent, budget in zip(agents, plan.budgets, strict=True):
            if budget is not None:
                await connection.execute(
                    "UPDATE identity.api_key SET budget_scope = $1, budget_asset = $2, budget_per_call = $3,"
                    " budget_per_day = $4, budget_per_month = $5 WHERE account_id = $1",
                    agent.id, USDC, budget.per_call, budget.per_day, budget.per_month,
                )  # fmt: skip
        shops: list[Shop] = []
        for price, tiers, fee, refunds in zip(plan.prices, plan.tiers, plan.fees, plan.refunds, strict=True):
            own = {} if tiers is None else tiers.document()
            own |= {"gateway_fee_percent": fee, "refund_on_status": refunds}
            own |= {"wallet_address": WALLET, "wallet_network_id": NETWORK}
            shops.append(await world.publisher(price if tiers is None else None, **own))
        return agents, shops

    agents, shops = conductor.observer.look(fill)
    settings = Settings(
        database=DatabaseSettings(url=database_url, pool=2),
        money=MoneySettings(dead_after=DEAD_AFTER, signup_bonus=90, referral_reward=30, daily_claim=20),
        secrets=SecretSettings(keys=SECRET_KEYS),
    )
    town = Town(plan, conductor, settings, agents, shops, Publishers(conductor), Caller(conductor))
    town.granted.update(dict.fromkeys(range(plan.agents), plan.funds))
    return town
