"""`python -m tests.simulator`: run seeds until one fails, then print its shortest history. `make simulate` calls this.

SEED=17 runs that seed alone.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

import click

from tests.simulator.plan import THEMES, make_plan
from tests.simulator.shrink import shrink
from tests.simulator.simulation import Outcome, make_template, simulate
from tests.support.services import temporary_services


@click.command()
@click.option("--seeds", default=100, show_default=True, help="How many seeds to run.")
@click.option("--operations", default=200, show_default=True, help="How many operations each.")
@click.option("--first", type=int, help="The first of them; default: a random one.")
@click.option("--seed", type=int, envvar="SEED", help="Run this seed alone (also by SEED in the environment).")
@click.option("--theme", type=click.Choice(list(THEMES)), help="What happens more often; default: the seed's choice.")
@click.option("--shrink-seconds", default=120.0, show_default=True, help="How long to look for a shorter history.")
@click.option("--history", is_flag=True, help="Print the history of a run that did not fail, too.")
def main(
    seeds: int,
    operations: int,
    first: int | None,
    seed: int | None,
    theme: str | None,
    shrink_seconds: float,
    history: bool,
) -> None:
    """Simulate money: calls, crashes, lost connections, refunds and expiries, in every order that a seed picks."""
    if seed is not None:
        first, seeds = seed, 1
    elif first is None:
        first = random.SystemRandom().randrange(1 << 31)
    started, steps = time.monotonic(), 0
    with temporary_services(durable=False) as services:
        asyncio.run(make_template(services.database_url))
        for number in range(first, first + seeds):
            plan = make_plan(number, operations, theme)
            outcome = simulate(services.database_url, plan)
            steps += outcome.steps
            if outcome.failure is not None:
                _say(number, operations, outcome)
                _, shortest = shrink(
                    plan, outcome, lambda tried: simulate(services.database_url, tried, check_every=20), shrink_seconds
                )
                click.echo("\n".join(shortest.history))
                click.echo(
                    f"FAILED: {shortest.failure}\nrun it again: SEED={number} make simulate"
                    f" ARGS='--operations {operations}{f' --theme {theme}' if theme else ''}'"
                )
                sys.exit(1)
            if history:
                click.echo("\n".join(outcome.history))
            click.echo(f"seed {number}: {outcome.steps} steps, {dict(outcome.seen)}")
    click.echo(f"{steps} steps in {time.monotonic() - started:.0f} s, nothing wrong")


def _say(seed: int, operations: int, outcome: Outcome) -> None:
    click.echo(f"seed {seed} fails after {outcome.steps} steps: {outcome.failure}")
    click.echo("looking for a shorter history ...", err=True)


if __name__ == "__main__":
    main()
