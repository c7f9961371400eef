"""`python -m benchmarks.sql`: queries that are sold, beside the same ones straight at the database, and the estimates.

One caller asks warm, short queries in turns: over asyncpg straight at PostgreSQL, and as paid calls through the
gateway, each with a durable hold and capture. Before, every query of an analysts' list is planned and run, and the
estimate is held against the rows that came (q-error: how many times too high or too low).
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

import asyncpg
import click
import httpx
import uvloop

from benchmarks.stack import Services, directory, services
from gateway.catalog.assets import store_assets
from gateway.database.migrate import migrate
from gateway.database.pool import connect
from gateway.settings import DatabaseSettings
from gateway.upstreams.postgres import queries
from gateway.upstreams.postgres.pool import Session
from gateway.upstreams.postgres.queries import Bounds
from pricing.sql.budget import bound
from pricing.sql.estimate import estimated_rows
from pricing.sql.policy import check
from tests.pricing.sql.queries import SOLD
from tests.pricing.sql.tables import ON_SALE
from tests.support.gateway import start_gateway
from tests.support.market import Market, market_database, sell
from tests.support.world import World

WARM = {
    "one row by key": "SELECT ticker, name FROM companies WHERE company_id = 7",
    "ten rows": "SELECT company_id, day, close FROM prices WHERE company_id = 7 ORDER BY day LIMIT 10",
    "an aggregate": "SELECT sector_id, count(*) FROM companies GROUP BY sector_id ORDER BY 1",
}
CAP = 1_000_000
FUNDS = 10**12


async def overhead(stores: Services, market: Market, calls: int) -> None:
    """Print latencies of both ways, measured in turns."""
    await migrate(stores.database_url)
    connection = await connect(DatabaseSettings(url=stores.database_url))
    await store_assets(connection)
    world = World(connection)
    gateway = await start_gateway(stores, stores.database_url)  # type: ignore[arg-type]
    straight = await asyncpg.connect(market.connection_string, server_settings={"search_path": "demo"})
    try:
        shop = await sell(gateway.client, await world.agent(), market.config(sample=False))
        agent = await world.agent(FUNDS)
        await asyncio.sleep(0.5)
        click.echo(f"{'query':<16} {'straight p50':>13} {'sold p50':>9} {'sold p99':>9} {'overhead p50':>13}  ms")
        for name, query in WARM.items():
            plain, paid = list[float](), list[float]()
            for number in range(calls + 50):
                began = time.perf_counter()
                await straight.fetch(query)
                between = time.perf_counter()
                answer = await _ask(gateway.client, shop.slug, agent.key, query)
                ended = time.perf_counter()
                if answer.status_code != 200:
                    raise click.ClickException(answer.text)
                if number >= 50:
                    plain.append(between - began)
                    paid.append(ended - between)
            one, other, high = median(plain) * 1e3, median(paid) * 1e3, quantiles(paid, n=100)[98] * 1e3
            click.echo(f"{name:<16} {one:>13.2f} {other:>9.2f} {high:>9.2f} {other - one:>13.2f}")
    finally:
        await straight.close()
        await gateway.stop()
        await connection.close()


async def _ask(client: httpx.AsyncClient, slug: str, key: str, query: str) -> httpx.Response:
    return await client.post(f"/publishers/{slug}", json={"query": query}, headers={"Authorization": f"Bearer {key}"})


async def estimates(session: Session) -> None:
    """Print how far the estimates of the analysts' queries are from the rows that came."""
    errors = list[tuple[float, str]]()
    bounds = Bounds(rows=CAP, statement=30.0, total=60.0)
    for query in SOLD:
        checked = check(query, ON_SALE)
        if checked.parameters:
            continue
        async with queries.sandbox(session, ON_SALE.search_path, bounds):
            described = await queries.describe(session, checked, bounds)
            planned = await queries.plan(session, described, [], bounds)
            actual = len(await session.fetch(checked.text))
        await session.execute("ROLLBACK")
        estimate = min(estimated_rows(checked, planned.rows, cap=CAP), max(bound(checked, CAP), 1))
        ratio = max(estimate, 1) / max(actual, 1)
        errors.append((max(ratio, 1 / ratio), query))
    errors.sort()
    values = [error for error, _ in errors]
    cuts = quantiles(values, n=100)
    click.echo(
        f"\nestimates of {len(values)} queries: q-error median {cuts[49]:.2f}, p90 {cuts[89]:.1f}, max {values[-1]:.0f}"
    )
    for error, query in errors[-5:]:
        click.echo(f"{error:>8.1f}  {' '.join(query.split())[:100]}")


@click.command()
@click.option("--calls", type=click.IntRange(10, 100_000), default=1_000, show_default=True, help="Of each query.")
def main(calls: int) -> None:
    """Measure overhead and estimates on one machine, in one run."""

    async def run(stores: Services) -> None:
        async with market_database(stores) as market:  # type: ignore[arg-type]
            await estimates(market.owner)
            await overhead(stores, market, calls)

    with directory() as path, services(Path(path)) as stores:
        click.echo(f"PostgreSQL at port {urlsplit(stores.database_url).port}, fsync on")
        uvloop.run(run(stores))


if __name__ == "__main__":
    main()
