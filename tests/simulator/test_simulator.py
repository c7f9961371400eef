"""The money simulator: short runs always, longer ones with `make faults`, and proof that it finds bugs.

The seeds are fixed, so that one state of the code has one verdict; any change of the code makes other histories of them.
`make simulate` looks at fresh seeds for as long as you like.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.simulator.plan import make_plan
from tests.simulator.sabotage import BUGS
from tests.simulator.shrink import shrink
from tests.simulator.simulation import make_template, simulate
from tests.support.services import Services

SHORT = 60  # operations a seed
LEAST_SEEDS, MOST_SEEDS = 4, 12
MOST_TRIED = 120  # most bugs show in the second or third seed of their theme
SHRINK_SECONDS = 300  # of a busy machine: it ends by itself when nothing can be left out any more
LONG_SEEDS, LONG = 6, 150
QUICK = (
    "a balance is edited", "a refund is applied twice", "lots are drawn in the order of their age",
    "free credit is paid out",
)  # fmt: skip
"""Bugs that show at once; every other one is looked for by `make faults`."""
# What must have happened in the short run for it to mean anything.
KINDS = {
    "grant", "charge", "refund", "hold", "capture", "release", "expire", "replay", "kill", "standstill", "lock",
    "request lost", "answer lost", "answer 200", "answer 402", "answer 403", "answer 409", "answer 503", "answer cut",
    "tier counted", "tier back", "tier short", "budget_day counted", "budget_month back",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(services: Services) -> str:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(make_template(services.database_url))
    loop.close()
    return services.database_url


def test_a_short_run_keeps_every_rule(server: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(1, MOST_SEEDS + 1):
        outcome = simulate(server, make_plan(seed, SHORT))
        assert outcome.failure is None, f"SEED={seed} --operations {SHORT}: {told(outcome.history, outcome.failure)}"
        seen.update(outcome.seen)
        if seed >= LEAST_SEEDS and seen.keys() >= KINDS:
            break
    assert seen.keys() >= KINDS, f"nothing was learnt about {KINDS - seen.keys()}"


@pytest.mark.slow
def test_a_thief_is_paid_what_money_has_paid_and_no_more(server: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(1, MOST_SEEDS + 1):
        outcome = simulate(server, make_plan(seed, SHORT, "farming"))
        assert outcome.failure is None, f"SEED={seed} --operations {SHORT}: {told(outcome.history, outcome.failure)}"
        seen.update(outcome.seen)
        if seed >= LEAST_SEEDS and seen.keys() >= {"payout", "payout_back", "capture", "refund"}:
            break
    assert seen.keys() >= {"payout", "payout_back", "capture", "refund"}


@pytest.mark.parametrize("theme", ["standstills", pytest.param("tiers", marks=pytest.mark.slow)])
def test_one_seed_is_one_history(server: str, theme: str) -> None:
    plan = make_plan(6, 25, theme)
    assert simulate(server, plan).history == simulate(server, plan).history


@pytest.mark.parametrize("bug", QUICK)
def test_it_finds(bug: str, server: str) -> None:
    assert finds(server, bug, 6)


@pytest.mark.slow
@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug not in QUICK])
def test_it_finds_in_time(bug: str, server: str) -> None:
    assert finds(server, bug, MOST_TRIED)


def finds(server: str, bug: str, seeds: int) -> bool:
    """Return whether one of so many seeds of the bug's theme fails."""
    return any(
        simulate(server, make_plan(seed, SHORT, BUGS[bug].theme), BUGS[bug].sabotage, check_every=50).failure
        for seed in range(1, seeds + 1)
    )


@pytest.mark.slow
def test_the_history_of_a_failure_is_short(server: str) -> None:
    plan, bug = make_plan(1, SHORT), BUGS["a refund is applied twice"].sabotage
    failed = simulate(server, plan, bug)
    short, outcome = shrink(plan, failed, lambda tried: simulate(server, tried, bug, check_every=20), SHRINK_SECONDS)
    assert outcome.failure is not None
    assert len(short.operations) <= 4
    assert len(outcome.history) < 150


@pytest.mark.slow
def test_long_runs_keep_every_rule(server: str) -> None:
    for seed in range(1001, 1001 + LONG_SEEDS):
        outcome = simulate(server, make_plan(seed, LONG))
        assert outcome.failure is None, f"SEED={seed} --operations {LONG}: {told(outcome.history, outcome.failure)}"


def told(history: list[str], failure: str | None) -> str:
    return "\n".join([*history[-200:], str(failure)])
