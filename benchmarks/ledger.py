"""`python -m benchmarks.ledger`: the ledger's hot door alone, on a freshly migrated database.

Callers in one process charge and settle through group commit as fast as they are answered. Printed per number of
callers, for many wallets and for one hot wallet: charges a second, the mean batch, latency, CPU of this process and of
PostgreSQL per charge, and WAL bytes per charge.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import mean, quantiles
from typing import Any

import click
import uvloop

from benchmarks.options import Listed
from benchmarks.processes import cpu_seconds
from benchmarks.seeding import PRICE, World, prepare
from benchmarks.stack import Services, directory, services
from gateway.database.pool import Connection, connect
from gateway.ids import floor_at, uuid7
from gateway.ledger.entries import Charge, Settlement
from gateway.ledger.exchanges import START_WORKER
from gateway.ledger.group_commit import GroupCommit
from gateway.ledger.proof import verify
from gateway.settings import DatabaseSettings

HEAD = "wallets  callers  charges/s  batch  p50 ms  p99 ms  Python us  PG us  WAL B"


@dataclass(slots=True)
class Run:
    """What one number of callers did."""

    seconds: float = 0.0
    own_cpu: float = 0.0
    database_cpu: float = 0.0
    wal: int = 0
    latencies: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def line(self, wallets: int, callers: int) -> str:
        """Return its line of the table."""
        charges = len(self.latencies)
        cuts = quantiles(self.latencies, n=100)
        return (
            f"{wallets:>7}  {callers:>7}  {charges / self.seconds:>9.0f}  {mean(self.batches):>5.1f}"
            f"  {cuts[49] * 1e3:>6.2f}  {cuts[98] * 1e3:>6.2f}  {self.own_cpu / charges * 1e6:>9.1f}"
            f"  {self.database_cpu / charges * 1e6:>5.1f}  {self.wal / charges:>5.0f}"
        )


class Bench:
    """One group commit on one database."""

    def __init__(self, stores: Services, world: World, settings: DatabaseSettings, worker_id: int) -> None:
        self._stores, self._world = stores, world
        self._run = Run()
        self._ledger = GroupCommit(settings, grace=timedelta(days=7), observe=self._batch)
        self._ledger.worker_id = worker_id
        self._turn = itertools.cycle(world.agents)

    async def measure(self, connection: Connection, wallets: int, callers: int, seconds: float) -> Run:
        """Let callers charge for a while, after a short warm-up."""
        self._turn = itertools.cycle(self._world.agents[:wallets])
        for length in (min(0.3, seconds), seconds):
            self._run = run = Run()
            wal = await connection.fetchval("SELECT pg_current_wal_insert_lsn()::text")
            own, theirs, began = time.process_time(), cpu_seconds([self._stores.postgres_pid]), time.perf_counter()
            await asyncio.gather(*(self._caller(began + length) for _ in range(callers)))
            run.seconds = time.perf_counter() - began
            run.own_cpu = time.process_time() - own
            run.database_cpu = cpu_seconds([self._stores.postgres_pid]) - theirs
            run.wal = int(
                await connection.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)", wal)
            )
        return self._run

    async def stop(self) -> None:
        """Write what waits and close."""
        await self._ledger.stop()

    async def _caller(self, ends: float) -> None:
        clock = time.perf_counter
        while (began := clock()) < ends:
            exchange, agent = uuid7(), next(self._turn)
            verdict = await self._ledger.charge(
                Charge(exchange, agent.wallet_id, self._world.publisher_id, self._world.earnings_account, PRICE, 0)
            )
            assert verdict.paid
            self._run.latencies.append(clock() - began)
            self._ledger.settle(Settlement(exchange, "delivered", 200, 0, 1024))

    def _batch(self, size: int, _seconds: float) -> None:
        self._run.batches.append(size)


async def _measure(stores: Services, callers: Sequence[int], wallets: Sequence[int], seconds: float) -> bool:
    world = await prepare(stores.database_url, 1, max(wallets))
    settings = DatabaseSettings(url=stores.database_url)
    connection = await connect(DatabaseSettings(url=stores.database_url, command_timeout=3600))
    bench = Bench(stores, world, settings, await START_WORKER.one(connection, floor_at(0), []))
    print(HEAD)
    try:
        for number in wallets:
            for size in callers:
                print((await bench.measure(connection, number, size, seconds)).line(number, size))
        await bench.stop()
        return await proven(connection)
    finally:
        await connection.close()


async def proven(connection: Connection) -> bool:
    """Say whether the ledger is sound after what was measured, and return it."""
    report = await verify(connection)
    print(f"ledger: {'sound' if report.sound else report.violations}, {report.transfers} transfers")
    return report.sound


@click.command()
@click.option("--callers", type=Listed("numbers"), default="1,2,4,16,64,256", show_default=True)
@click.option("--wallets", type=Listed("numbers"), default="1000,1", show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=2.0, show_default=True)
def main(*, callers: list[int], wallets: list[int], seconds: float) -> Any:
    """Measure group commit alone, without HTTP."""
    with directory() as data, services(data) as stores:
        sound = uvloop.run(_measure(stores, callers, wallets, seconds))
    raise SystemExit(0 if sound else 1)


if __name__ == "__main__":
    main()
