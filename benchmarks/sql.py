"""`python -m benchmarks.sql`: what a sold query costs over the same one straight at the database.

Closed loops on 1, 8 and 32 connections ask a warm, short query in alternating rounds: over asyncpg straight at
PostgreSQL, and as paid calls through the gateway over HTTP, each checked, planned (or known to be), held for, run and
captured. Both clients are in this process. Then calls are made one after the other, to count how often one speaks to
each server and how often the disk is flushed for it. At the end the ledger is proved.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import click
import uvloop

from benchmarks.callers import Caller, Tally
from benchmarks.options import Listed
from benchmarks.plain_http import HOST
from benchmarks.relay import Relay, relayed
from benchmarks.stack import Services, directory, services
from gateway.catalog.assets import store_assets
from gateway.database.migrate import migrate
from gateway.database.pool import Connection, connect
from gateway.ledger import proof
from gateway.settings import DatabaseSettings
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.market import Market, market_database, sell
from tests.support.world import Agent, Shop, World

WARM = {
    "one row by key": "SELECT ticker, name FROM companies WHERE company_id = 7",
    "ten rows": "SELECT company_id, day, close FROM prices WHERE company_id = 7 ORDER BY day LIMIT 10",
    "an aggregate": "SELECT sector_id, count(*) FROM companies GROUP BY sector_id ORDER BY 1",
}
FUNDS = 10**12
COUNTED = 400
STATISTICS_SECONDS = 1.2
"""A PostgreSQL backend reports what it did at the first transaction after a second."""
FLUSHES = "SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal'"
FLUSHES_BEFORE_18 = "SELECT wal_sync FROM pg_stat_wal"


@dataclass(slots=True)
class Row:
    """One query on a number of connections: seconds of each call, a list for each round."""

    name: str
    query: str
    connections: int
    straight: list[list[float]] = field(default_factory=list[list[float]])
    sold: list[list[float]] = field(default_factory=list[list[float]])


async def overhead(
    stores: Services, market: Market, *, connections: Sequence[int], seconds: float, rounds: int
) -> None:
    """Measure and print everything. Raises ClickException when an answer was not 200."""
    await migrate(stores.database_url)
    connection = await connect(DatabaseSettings(url=stores.database_url))
    await store_assets(connection)
    world = World(connection)
    try:
        async with _gateway(stores, stores.database_url) as gateway:
            shop = await sell(gateway.client, await world.agent(), market.config(sample=False))
            agent = await world.agent(FUNDS)
            await asyncio.sleep(0.5)
            rows = [Row(name, query, number) for number in connections for name, query in WARM.items()]
            await _measure(rows, market, gateway, shop, agent, seconds, rounds)
        _print(rows)
        await _count(stores, market, world)
        report = await proof.verify(connection)
        if not report.sound or report.open_exchanges:
            raise click.ClickException(f"the books do not balance: {report}")
        click.echo("the books balance, and every exchange has ended")
    finally:
        await connection.close()


async def _measure(
    rows: Sequence[Row],
    market: Market,
    gateway: RunningGateway,
    shop: Shop,
    agent: Agent,
    seconds: float,
    rounds: int,
) -> None:
    most = max(row.connections for row in rows)
    sessions = [
        await asyncpg.connect(market.connection_string, server_settings={"search_path": "demo"}) for _ in range(most)
    ]
    for number in range(rounds + 1):  # the first warms up
        for row in rows:
            request = _request(gateway.port, shop, agent, row.query)
            straight = await _loop(sessions[: row.connections], row.query, seconds)
            sold = await _calls(gateway.port, request, row.connections, seconds)
            if number:
                row.straight.append(straight)
                row.sold.append(sold)
    for session in sessions:
        await session.close()


async def _loop(sessions: Sequence[asyncpg.Connection], query: str, seconds: float) -> list[float]:
    """Return how long each query took over asyncpg."""
    took = list[float]()
    until = time.perf_counter() + seconds

    async def ask(session: asyncpg.Connection) -> None:
        began = time.perf_counter()
        while began < until:
            await session.fetch(query)
            ended = time.perf_counter()
            took.append(ended - began)
            began = ended

    await asyncio.gather(*(ask(session) for session in sessions))
    return took


async def _calls(port: int, request: bytes, connections: int, seconds: float) -> list[float]:
    """Return how long each paid call took."""
    tally, loop = Tally(), asyncio.get_running_loop()
    callers = [
        await loop.create_connection(lambda: Caller(cycle([request]), tally), HOST, port) for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    tally.running = False
    for transport, _ in callers:
        transport.abort()
    if tally.bad_status or tally.socket_errors:
        raise click.ClickException(f"{tally.bad_status} answers were not 200, {tally.socket_errors} broke off")
    return tally.latencies


def _request(port: int, shop: Shop, agent: Agent, query: str) -> bytes:
    body = json.dumps({"query": query}).encode()
    head = (
        f"POST /publishers/{shop.slug} HTTP/1.1\r\nHost: {HOST}:{port}\r\nAuthorization: Bearer {agent.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _print(rows: Sequence[Row]) -> None:
    click.echo(
        f"\n{'conn':>4}  {'query':<15} {'straight p50':>13} {'p99':>7} {'sold p50':>9} {'p99':>7} "
        f"{'overhead p50':>13} {'(least round)':>14} {'p99':>7} {'sold/s':>7}  ms"
    )
    for row in rows:
        straight, sold = list(chain(*row.straight)), list(chain(*row.sold))
        one, other = _cuts(straight), _cuts(sold)
        least = min(_cuts(sold)[49] - _cuts(plain)[49] for plain, sold in zip(row.straight, row.sold, strict=True))
        click.echo(
            f"{row.connections:>4}  {row.name:<15} {one[49]:>13.2f} {one[98]:>7.2f} {other[49]:>9.2f} {other[98]:>7.2f}"
            f" {other[49] - one[49]:>13.2f} {least:>14.2f} {other[98] - one[98]:>7.2f}"
            f" {row.connections * len(sold) / sum(sold):>7.0f}"
        )


def _cuts(took: Sequence[float]) -> list[float]:
    return [cut * 1e3 for cut in quantiles(took, n=100)]


# Round trips and flushes: a gateway of its own, whose connections all go through relays.


async def _count(stores: Services, market: Market, world: World) -> None:
    """Print how often one call speaks to each server, and how often the ledger's disk is flushed for it."""
    async with (
        relayed(urlsplit(stores.database_url).port or 0) as ledger,
        relayed(urlsplit(stores.redis_url).port or 0) as limits,
        relayed(urlsplit(market.connection_string).port or 0) as sold,
        _gateway(
            replace(stores, redis_url=_through(stores.redis_url, limits)), _through(stores.database_url, ledger)
        ) as gateway,
    ):
        config = market.config(sample=False) | {"connection_string": _through(market.connection_string, sold)}
        shop, agent = await sell(gateway.client, await world.agent(), config), await world.agent(FUNDS)
        await asyncio.sleep(0.5)
        calls = _sender(gateway.port, _request(gateway.port, shop, agent, next(iter(WARM.values()))))
        await calls(50)
        relays = {"ledger": ledger, "publisher's database": sold, "Valkey": limits}
        before, flushed = {name: relay.trips for name, relay in relays.items()}, await _flushes(world.connection, calls)
        await calls(COUNTED)
        trips = {name: (relay.trips - before[name]) / COUNTED for name, relay in relays.items()}
        per_call = (await _flushes(world.connection, calls) - flushed) / COUNTED
    shown = ", ".join(f"{name} {number:.1f}" for name, number in trips.items())
    click.echo(f"\na call alone: round trips to {shown}; flushes of the ledger's disk {per_call:.1f}")


def _sender(port: int, request: bytes) -> Callable[[int], Awaitable[None]]:
    async def send(number: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        for _ in range(number):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise click.ClickException(head.decode("latin-1"))
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()

    return send


async def _flushes(connection: Connection, calls: Callable[[int], Awaitable[None]]) -> int:
    await asyncio.sleep(STATISTICS_SECONDS)
    await calls(1)
    await asyncio.sleep(STATISTICS_SECONDS)
    version = int(await connection.fetchval("SHOW server_version_num"))
    return int(await connection.fetchval(FLUSHES if version >= 180_000 else FLUSHES_BEFORE_18))


def _through(url: str, relay: Relay) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{relay.port}")))


@contextlib.asynccontextmanager
async def _gateway(stores: Services, database_url: str) -> AsyncGenerator[RunningGateway]:
    running = await start_gateway(stores, database_url)  # type: ignore[arg-type]
    try:
        yield running
    finally:
        await running.stop()


@click.command()
@click.option("--quick", is_flag=True, help="One short round: does it work at all?")
@click.option("--connections", type=Listed("numbers"), default="1,8,32", show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=2.0, show_default=True, help="Length of a round.")
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
def main(*, quick: bool, connections: list[int], seconds: float, rounds: int) -> None:
    """Measure what the gateway adds to a query."""
    if quick:
        seconds, rounds = min(seconds, 0.3), 1

    async def run(stores: Services) -> None:
        async with market_database(stores) as market:  # type: ignore[arg-type]
            await overhead(stores, market, connections=connections, seconds=seconds, rounds=rounds)

    with directory() as path, services(Path(path)) as stores:
        uvloop.run(run(stores))


if __name__ == "__main__":
    main()
