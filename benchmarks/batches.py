"""`python -m benchmarks.batches`: what a batch of charges costs PostgreSQL: its fixed part and each charge.

Batches of a known size go through the gateway's own group commit, each with the ends of the batch before it, on a
freshly migrated database. The CPU time of the one backend that serves them is read from the scheduler in nanoseconds.
It depends less than wall time on what else the machine does, but not little: 1.45 times as much was seen on a machine
with six times as many processes as cores. Printed per size: CPU per batch and per charge, of the backend and of this
process, and WAL bytes per charge; then the line `fixed + each * size` that fits them best.

What a change would bring is measured with `--sql`: both databases take turns in one run, so that whatever else the
machine does hits both, and ratios are taken within rounds. Many short rounds show a few percent: `--rounds 50
--charges 60`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import mean, median
from typing import Any

import click
import uvloop

from benchmarks.ledger import proven
from benchmarks.options import Listed
from benchmarks.seeding import PRICE, World, prepare
from benchmarks.stack import Services, directory, services
from gateway.database.pool import Connection, connect
from gateway.ids import floor_at, uuid7
from gateway.ledger.entries import Charge, Settlement
from gateway.ledger.exchanges import START_WORKER
from gateway.ledger.group_commit import GroupCommit
from gateway.settings import DatabaseSettings

HEAD = " size  PG us a batch  PG us a charge  Python us a charge  WAL B a charge"
HASH = b"\0" * 32


def on_cpu(pid: int) -> float:
    """Return the microseconds that a process with one thread has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[0]) / 1e3


class Bench:
    """One group commit, one backend."""

    def __init__(self, world: World, settings: DatabaseSettings, worker_id: int, fee: int) -> None:
        self._world, self._fee = world, fee
        self._ledger = GroupCommit(settings, grace=timedelta(days=7))
        self._ledger.worker_id = worker_id
        self._turn = itertools.cycle(world.agents)

    async def backend(self) -> int:
        """Return the process id of the backend."""

        async def work(connection: Connection) -> int:
            return connection.get_server_pid()

        return await self._ledger.exactly(work)

    async def batch(self, size: int) -> None:
        """Charge once for each of as many wallets, in one batch, and let the ends ride with the next one."""
        world = self._world
        charges = [
            Charge(uuid7(), agent.wallet_id, world.publisher_id, world.earnings_account, PRICE, self._fee)
            for agent in itertools.islice(self._turn, size)
        ]
        verdicts = await asyncio.gather(*map(self._ledger.charge, charges))
        assert all(verdict.verdict == "posted" for verdict in verdicts)
        for charge in charges:
            self._ledger.settle(
                Settlement(charge.exchange_id, "delivered", 200, 0, 1024, "GET", HASH, HASH, "GET /things/{id}")
            )

    async def measure(self, connection: Connection, size: int, charges: int) -> tuple[float, float, float]:
        """Return microseconds of the backend and of this process, and WAL bytes, per batch."""
        pid, batches = await self.backend(), max(charges // size, 30)
        wal = await connection.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        theirs, own = on_cpu(pid), time.process_time()
        for _ in range(batches):
            await self.batch(size)
        theirs, own = on_cpu(pid) - theirs, time.process_time() - own
        written = await connection.fetchval(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)", wal
        )
        return theirs / batches, own * 1e6 / batches, float(written) / batches

    async def stop(self) -> None:
        """Write what waits and close."""
        await self._ledger.stop()


def fitted(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return fixed part and slope of the line whose relative errors at these points are the smallest."""
    weights = [1 / cost**2 for _, cost in points]
    total = sum(weights)
    middle = sum(w * size for w, (size, _) in zip(weights, points, strict=True)) / total
    height = sum(w * cost for w, (_, cost) in zip(weights, points, strict=True)) / total
    over = sum(w * (size - middle) * (cost - height) for w, (size, cost) in zip(weights, points, strict=True))
    each = over / sum(w * (size - middle) ** 2 for w, (size, _) in zip(weights, points, strict=True))
    return height - each * middle, each


@dataclass(frozen=True)
class Variant:
    """A database of its own, and what was measured on it: by size, for each round what `Bench.measure` returns."""

    name: str
    bench: Bench
    connection: Connection
    seen: dict[int, list[tuple[float, float, float]]]

    def least(self, size: int, part: int) -> float:
        """Return what the cheapest round of a size cost."""
        return min(result[part] for result in self.seen[size])

    def show(self) -> None:
        """Print a line for each size, and the lines that fit them."""
        print(f"\n{self.name}\n{HEAD}")
        for size, results in self.seen.items():
            theirs, own, wal = self.least(size, 0), self.least(size, 1), mean(result[2] for result in results)
            print(f"{size:>5}  {theirs:>13.0f}  {theirs / size:>14.1f}  {own / size:>18.1f}  {wal / size:>14.0f}")
        for name, part in (("PostgreSQL", 0), ("Python", 1)):
            fixed, each = fitted([(size, self.least(size, part)) for size in self.seen])
            print(f"{name}: {fixed:.0f} us a batch + {each:.1f} us a charge")

    def compare(self, first: Variant) -> None:
        """Print what the backend took, as the median over rounds of the ratio to another variant's same round."""
        for size, results in self.seen.items():
            pairs = [(own[0], other[0]) for own, other in zip(results, first.seen[size], strict=True)]
            ratio, more = median(own / other for own, other in pairs), median(own - other for own, other in pairs)
            print(f"PostgreSQL, batches of {size}: {ratio:.3f} of {first.name}, {more:+.0f} us a batch")


async def _variant(
    stores: Services, world: World, number: int, sql: Path | None, sizes: list[int], fee: int
) -> Variant:
    """Copy the database and change the copy by `sql`."""
    name = f"variant_{number}"
    admin = await connect(DatabaseSettings(url=stores.admin_url, command_timeout=3600))
    await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{stores.database_url.rpartition("/")[2]}"')
    await admin.close()
    url = stores.database(name).database_url
    connection = await connect(DatabaseSettings(url=url, command_timeout=3600))
    if sql is not None:
        await connection.execute(sql.read_text(encoding="utf-8"))
    worker_id = await START_WORKER.one(connection, floor_at(0), [])
    bench = Bench(world, DatabaseSettings(url=url), worker_id, fee)
    return Variant("as it is" if sql is None else sql.stem, bench, connection, {size: [] for size in sizes})


async def _measure(
    stores: Services, sizes: list[int], rounds: int, charges: int, fee: int, changes: Sequence[Path]
) -> bool:
    world = await prepare(stores.database_url, 1, 1000)
    variants = [await _variant(stores, world, number, sql, sizes, fee) for number, sql in enumerate((None, *changes))]
    for size, variant in itertools.product(sizes, variants):
        await variant.bench.measure(variant.connection, size, 200)
    for number in range(rounds):
        begin = number % len(variants)
        for size, variant in itertools.product(sizes, variants[begin:] + variants[:begin]):
            variant.seen[size].append(await variant.bench.measure(variant.connection, size, charges))
    for variant in variants:
        variant.show()
        if variant is not variants[0]:
            variant.compare(variants[0])
    sound: list[bool] = []
    for variant in variants:
        await variant.bench.stop()
        sound.append(await proven(variant.connection))
        await variant.connection.close()
    return all(sound)


@click.command()
@click.option("--sizes", type=Listed("numbers"), default="1,2,4,16,64,256", show_default=True)
@click.option(
    "--rounds", type=click.IntRange(1), default=5, show_default=True, help="The cheapest round of each size counts."
)
@click.option("--charges", type=click.IntRange(1), default=3000, show_default=True, help="Per size and round.")
@click.option("--fee", type=click.IntRange(0, PRICE), default=0, show_default=True)
@click.option(
    "--sql",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Measure a copy of the database that this SQL has changed as well, in alternating rounds.",
)
def main(*, sizes: list[int], rounds: int, charges: int, fee: int, sql: tuple[Path, ...]) -> Any:
    """Measure what batches cost PostgreSQL, without HTTP."""
    with directory() as data, services(data) as stores:
        sound = uvloop.run(_measure(stores, sizes, rounds, charges, fee, sql))
    raise SystemExit(0 if sound else 1)


if __name__ == "__main__":
    main()
