"""What a prepaid call writes and asks: WAL bytes, flushes of the disk, commits, round trips to the two stores.

Counters of the database are read when its backends have reported: they do so at most once a second, at the end of a
transaction, so we wait and make one more. Round trips are counted by relays between a second gateway and the stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from benchmarks.cases import Case
from benchmarks.experiments.finding import Chart, Finding, Setting, table
from benchmarks.plain_http import HOST
from benchmarks.plots import line_chart
from benchmarks.relay import Relay, relayed
from benchmarks.stack import RAISED_LIMITS, Doors, Running

CONNECTIONS = (1, 16, 64, 256)
AGENTS = 1_000  # few, so that all soon are known; enough to stay below the limit of a key
REPORTED = 1.2  # seconds after which a backend reports
FSYNCS = "SELECT coalesce(sum(fsyncs), 0) FROM pg_stat_io WHERE object = 'wal'"
FSYNCS_BEFORE_18 = "SELECT wal_sync FROM pg_stat_wal"
COUNTERS = """
    SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS wal, ({fsyncs})::bigint AS fsyncs,
           (SELECT xact_commit FROM pg_stat_database WHERE datname = 'tollway') AS commits
"""


@dataclass(frozen=True, slots=True)
class Counters:
    """The database's counters at one moment."""

    wal: int
    fsyncs: int
    commits: int


@dataclass(frozen=True, slots=True)
class Written:
    """What one call needed with so many connections."""

    connections: int
    rate: float
    wal: float
    fsyncs: float
    commits: float
    database_trips: float
    valkey_trips: float


async def _counters(admin_url: str) -> Counters:
    connection = await asyncpg.connect(admin_url)
    try:
        version = connection.get_server_version().major
        row = await connection.fetchrow(COUNTERS.format(fsyncs=FSYNCS if version >= 18 else FSYNCS_BEFORE_18))
        assert row is not None
        return Counters(row["wal"], row["fsyncs"], row["commits"])
    finally:
        await connection.close()


class _Relays(threading.Thread):
    """Two relays on a loop of their own, so that they work while we wait for the load generator."""

    def __init__(self, *targets: int) -> None:
        super().__init__(daemon=True)
        self._targets = targets
        self.relays: list[Relay] = []
        self.ready = threading.Event()
        self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        """Serve until `end`."""
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for target in self._targets:
                self.relays.append(await stack.enter_async_context(relayed(target)))
            self._ended = asyncio.Event()
            self.ready.set()
            await self._ended.wait()

    def end(self) -> None:
        """Stop serving."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self.join(10)


@contextlib.contextmanager
def _counted(setting: Setting, limits: dict[str, str]) -> Generator[tuple[Running, Relay, Relay]]:
    """Run a gateway that reaches the stores through relays."""
    stack, stores = setting.stack, setting.stack.services
    relays = _Relays(*(int(urlsplit(url).port or 0) for url in (stores.database_url, stores.redis_url)))
    relays.start()
    relays.ready.wait(10)
    try:
        with contextlib.ExitStack() as children:
            database, cache = relays.relays
            through = replace(
                stores,
                database_url=_at(stores.database_url, database.port),
                redis_url=_at(stores.redis_url, cache.port),
            )
            doors = Doors(children, stack.directory, through, stack.upstream, stack.complete)
            yield doors.gateway(setting.server, 1, stack.world, **limits), database, cache
    finally:
        relays.end()


def _at(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{HOST}:{port}".removeprefix("@")))


def run(setting: Setting) -> Finding:
    """Measure with a few numbers of connections."""
    seconds = 0.5 if setting.quick else 3.0
    numbers = CONNECTIONS[:2] if setting.quick else CONNECTIONS
    agents = min(AGENTS, len(setting.stack.world.agents))
    found: list[Written] = []
    few = Case("prepaid", setting.server, agents=agents).limits_raised
    with _counted(setting, RAISED_LIMITS if few else {}) as (gateway, database, cache):
        for number in numbers:
            case = Case("prepaid", setting.server, connections=number, agents=agents)
            rate, wal, fsyncs, commits = _written(setting, case, seconds)
            setting.caller.meet_everybody(case, gateway)
            trips = database.trips, cache.trips
            calls = setting.caller.load(case, gateway, seconds).ok_total
            one = Written(number, rate, wal, fsyncs, commits, *(
                (relay.trips - before) / calls for relay, before in zip((database, cache), trips, strict=True)
            ))  # fmt: skip
            found.append(one)
    head = ("conn", "calls/s", "WAL B", "flushes", "commits", "calls a flush", "round trips: PostgreSQL", "Valkey")
    rows = [
        (
            str(one.connections), f"{one.rate:.0f}", f"{one.wal:.0f}", f"{one.fsyncs:.3f}", f"{one.commits:.3f}",
            f"{1 / one.fsyncs:.1f}" if one.fsyncs else "", f"{one.database_trips:.3f}", f"{one.valkey_trips:.3f}",
        )
        for one in found
    ]  # fmt: skip
    text = (
        f"Per prepaid call on {setting.server}. Calls that wait at the same time share a statement, a commit and a"
        " flush; their ends (the settlements) ride with the next. Round trips are of a gateway behind counting relays,"
        " which is slower, so its batches are larger than those of the other columns.\n\n" + table(head, rows)
    )
    document = {"per_call": [{name: round(getattr(one, name), 4) for name in Written.__slots__} for one in found]}
    return Finding("writes", "What a call writes and asks", document, text, charts=_charts(found))


def _charts(found: Sequence[Written]) -> list[Chart]:
    if len(found) < 2:
        return []
    across = [str(one.connections) for one in found]
    shared = {
        "flushes": [one.fsyncs for one in found],
        "commits": [one.commits for one in found],
        "round trips to PostgreSQL": [one.database_trips for one in found],
        "round trips to Valkey": [one.valkey_trips for one in found],
    }
    shared_title, wal_title = "What calls at the same time share, by connections", "WAL by connections"
    return [
        Chart("shared", shared_title, line_chart(shared_title, across, shared, "per call, logarithmic", log=True)),
        Chart("wal", wal_title, line_chart(wal_title, across, {"WAL": [one.wal for one in found]}, "bytes per call")),
    ]


def _written(setting: Setting, case: Case, seconds: float) -> tuple[float, float, float, float]:
    """Return calls a second, and WAL bytes, flushes and commits per call."""
    door = setting.stack.doors[case.door]

    def reported() -> Counters:
        time.sleep(REPORTED)
        setting.caller.load(case, door, 0.05)
        return asyncio.run(_counters(setting.stack.services.admin_url))

    setting.caller.meet_everybody(case, door)
    before = reported()
    answers = setting.caller.load(case, door, seconds)
    after = reported()
    calls = answers.ok_total
    return (
        answers.rate,
        (after.wal - before.wal) / calls,
        (after.fsyncs - before.fsyncs) / calls,
        (after.commits - before.commits) / calls,
    )
