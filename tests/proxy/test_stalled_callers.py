"""A caller who takes nothing of his answer: he has paid, and his connection is reset, on every server."""

from __future__ import annotations

import asyncio
import socket

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.gateway import RunningGateway
from tests.support.http2 import Http2Client
from tests.support.sockets import SocketUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

NAMES_SERVERS = ("hypercorn",)
PRICE = 10_000
FUNDS = 10_000_000


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"PROXY_CLIENT_TIMEOUT": "1"}


@pytest_asyncio.fixture(scope="module")
async def shop(world: World, gateways: object) -> Shop:
    return await world.publisher(PRICE)


def silent(gateway: RunningGateway, data: bytes) -> socket.socket:
    """Send requests on a connection with little room for answers, and read none."""
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    opened.connect(("127.0.0.1", gateway.port))
    opened.sendall(data)
    return opened


def request(shop: Shop, agent: Agent, path: str) -> bytes:
    head = f"GET /publishers/{shop.slug}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.key}\r\n\r\n"
    return head.encode()


async def ended(connection: Connection, agent: Agent, reason: str) -> None:
    """Wait until nothing is open and one of the agent's exchanges has ended so."""
    query = (
        "SELECT count(*) FROM ledger.settlement s JOIN ledger.transfer t ON t.cause_id = s.exchange_id"
        " WHERE t.kind = 'charge' AND t.leg = 0 AND t.wallet_id = $1 AND s.outcome = 'settled' AND s.reason = $2"
    )
    async with asyncio.timeout(20):
        while not await connection.fetchval(query, agent.wallet_id, reason):
            await asyncio.sleep(0.1)
        while (await proof.verify(connection)).open_exchanges:
            await asyncio.sleep(0.1)


def is_reset(caller: socket.socket) -> bool:
    """Read what had arrived; return whether the connection was reset behind it, rather than ended or kept."""
    caller.settimeout(10)
    try:
        while caller.recv(65_536):
            pass
    except ConnectionResetError:
        return True
    finally:
        caller.close()
    return False


async def test_in_the_middle_of_a_stream(
    wired: RunningGateway, world: World, shop: Shop, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)
    caller = silent(wired, request(shop, agent, "/x?n=50000000"))
    await ended(connection, agent, "client_stalled")
    assert await asyncio.to_thread(is_reset, caller)
    assert FUNDS - await world.balance(agent) == PRICE
    assert "Traceback" not in wired.output(), "a caller who leaves writes no traceback into the log"


async def test_with_answers_that_are_there_whole(
    wired: RunningGateway, world: World, shop: Shop, connection: Connection
) -> None:
    """Small answers fit into what a server buffers; a hundred of them, asked for in one breath, do not."""
    agent = await world.agent(FUNDS)
    caller = silent(wired, request(shop, agent, "/x?n=60000") * 100)
    await ended(connection, agent, "client_stalled")
    assert await asyncio.to_thread(is_reset, caller)


async def test_with_a_stream_behind_answers_that_are_there_whole(
    wired: RunningGateway, world: World, shop: Shop, connection: Connection
) -> None:
    """What the answer before left in the connection keeps even the head of a stream out."""
    agent = await world.agent(FUNDS)
    pair = request(shop, agent, "/x?n=60000") + request(shop, agent, "/chunks?n=2&pause=10")
    caller = silent(wired, pair * 100)
    await ended(connection, agent, "client_stalled")
    assert await asyncio.to_thread(is_reset, caller)


async def test_over_http2_only_the_stream_is_reset(
    gateways: dict[str, RunningGateway], world: World, shop: Shop, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)

    def fields(path: str) -> list[tuple[str, str]]:
        return [
            (":method", "GET"), (":path", f"/publishers/{shop.slug}{path}"), (":scheme", "http"),
            (":authority", "gateway.test"), ("authorization", f"Bearer {agent.key}"),
        ]  # fmt: skip

    async with Http2Client(gateways["hypercorn"].port) as client:
        whole = client.send(fields("/x?n=110000"), reads=False)  # more than a window, little enough to be there at once
        await whole.until(lambda it: it.reset, 20)
        assert (await client.call(fields("/x"))).status == 200
    await ended(connection, agent, "client_stalled")


async def test_of_a_websocket(
    wired: RunningGateway, world: World, sockets: SocketUpstream, connection: Connection
) -> None:
    agent = await world.agent(FUNDS)
    talks = await world.publisher(PRICE, api_url=sockets.url, websocket_enabled=True)
    handshake = (
        f"GET /publishers/{talks.slug}/flood HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.key}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    caller = silent(wired, handshake.encode())
    await ended(connection, agent, "client_stalled")
    assert await asyncio.to_thread(is_reset, caller)
