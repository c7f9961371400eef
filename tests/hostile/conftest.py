"""One database and a gateway per server, for the whole folder; every wire test runs against each of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.database.pool import Connection, connect
from gateway.ledger import proof
from gateway.settings import DatabaseSettings
from tests.hostile.shops import Market, Tills, open_market
from tests.hostile.wire import ScriptedUpstream
from tests.support.databases import copied_database
from tests.support.gateway import RunningGateway, hear, start_gateway
from tests.support.servers import DEFAULT, EACH, wanted
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import World

PATIENCE = {"SERVER_KEEP_ALIVE": "7", "PROXY_BODY_TIMEOUT": "3"}
# Tests make publishers fail one after another; the breaker has tests of its own.
PERSISTENCE = {"BREAKER_FAILURES": "0", "BREAKER_CALLS": "1000000"}
SETTINGS = {**PATIENCE, **PERSISTENCE, "LOGGING_LEVEL": "debug", "LOGGING_ACCESS": "true"}


@pytest_asyncio.fixture(scope="session")
async def database_url(services: Services, template: str) -> AsyncIterator[str]:
    """A database for this folder, instead of one for each module."""
    async with copied_database(services.database_url, template, "tw_hostile") as url:
        yield url


@pytest_asyncio.fixture(scope="session")
async def connection(database_url: str) -> AsyncIterator[Connection]:
    opened = await connect(DatabaseSettings(url=database_url))
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="session")
async def upstream() -> AsyncIterator[RecordingUpstream]:
    """A publisher's server that records the bytes it gets."""
    server = RecordingUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="session")
async def scripted() -> AsyncIterator[ScriptedUpstream]:
    """A publisher's server that answers with the bytes it was told."""
    server = ScriptedUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="session")
async def gateways(
    request: pytest.FixtureRequest, services: Services, database_url: str
) -> AsyncIterator[dict[str, RunningGateway]]:
    """One gateway per server, on one database, logging all it can; afterwards its log is judged."""
    folder = Path(__file__).parent
    servers = wanted(item for item in request.session.items if folder in item.path.parents)
    starting = (start_gateway(services, database_url, SERVER=server, **SETTINGS) for server in servers)
    running = dict(zip(servers, await asyncio.gather(*starting), strict=True))
    yield running
    await asyncio.gather(*(gateway.stop() for gateway in running.values()))


@pytest.fixture(params=EACH)
def server(request: pytest.FixtureRequest) -> str:
    """The name of the server under the gateway."""
    return request.param


@pytest.fixture
def wired(server: str, gateways: dict[str, RunningGateway]) -> RunningGateway:
    """The gateway on each server in turn."""
    return gateways[server]


@pytest.fixture(scope="session")
def gateway(gateways: dict[str, RunningGateway]) -> RunningGateway:
    """The gateway on its default server, for what does not depend on the server."""
    return gateways[DEFAULT]


@pytest.fixture(scope="session")
def world(
    database_url: str, connection: Connection, upstream: RecordingUpstream, gateways: dict[str, RunningGateway]
) -> World:
    """Makes agents and publishers; waits for the gateways to hear of a publisher."""
    return World(connection, upstream.url, partial(hear, database_url))


@pytest_asyncio.fixture(scope="session")
async def market(world: World, scripted: ScriptedUpstream) -> Market:
    """An agent with funds, and the publishers that most tests need."""
    return await open_market(world, scripted.url)


@pytest_asyncio.fixture(scope="module")
async def tills(world: World) -> AsyncIterator[Tills]:
    """Agents of their own for tests that ask what a call has cost in the end."""
    made = Tills(world)
    yield made
    await made.close()


@pytest_asyncio.fixture(scope="module", autouse=True)
async def books_of_the_module(connection: Connection) -> AsyncIterator[None]:
    """Whatever a module's tests did, the books balance and every exchange ends."""
    yield
    for _ in range(600):
        report = await proof.verify(connection)
        if not report.open_exchanges:
            break
        await asyncio.sleep(0.1)
    assert (report.violations, report.open_exchanges) == ({}, 0)


def lines_of(gateway: RunningGateway) -> list[dict[str, object]]:
    """Return what a gateway has logged as JSON objects; whatever is none fails here."""
    return [json.loads(line) for line in gateway.output().splitlines()]
