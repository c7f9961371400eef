"""What a run consists of: the operations in the order in which they begin, and how wild the world around them is.

Both come from the seed alone, so that a shorter plan of the same seed can be tried when a run has failed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.simulator.conductor import Chances
from tests.simulator.publishers import SCRIPTS

KINDS = {
    "call": 10,  # a call without a key
    "keyed": 8,  # a call with a key, repeated until it has an answer
    "twice": 3,  # the same keyed call twice at once
    "hold": 4,  # hold, then capture a part or void
    "grant": 3,
    "promo": 3,  # a lot that expires
    "deposit": 1,  # a lot for one publisher only
    "signup": 1,
    "daily": 1,
    "refund": 2,  # a publisher gives a settled call back
    "resolve": 1,  # an operator ends what is open
    "beat": 3,
    "reconcile": 3,
    "expire": 3,
    "forget": 1,  # expired keys
    "pass": 2,  # hours go by
    "lock": 2,  # somebody holds a wallet's row for a while
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
    together: int = 6
    shards: int = 64


def make_plan(seed: int, operations: int) -> Plan:
    """Return the plan of a seed."""
    dice = random.Random(f"plan {seed}")
    shops = dice.randint(1, 3)
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
        shards=dice.choice((1, 2, 64)),
    )
    kinds, weights = list(KINDS), [weight * dice.choice((0.3, 1, 1, 3)) for weight in KINDS.values()]
    for number in range(operations):
        plan.operations.append(
            Operation(
                number=number,
                kind=dice.choices(kinds, weights)[0],
                agent=dice.randrange(plan.agents),
                shop=dice.randrange(shops),
                amount=dice.randint(1, 120),
                manner=dice.randrange(1 << 16),
                script=dice.choice(SCRIPTS),
            )
        )
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
