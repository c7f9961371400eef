"""`python -m benchmarks.analytics`: what answers of analytics take beside a small and a large ledger.

Two databases, one with --small and one with --large past calls of --agents agents at one publisher, whose sums are made
anew from the ledger and compared with it. The same answers are asked of both in turn, so that drift of the machine
cancels out, and with a tail of --tail calls that no round has added yet. Printed per answer: milliseconds, medians, and
the ratio.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from statistics import median
from uuid import UUID

import click

from benchmarks.seeding import PRICE, World, give_a_past, prepare
from benchmarks.stack import Services, directory, services
from gateway.analytics.endpoints import REVENUE
from gateway.analytics.revenue import BY_DAY, TOP, WINDOW
from gateway.analytics.rollups import REBUILD, differences
from gateway.catalog.usage import usage_of
from gateway.database.pool import Connection, connect
from gateway.ids import uuid7
from gateway.ledger.entries import Charge, post
from gateway.settings import DatabaseSettings


@click.command()
@click.option("--small", type=click.IntRange(min=1), default=1_000)
@click.option("--large", type=click.IntRange(min=1), default=1_000_000)
@click.option("--agents", type=click.IntRange(min=1), default=10_000)
@click.option("--tail", type=click.IntRange(min=0), default=1_000)
@click.option("--rounds", type=click.IntRange(min=1), default=30)
def main(small: int, large: int, agents: int, tail: int, rounds: int) -> None:
    """Print a table. Exit status 1 when a sum is not the ledger's."""
    with directory() as data, services(data) as stores:
        raise SystemExit(asyncio.run(_run(stores, small, large, agents, tail, rounds)))


async def _run(stores: Services, small: int, large: int, agents: int, tail: int, rounds: int) -> int:
    admin = await connect(DatabaseSettings(url=stores.database_url))
    await admin.execute("CREATE DATABASE large")
    await admin.close()
    sides = [
        await _side(place, calls, agents, tail) for place, calls in ((stores, small), (stores.database("large"), large))
    ]
    wrong = [difference for connection, _ in sides for difference in await differences(connection)]
    click.echo(f"{'answer':<20}{small:>12,}{large:>12,}   ratio")
    for name in _answers(*sides[0]):
        times: list[list[float]] = [[], []]
        for _ in range(rounds):
            for index, side in enumerate(sides):
                began = time.perf_counter()
                await _answers(*side)[name]()
                times[index].append((time.perf_counter() - began) * 1e3)
        few, many = median(times[0]), median(times[1])
        click.echo(f"{name:<20}{few:>9.2f} ms{many:>9.2f} ms   {many / few:.2f}")
    for connection, _ in sides:
        await connection.close()
    click.echo("the sums agree" if not wrong else "\n".join(wrong))
    return 1 if wrong else 0


async def _side(place: Services, calls: int, agents: int, tail: int) -> tuple[Connection, World]:
    """Return a database with a past that is in the sums, and a tail that is not."""
    world = await prepare(place.database_url, 9, agents)
    await give_a_past(place.database_url, world, 0, calls)
    connection = await connect(DatabaseSettings(url=place.database_url, command_timeout=3600))
    await connection.execute("UPDATE analytics.mark SET upto = clock_timestamp()")
    await REBUILD.run(connection)
    await connection.execute("VACUUM ANALYZE")
    for number in range(tail):
        agent = world.agents[number % len(world.agents)]
        charge = Charge(uuid7(), agent.wallet_id, world.publisher_id, world.earnings_account, PRICE, 0)
        await post(connection, [charge], None, [])
    return connection, world


def _answers(connection: Connection, world: World) -> dict[str, Callable[[], Awaitable[object]]]:
    today = datetime.now(UTC).date()
    account, publisher = world.earnings_account, UUID(str(world.publisher_id))
    month = today - timedelta(days=29)
    return {
        "revenue": lambda: WINDOW.one(connection, account, month, today),
        "revenue-by-day": lambda: BY_DAY.all(connection, account, month, today),
        "revenue-by-endpoint": lambda: REVENUE.all(connection, account, month, today, 100),
        "top-agents": lambda: TOP.all(connection, account, 10),
        "counts": lambda: usage_of(connection, [publisher]),
    }


if __name__ == "__main__":
    main()
