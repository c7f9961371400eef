"""Fixtures of the whole suite: real servers, once; a fresh database per module; a gateway process where one is needed.

Nothing is mocked. Tests that speak HTTP talk to a gateway process over a socket, and its upstream is a server of
tests/support that records the bytes it was sent.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import warnings
from collections.abc import AsyncIterator, Generator, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gateway.catalog.assets import store_assets
from gateway.database.migrate import migrate
from gateway.database.pool import Connection, connect
from gateway.ledger import proof
from gateway.settings import DatabaseSettings
from tests.support.chain import Chain, temporary_chain
from tests.support.chat import ChatUpstream
from tests.support.databases import copied_database, replaced
from tests.support.gateway import RunningGateway, hear, start_gateway
from tests.support.market import Market, market_database
from tests.support.mcp_server import PublishersServer, ScriptedMcpServer
from tests.support.services import Services, temporary_services
from tests.support.sockets import SocketUpstream
from tests.support.stripe_server import StripeServer
from tests.support.upstream import RecordingUpstream
from tests.support.world import World

# py_ecc, which the official x402 client brings, raises the limit to 100,000 on import: hostile nesting would then overflow
# the C stack of this process (seen with Python 3.11). The gateway does not have it.
with contextlib.suppress(ImportError):
    importlib.import_module("py_ecc")
sys.setrecursionlimit(1_000)

# How long an example takes is the machine's business: no test measures time. And one state of the code has one verdict;
# who looks for more takes other examples: pytest --hypothesis-profile=fresh.
settings.register_profile("fresh", deadline=None)
settings.register_profile("tollway", deadline=None, derandomize=True)
settings.load_profile("tollway")

# They take longest, so they begin first: at the end nobody waits for one that began late.
FIRST = (
    "conformance/test_schemathesis.py", "devservices/test_supervisor.py", "simulator/test_simulator.py",
    "cli/test_servers.py", "cli/test_operator_commands.py", "benchmarks/test_benchmarks.py", "cli/test_commands.py",
    "docs/test_quick_starts.py", "journeys/test_who_pays.py", "admin_api/test_store_browser.py",
    "journeys/test_publisher_fields.py", "journeys/test_exactly_once.py", "journeys/test_paid_call.py",
    "cli/test_secrets.py", "faults/test_crashes.py", "proxy/test_websocket.py", "proxy/test_http2.py",
    "payments/buying/test_owners.py", "proxy/test_hanging_workers.py", "proxy/test_websocket_memory.py", "scale/test_pooler.py", "scale/test_two_hosts.py", "telemetry/test_sampler.py",
)  # fmt: skip

_numbers = count(1)
TEMPLATE = "tollway_template"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files first that take longest. xdist hands files out in this order (--no-loadscope-reorder)."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(FIRST)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Forget what a failed test leaves open: found by a later collection, it would fail a test that has no part in it."""
    before = item.session.testsfailed
    result = yield
    if item.session.testsfailed > before:
        for name in ("last_exc", "last_value", "last_traceback", "last_type"):
            sys.__dict__.pop(name, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    return result


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """One PostgreSQL and one Valkey for the whole run (fsync off: nothing here measures or crashes them)."""
    with temporary_services(durable=False) as running:
        yield running


@pytest.fixture(scope="session")
def running_chain() -> Iterator[Chain]:
    """One local chain with real USDC for the whole run."""
    with temporary_chain() as chain:
        yield chain


@pytest_asyncio.fixture(scope="session")
async def chain(running_chain: Chain) -> AsyncIterator[Chain]:
    """The local chain; nothing is mined but what is sent, at once, until a test says otherwise."""
    async with running_chain.resting() as chain:
        yield chain


@pytest_asyncio.fixture(scope="session")
async def publishers_database(services: Services) -> AsyncIterator[Market]:
    """A publisher's database, made once for the whole run."""
    async with market_database(services) as made:
        yield made


@pytest.fixture(scope="session")
def market(publishers_database: Market) -> Market:
    """The same, where nothing else has this name."""
    return publishers_database


@pytest_asyncio.fixture(scope="session")
async def template(services: Services) -> str:
    """The name of a migrated database that others are copied from."""
    connection = await asyncpg.connect(services.database_url)
    await connection.execute(f'CREATE DATABASE "{TEMPLATE}"')
    await connection.close()
    url = replaced(services.database_url, TEMPLATE)
    await migrate(url)
    connection = await connect(DatabaseSettings(url=url))
    await store_assets(connection)
    await connection.close()
    return TEMPLATE


@pytest_asyncio.fixture(scope="module")
async def database_url(services: Services, template: str) -> AsyncIterator[str]:
    """A fresh, migrated database for this module."""
    async with copied_database(services.database_url, template, f"tw_{next(_numbers)}") as url:
        yield url


@pytest_asyncio.fixture(scope="module")
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """A connection to this module's database."""
    opened = await connect(DatabaseSettings(url=database_url))
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="module")
async def upstream() -> AsyncIterator[RecordingUpstream]:
    """A publisher's server that records what reaches it."""
    server = RecordingUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module")
async def stripe() -> AsyncIterator[StripeServer]:
    """Stripe's stand-in."""
    server = StripeServer()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module")
async def sockets() -> AsyncIterator[SocketUpstream]:
    """A publisher's WebSocket server."""
    server = SocketUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module")
async def chat() -> AsyncIterator[ChatUpstream]:
    """A publisher's server that speaks the chat API and says what was used."""
    server = ChatUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module")
async def mcp_server() -> AsyncIterator[PublishersServer]:
    """A publisher's MCP server with sessions and event streams."""
    server = PublishersServer()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module")
async def odd_mcp() -> AsyncIterator[ScriptedMcpServer]:
    """A publisher's MCP server that does what a test tells it to."""
    server = ScriptedMcpServer()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway process on this module's database, by the default server, with one worker."""
    running = await start_gateway(services, database_url)
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def world(database_url: str, connection: Connection, upstream: RecordingUpstream) -> World:
    """Makes agents and publishers on this module's database; waits for the gateways there to hear of them."""
    return World(connection, upstream.url, partial(hear, database_url))


@pytest_asyncio.fixture
async def sound_books(connection: Connection) -> AsyncIterator[None]:
    """Whatever the test did, the books balance afterwards."""
    yield
    report = await proof.verify(connection)
    assert report.sound, report.violations
