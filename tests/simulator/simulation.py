"""One run: a fresh database, a plan, a conductor, and at the end a verdict with its history."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg

import gateway.catalog.earnings
import gateway.ids
import gateway.jobs.clocks
import gateway.jobs.heartbeat
import gateway.proxy.allowance
import gateway.proxy.failures
import gateway.proxy.kinds.http
import gateway.proxy.tiers
from gateway.catalog.assets import store_assets
from gateway.database.migrate import migrate
from gateway.database.pool import Connection, connect
from gateway.settings import DatabaseSettings
from tests.simulator.actors import act
from tests.simulator.checks import Books, check_ends
from tests.simulator.conductor import EPOCH, Conductor, SimulationError
from tests.simulator.loop import SimulatedLoop
from tests.simulator.observer import Observer
from tests.simulator.plan import Plan
from tests.simulator.process import task_factory
from tests.simulator.town import Town, make_town

TEMPLATE = "simulator_template"
SEARCH_PATH = "simulator, pg_catalog, public"
# A dead worker is one after 15 s, and what a statement may still do is known after 30 s more.
REST_SECONDS = 75.0
HERE = Path(__file__).parent
_numbers = count(1)
Sabotage = Callable[[Town], contextlib.AbstractContextManager[None]]
"""Breaks something on purpose for the time of a run, to see that it is found."""


@dataclass
class Outcome:
    """What came of a run. `failure` is None when everything held; `seen` counts what happened in it."""

    seed: int
    failure: str | None
    history: list[str]
    steps: int = 0
    seen: dict[str, int] = field(default_factory=dict)


async def make_template(server_url: str) -> None:
    """Create the database that runs are copied from: the migrations under simulated time, plus the journal."""
    server = await asyncpg.connect(server_url)
    await server.execute(f'DROP DATABASE IF EXISTS "{TEMPLATE}" WITH (FORCE)')
    await server.execute(f'CREATE DATABASE "{TEMPLATE}"')
    await server.execute(f'ALTER DATABASE "{TEMPLATE}" SET search_path = {SEARCH_PATH}')
    await server.close()
    url = url_of(server_url, TEMPLATE)
    connection = await connect(DatabaseSettings(url=url))
    await connection.execute((HERE / "schema.sql").read_text())
    await connection.execute("SELECT simulator.set_clock($1)", EPOCH)
    await connection.close()
    await migrate(url)
    connection = await connect(DatabaseSettings(url=url))
    await store_assets(connection)
    await connection.execute((HERE / "journal.sql").read_text())
    await connection.close()


def url_of(server_url: str, name: str) -> str:
    """Return a database's URL, without TLS: the simulated network carries plain messages."""
    return f"{server_url.rsplit('/', 1)[0]}/{name}?sslmode=disable"


def simulate(server_url: str, plan: Plan, sabotage: Sabotage | None = None, check_every: int = 200) -> Outcome:
    """Run a plan on a database of its own and return the outcome. Deterministic: one plan, one history."""
    with fresh_database(server_url) as url, Observer(url) as observer:
        loop = SimulatedLoop()
        loop.set_task_factory(task_factory)  # type: ignore[arg-type]
        conductor = Conductor(f"schedule {plan.seed} {plan.schedule}", loop, observer, plan.chances)
        conductor.shards, conductor.check_every = plan.shards, check_every
        observer.name_backend(
            observer.look(lambda connection: connection.fetchval("SELECT pg_catalog.pg_backend_pid()")), 0
        )
        loop.network = conductor
        failure = None
        with simulated_time(loop, plan.seed), quiet_logs():
            try:
                loop.run_until_complete(_prepare(loop, conductor, plan, url, sabotage))
            except (SimulationError, AssertionError) as error:
                failure = str(error) or repr(error)
            except Exception as error:  # whatever the code under test raises is a finding
                failure = f"{type(error).__name__}: {error}"
                conductor.trouble = error
            finally:
                _put_away(loop, conductor)
        return Outcome(plan.seed, failure, conductor.history, conductor.steps, conductor.seen)


async def _prepare(loop: SimulatedLoop, conductor: Conductor, plan: Plan, url: str, sabotage: Sabotage | None) -> None:
    town = await make_town(plan, conductor, url)
    books = Books(town)
    conductor.check = books.check
    conductor.may_crash = town.alive
    loop.begin(conductor.idle)
    with sabotage(town) if sabotage else contextlib.nullcontext():
        await _play(town)
        books.check()
        check_ends(town, books)
    conductor.seen.update(books.model.kinds)
    conductor.seen.update(books.counts.kinds)


async def _play(town: Town) -> None:
    """Run the plan's operations, several at a time, then let everything come to rest."""
    conductor, left, running = town.conductor, list(town.plan.operations), set[asyncio.Task[None]]()
    failed: asyncio.Future[None] = conductor.loop.create_future()

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not failed.done():
            failed.set_exception(error)

    def begin() -> None:
        operation = left.pop(0)
        conductor.note(f"operation {operation.number} {operation.kind} agent {operation.agent} shop {operation.shop}"
                       f" amount {operation.amount} {operation.script}")  # fmt: skip
        task = conductor.loop.create_task(act(town, operation))
        running.add(task)
        task.add_done_callback(ended)

    conductor.start_next = lambda: begin if left and len(running) < town.plan.together else None
    keeper = conductor.loop.create_task(town.keep_up())
    keeper.add_done_callback(ended)
    while left or running:
        await asyncio.wait([failed, *running], timeout=1, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            failed.result()
        if not left and not conductor.calm:
            conductor.calm = True
            conductor.frozen.clear()
            conductor.note("from here on nothing breaks any more")
    keeper.cancel()
    await _come_to_rest(town)


async def _come_to_rest(town: Town) -> None:
    """Wait as long as a gateway may need to tidy up by itself, then stop every process as SIGTERM does."""
    await asyncio.sleep(REST_SECONDS)
    town.conductor.note("everything had time to end")
    town.unended = town.conductor.observer.look(open_exchanges)
    if town.unended:
        raise SimulationError(f"exchanges without an end although nothing is broken any more: {town.unended}")
    for process in town.alive():
        await process.spawn(process.stop())


async def open_exchanges(connection: Connection) -> list[str]:
    """Return the charges, holds and counted free calls that have no end."""
    rows = await connection.fetch(
        "SELECT t.cause_id::text AS id FROM ledger.transfer t WHERE t.kind IN ('charge', 'hold') AND t.leg = 0"
        " AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = t.cause_id)"
        " UNION SELECT d.exchange_id::text FROM ledger.counted d WHERE d.alone"
        " AND NOT EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = d.exchange_id) ORDER BY 1"
    )
    return [row["id"] for row in rows]


def _put_away(loop: SimulatedLoop, conductor: Conductor) -> None:
    """End every task of the run, whatever state it is in, and close the loop."""
    loop.finish()
    conductor.abandon()
    for _ in range(100):
        tasks = asyncio.all_tasks(loop)
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=0))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@contextlib.contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """Copy the template."""
    name = f"simulator_{next(_numbers)}"
    _on_server(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"',
               f'ALTER DATABASE "{name}" SET search_path = {SEARCH_PATH}')  # fmt: skip
    try:
        yield url_of(server_url, name)
    finally:
        _on_server(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _on_server(server_url: str, *statements: str) -> None:
    async def run() -> None:
        server = await asyncpg.connect(server_url)
        for statement in statements:
            await patiently(server, statement)
        await server.close()

    async def patiently(server: Any, statement: str) -> None:
        for left in range(50, -1, -1):
            try:
                await server.execute(statement)
                return
            except (asyncpg.InsufficientPrivilegeError, asyncpg.ObjectInUseError):  # autovacuum is not ours to end
                if not left:
                    raise
                await asyncio.sleep(0.1)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(run())
    loop.close()


@contextlib.contextmanager
def simulated_time(loop: SimulatedLoop, seed: int) -> Generator[None]:
    """Give the modules that look at the clock the simulated one, and ids random bits from the seed."""
    dice = random.Random(f"ids {seed}")

    def nanoseconds() -> int:
        return int((EPOCH.timestamp() + loop.time()) * 1000) * 1_000_000

    clock = SimpleNamespace(time_ns=nanoseconds, monotonic_ns=nanoseconds, monotonic=loop.time)
    calendar = SimpleNamespace(now=lambda _zone: EPOCH + timedelta(seconds=loop.time()))
    changes: list[tuple[Any, str, Any]] = [
        (asyncpg.connection, "time", clock),
        (asyncpg.protocol.protocol, "time", clock),
        (gateway.catalog.earnings, "datetime", calendar),
        (gateway.ids, "time", clock),
        (gateway.ids, "os", SimpleNamespace(urandom=dice.randbytes)),
        (gateway.jobs.clocks, "time", clock),
        (gateway.jobs.heartbeat, "time", clock),
        (gateway.proxy.kinds.http, "monotonic", loop.time),
        (gateway.proxy.failures, "monotonic", loop.time),
        (gateway.proxy.allowance, "datetime", calendar),
        (gateway.proxy.tiers, "datetime", calendar),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    before.append((gateway.ids, "CLOCK", gateway.ids.CLOCK))
    gateway.ids.CLOCK = gateway.ids.Clock()
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@contextlib.contextmanager
def quiet_logs() -> Generator[None]:
    """Silence the warnings about the trouble that we make."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
