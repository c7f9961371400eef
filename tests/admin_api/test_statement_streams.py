"""Long statements over real sockets, on each server: who stops reading or leaves gives back what his statement held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio

from admin_api.resources.statements import MOST_AT_ONCE
from gateway.database.pool import Connection
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.servers import EACH
from tests.support.services import Services
from tests.support.world import Agent, World

pytestmark = pytest.mark.slow
LINES = 60_000  # more bytes than the sockets between the two take in
KILL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
"""
HELD = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND state LIKE 'idle in transaction%' AND xact_start < now() - interval '100 ms'
"""


@pytest_asyncio.fixture(params=EACH)
async def gateway(
    request: pytest.FixtureRequest, services: Services, database_url: str
) -> AsyncIterator[RunningGateway]:
    """A gateway that waits for nobody."""
    running = await start_gateway(services, database_url, SERVER=request.param, PROXY_CLIENT_TIMEOUT="1")
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def customer(world: World, connection: Connection) -> Agent:
    """Somebody with a long history."""
    agent, shop = await world.agent(LINES), await world.publisher()
    await connection.execute(
        "INSERT INTO ledger.transfer (cause_id, kind, leg, wallet_id, debit_account, credit_account, amount)"
        " SELECT gen_random_uuid(), 'expire', 0, $1, min(a.id), $2, 1"
        "   FROM ledger.account a, generate_series(1, $3) n WHERE a.wallet_id = $1 AND a.granted IS NOT NULL GROUP BY n",
        agent.wallet_id, shop.account_id, LINES,
    )  # fmt: skip
    return agent


@asynccontextmanager
async def begun(gateway: RunningGateway, agent: Agent) -> AsyncIterator[int]:
    """Ask for a statement, read its head and nothing more; gives its status."""
    today = datetime.now(UTC).date()
    head = f"GET /wallet/statement?from={today}&to={today} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.key}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
    writer.write(head.encode())
    try:
        yield int((await reader.readline()).split()[1])
    finally:
        writer.transport.abort()


async def free(gateway: RunningGateway, agent: Agent) -> None:
    """Wait until a statement is given again, all of it, and nothing is held any more."""
    async with asyncio.timeout(60):
        while (answer := await gateway.client.get("/wallet/statement", headers=agent.headers)).status_code == 503:
            await asyncio.sleep(0.05)
    assert answer.status_code == 200
    assert answer.text.count("\n") == LINES + 3


async def none_held(connection: Connection) -> None:
    async with asyncio.timeout(60):
        while await connection.fetchval(HELD):
            await asyncio.sleep(0.05)


async def test_who_stops_reading_is_cut_off(gateway: RunningGateway, customer: Agent, connection: Connection) -> None:
    async with AsyncExitStack() as stack:
        statuses = [await stack.enter_async_context(begun(gateway, customer)) for _ in range(MOST_AT_ONCE)]
        assert statuses == [200] * MOST_AT_ONCE
        await free(gateway, customer)  # though none of them has left
        await none_held(connection)


async def test_who_leaves_in_the_middle_frees_his_place(
    gateway: RunningGateway, customer: Agent, connection: Connection
) -> None:
    for _ in range(3):
        async with AsyncExitStack() as stack:
            for _ in range(MOST_AT_ONCE):
                assert await stack.enter_async_context(begun(gateway, customer)) in (200, 503)
    await free(gateway, customer)
    await none_held(connection)


async def test_a_statement_that_its_database_cut_off_has_no_end(
    gateway: RunningGateway, customer: Agent, connection: Connection
) -> None:
    pieces: list[bytes] = []

    async def read() -> None:
        async with gateway.client.stream("GET", "/wallet/statement", headers=customer.headers) as answer:
            async for piece in answer.aiter_raw():
                if not pieces:
                    await connection.execute(KILL)
                pieces.append(piece)

    with pytest.raises(httpx.TransportError):
        await read()
    assert b'"closing"' not in b"".join(pieces)
    await free(gateway, customer)
