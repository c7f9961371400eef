"""docs/who-pays.md, played row by row against the running gateway: what it promises is what happens, and nothing else.

The document is parsed; the scenes say how each row is brought about (scenes.py, tool_scenes.py). Neither can be without
the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.faults import POINTS
from tests.docs.markdown import ROOT, rows
from tests.hostile.wire import ScriptedUpstream
from tests.journeys.hostile_publisher import full_backlog, publisher
from tests.journeys.scenes import CLIENT_SECONDS, KILLED, SCENES, SHOPS, Seen, Stage, asked_again, told
from tests.journeys.tool_scenes import PLAYS
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.mcp_server import ScriptedMcpServer
from tests.support.servers import DEFAULT, EACH, SERVERS
from tests.support.services import Services
from tests.support.sockets import SocketUpstream
from tests.support.world import Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

PRICE, COST, FUNDS = 10_000, "0.01", 1_000_000


@dataclass(frozen=True)
class Row:
    """One promise of the document."""

    name: str
    charged: bool
    status: int | None
    problem: str
    breaks_off: bool
    cost: str | None
    outcome: str | None
    reason: str | None


def promised() -> dict[str, Row]:
    """Return the rows of the document."""
    found: dict[str, Row] = {}
    for cells in rows(ROOT / "docs" / "who-pays.md", "| `"):
        name, _story, charged, reads, cost, receipt = cells
        words = reads.replace("`", "").split()
        nobody = reads == "nobody reads"
        made = Row(
            name.strip("`"),
            {"yes": True, "no": False}[charged],
            None if nobody else int(words[0]),
            words[1] if len(words) == 2 else "",
            reads.endswith("breaks off"),
            {"price": COST, "0": "0", "-": None}[cost],
            *(receipt.replace("`", "").split() if receipt != "none" else (None, None)),
        )
        assert made.name not in found
        found[made.name] = made
    return found


PROMISED = promised()
LIVE = [name for name in PROMISED if name not in KILLED]


def test_every_row_has_its_scene_and_every_scene_its_row() -> None:
    assert set(PROMISED) == set(SCENES)
    assert {point for point in KILLED.values() if point not in ("stop", "by the scene")} <= set(POINTS)


@pytest_asyncio.fixture(scope="module")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    server = await publisher()
    yield server
    await server.stop()


@pytest.fixture(scope="module")
def backlog() -> Iterator[str]:
    with full_backlog() as url:
        yield url


@pytest_asyncio.fixture(scope="module")
async def shops(
    connection: Connection,
    upstream: ScriptedUpstream,
    sockets: SocketUpstream,
    backlog: str,
    odd_mcp: ScriptedMcpServer,
) -> dict[str, dict[str, Shop]]:
    """A shop per row and server, there before any gateway starts: a row's failures must not open another's breaker."""
    world = World(connection, upstream.url)
    odd_mcp.plays.update(PLAYS)
    places = {"sockets": sockets.url, "full backlog": backlog, "tools": odd_mcp.url}

    async def made(told: dict[str, Any]) -> Shop:
        document = {"price": PRICE, **told}
        for field in ("api_url", "mcp_endpoint"):
            if field in document:
                document[field] = places.get(document[field], document[field])
        return await world.publisher(**document)

    return {server: {name: await made(told) for name, told in SHOPS.items()} for server in SERVERS}


@pytest.fixture(scope="module")
def world(connection: Connection, upstream: ScriptedUpstream) -> World:
    return World(connection, upstream.url)


@pytest_asyncio.fixture(scope="module", params=EACH)
async def gateway(
    request: pytest.FixtureRequest, services: Services, database_url: str, shops: object
) -> AsyncIterator[RunningGateway]:
    running = await start_gateway(
        services,
        database_url,
        SERVER=request.param,
        PROXY_BODY_TIMEOUT="4",
        PROXY_CLIENT_TIMEOUT=str(CLIENT_SECONDS),
        SERVER_DRAIN="1",
    )
    yield running
    await running.stop()


async def staged(
    gateway: RunningGateway, world: World, upstream: ScriptedUpstream, shop: Shop, tools: ScriptedMcpServer
) -> Stage:
    tools.go_on.clear()
    return Stage(gateway, upstream, await world.agent(FUNDS), await world.agent(FUNDS), shop, tools)


@pytest.mark.parametrize("name", LIVE)
async def test_a_row(
    name: str,
    gateway: RunningGateway,
    shops: dict[str, dict[str, Shop]],
    world: World,
    upstream: ScriptedUpstream,
    odd_mcp: ScriptedMcpServer,
    connection: Connection,
) -> None:
    stage = await staged(gateway, world, upstream, shops[gateway.environment["TOLLWAY_SERVER"]][name], odd_mcp)
    found = await SCENES[name](stage)
    if found is not None and found.cost == "0" and not PROMISED[name].charged:
        assert await world.balance(stage.agent) == FUNDS, "what costs nothing is given back before it says so"
    check_answer(PROMISED[name], found)
    await check_books(PROMISED[name], stage, world, connection)


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
async def test_a_row_of_a_gateway_that_ends(
    name: str,
    services: Services,
    database_url: str,
    shops: dict[str, dict[str, Shop]],
    world: World,
    upstream: ScriptedUpstream,
    odd_mcp: ScriptedMcpServer,
    connection: Connection,
) -> None:
    fault = {"SERVER_DRAIN": "1"} if KILLED[name] == "stop" else {}
    if KILLED[name] in POINTS:
        fault = {"FAULT": f"{KILLED[name]}:kill"}
    # Our server writes in the call that sends: what was sent before the kill has left.
    doomed = await start_gateway(services, database_url, MONEY_DEAD_AFTER="2", **fault)
    stage = await staged(doomed, world, upstream, shops[DEFAULT][name], odd_mcp)
    found = await SCENES[name](stage)
    await doomed.kill()
    stage.gateway = await start_gateway(services, database_url, MONEY_DEAD_AFTER="2")
    try:
        if name.endswith("with-key"):
            found = await asked_again(stage, "/ok")
        check_answer(PROMISED[name], found)
        await check_books(PROMISED[name], stage, world, connection)
    finally:
        await stage.gateway.stop()


def check_answer(row: Row, found: Seen | None) -> None:
    """Compare what the agent read with what the row says."""
    if row.status is None:
        assert found is None
        return
    assert found is not None
    assert (found.status, found.problem, found.complete) == (row.status, row.problem, not row.breaks_off)
    assert found.cost == row.cost


async def check_books(row: Row, stage: Stage, world: World, connection: Connection) -> None:
    """Compare balance, earnings of this call and receipt with what the row says, as soon as the exchange has ended."""
    exchange = await ended(row, stage, connection)
    assert FUNDS - await world.balance(stage.agent) == (PRICE if row.charged else 0)
    if exchange is None:
        assert row.outcome is None
        return
    claims = await told(stage.gateway.client, stage.agent, exchange)
    assert claims is not None
    assert (claims["delivered"]["outcome"], claims["delivered"]["reason"]) == (row.outcome, row.reason)
    assert claims["price"]["charged_atomic"] == str(PRICE if row.charged else 0)


async def ended(row: Row, stage: Stage, connection: Connection) -> str | None:
    """Wait until the agent's only exchange has its end and return its id; None when no money moved for it."""
    for _ in range(1200):
        found = await connection.fetch(
            "SELECT t.cause_id, s.outcome FROM ledger.transfer t LEFT JOIN ledger.settlement s ON s.exchange_id = t.cause_id"
            " WHERE t.wallet_id = $1 AND t.kind = 'charge' GROUP BY t.cause_id, s.outcome",
            stage.agent.wallet_id,
        )
        assert len(found) <= 1, "charged twice"
        if found and found[0]["outcome"] is not None:
            return str(found[0]["cause_id"])
        if not found and row.outcome is None:
            return None
        await asyncio.sleep(0.05)
    raise AssertionError("the exchange has no end")
