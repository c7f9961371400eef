"""What a run consists of: the operations in the order in which they begin, and how wild the world around them is.

Both come from the seed alone (and a theme, when one is named), so that a shorter plan of the same seed can be tried when a run has failed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from tests.simulator.conductor import Chances
from tests.simulator.publishers import SCRIPTS
from tests.simulator.tariffs import Budget, Tiers, draw_budget, draw_tiers

KINDS = {
    "call": 10,  # a call without a key
    "keyed": 8,  # a call with a key, repeated until it has an answer
    "twice": 3,  # the same keyed call twice at once
    "rush": 3,  # several calls of one agent at once, in one process: they share a batch
    "hold": 4,  # hold, then capture a part or void
    "grant": 3,
    "promo": 3,  # a lot that expires
    "deposit": 1,  # a lot for one publisher only
    "signup": 1,
    "daily": 1,
    "refund": 2,  # a publisher gives a settled call back
    "payout": 2,  # a publisher asks for all that it can be paid, and sometimes takes that back
    "bonus": 1,  # the bonus of a deposit
    "resolve": 1,  # an operator ends what is open
    "beat": 3,
    "reconcile": 3,
    "expire": 3,
    "forget": 1,  # expired keys
    "pass": 2,  # hours go by
    "lock": 2,  # somebody holds a wallet's row for a while
}

LONG = ("whole", "pieces", "slow", "slow")  # scripts of calls that are under way for many steps


@dataclass(frozen=True)
class Theme:
    """A world in which one sort of situation is frequent. `kinds` weigh so many times more, `chances` stand instead of
    the dice's, `leaves` is how often callers hang up.
    """

    kinds: dict[str, float]
    chances: dict[str, float] = field(default_factory=dict[str, float])
    lost_at: str = ""  # the statement at which alone connections are lost
    leaves: float | None = None
    processes: int | None = None
    scripts: tuple[str, ...] = SCRIPTS
    crumbs: bool = False  # credits are smaller than prices, so that a call draws several lots
    tiered: bool = False  # every publisher sells by the caller's month
    budgets: bool = False  # every key has a budget
    poor: bool = False  # agents have nothing but what operations credit


# Half of all seeds have none. The others take one each: most defects need two or three rare things at once, such as a
# worker that stands still with a charge in its hands until others have fenced it.
THEMES = {
    # A deposit in the wallet would have every charge of a batch decided by itself.
    "expiry": Theme({"promo": 5, "rush": 6, "hold": 3, "refund": 2, "deposit": 0, "pass": 0.5}, {"tick": 0.5}),
    "crumbs": Theme({"grant": 3, "promo": 3, "call": 2, "hold": 4}, crumbs=True),
    "failures": Theme({"call": 3, "keyed": 2}, scripts=("error", "missing", "breaks", "silent", "whole")),
    "hang-ups": Theme({"keyed": 6, "twice": 6}, leaves=0.5, scripts=LONG),
    "deaths": Theme({"keyed": 3, "hold": 2, "call": 2}, {"crash": 0.02}, processes=2, scripts=LONG),
    "standstills": Theme(
        {"call": 2, "rush": 2, "hold": 2, "twice": 6}, {"freeze": 0.03, "tick": 0.5}, processes=3, scripts=LONG
    ),
    "losses": Theme({"call": 2, "keyed": 3, "rush": 2}, {"answer_lost": 0.03, "request_lost": 0.01}),
    # One process that nobody else reconciles, and a database that comes back: what it owes it must do itself.
    "outages": Theme(
        {"hold": 30},
        {
            "stall": 0.03,
            "refused": 0.3,
            "request_lost": 0.03,
            "answer_lost": 0.05,
            "tick": 0.1,
            "crash": 0,
            "freeze": 0,
        },
        processes=1,
    ),
    "tiers": Theme({"rush": 5, "call": 2, "keyed": 2, "twice": 2, "pass": 0.5}, processes=3, tiered=True),
    "budgets": Theme({"hold": 6, "rush": 3, "pass": 0.5, "refund": 2}, processes=2, budgets=True),
    # A thief has agents of its own collect what is free, and buy from a publisher of its own.
    "farming": Theme(
        {"payout": 12, "promo": 4, "bonus": 4, "signup": 6, "daily": 6, "hold": 3, "call": 2, "refund": 2, "grant": 2},
        scripts=(*LONG, "error"),
        poor=True,
    ),
    "operators": Theme({"resolve": 12, "keyed": 6, "call": 2}, scripts=LONG),
    # All tries to store an answer have to fail before it cannot be stored: no other loss may use up the trouble.
    "stores": Theme(
        {"keyed": 8, "twice": 4},
        {"request_lost": 0.12, "answer_lost": 0, "refused": 0, "crash": 0, "freeze": 0, "stall": 0},
        lost_at="store_answer",
        scripts=("whole", "pieces", "missing"),
    ),
}


@dataclass(frozen=True)
class Operation:
    """One thing to do. The numbers pick its agent, shop, amount and manner."""

    number: int
    kind: str
    agent: int
    shop: int
    amount: int
    manner: int
    script: str


@dataclass
class Plan:
    """A run. Amounts are atomic units; `prices` has one per shop, fees are in percent."""

    seed: int
    operations: list[Operation]
    chances: Chances
    schedule: int = 0  # another order of the same operations
    processes: int = 2
    agents: int = 2
    funds: int = 0  # of each agent at the start
    prices: list[int] = field(default_factory=list)
    fees: list[str] = field(default_factory=list)
    refunds: list[list[str]] = field(default_factory=list)  # statuses that each publisher gives back
    leaves: float = 0.0  # how often a caller hangs up
    together: int = 6
    shards: int = 64
    tiers: list[Tiers | None] = field(default_factory=list)  # of each publisher; with them its price is not looked at
    budgets: list[Budget | None] = field(default_factory=list)  # of each agent's key

    def books(self, shop: int) -> bool:
        """Return whether a publisher's calls are booked: those that are always free are not."""
        return self.tiers[shop] is not None or self.prices[shop] > 0


def make_plan(seed: int, operations: int, themed: str | None = None) -> Plan:
    """Return the plan of a seed, which picks its theme unless `themed` names one."""
    dice = random.Random(f"plan {seed}")
    shops = dice.randint(1, 3)
    picked = dice.choice((*THEMES, *[""] * len(THEMES)))
    theme = THEMES.get(picked if themed is None else themed, Theme({}))
    plan = Plan(
        seed=seed,
        operations=[],
        chances=_chances(dice, operations),
        processes=dice.randint(1, 3),
        agents=dice.randint(1, 3),
        funds=dice.choice((0, 100, 10 * operations)),
        prices=[dice.choice((0, 1, 7, 10, 33, 100)) if shop else dice.choice((7, 10, 33)) for shop in range(shops)],
        fees=[dice.choice(("0", "2.5", "30", "100")) for _ in range(shops)],
        together=dice.choice((1, 3, 6, 12)),
        refunds=[dice.choice(([], ["404"])) for _ in range(shops)],
        leaves=dice.choice((0, 0.05, 0.2)),
        shards=dice.choice((1, 2, 64)),
    )
    if theme.chances:
        plan.chances = replace(plan.chances, **theme.chances, lost_at=theme.lost_at, budget=operations // 2)
    if theme.leaves is not None:
        plan.leaves = theme.leaves
    plan.processes = theme.processes or plan.processes
    if theme.kinds and not theme.crumbs:  # a theme is about calls, which an empty wallet would not make
        plan.funds = 0 if theme.poor else 100 * operations
    if theme.crumbs:
        plan.prices = [dice.choice((33, 100)) for _ in range(shops)]
        plan.fees = [dice.choice(("2.5", "30")) for _ in range(shops)]
    kinds = list(KINDS)
    weights = [weight * dice.choice((0.3, 1, 1, 3)) * theme.kinds.get(kind, 1) for kind, weight in KINDS.items()]
    for number in range(operations):
        plan.operations.append(
            Operation(
                number=number,
                kind=dice.choices(kinds, weights)[0],
                agent=dice.randrange(plan.agents),
                shop=dice.randrange(shops),
                amount=dice.randint(1, 30 if theme.crumbs else 120),
                manner=dice.randrange(1 << 16),
                script=dice.choice(theme.scripts),
            )
        )
    plan.tiers = [draw_tiers(dice) if theme.tiered or dice.random() < 0.25 else None for _ in range(shops)]
    plan.budgets = [draw_budget(dice) if theme.budgets or dice.random() < 0.2 else None for _ in range(plan.agents)]
    return plan


def _chances(dice: random.Random, operations: int) -> Chances:
    """Return how often things break: in some worlds never, in some all the time."""
    quiet = dice.random() < 0.2
    return Chances(
        request_lost=0 if quiet else dice.choice((0, 0.002, 0.01)),
        answer_lost=0 if quiet else dice.choice((0, 0.002, 0.02)),
        refused=0 if quiet else dice.choice((0, 0.05, 0.3)),
        crash=0 if quiet else dice.choice((0, 0.003, 0.02)),
        freeze=0 if quiet else dice.choice((0, 0, 0.01)),
        stall=0 if quiet else dice.choice((0, 0, 0.01)),
        tick=dice.choice((0.02, 0.1, 0.5)),
        start=dice.choice((0.3, 1, 3)),
        budget=operations // dice.choice((2, 5)),
    )
