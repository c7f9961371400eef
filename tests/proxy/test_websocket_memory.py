"""What a caller can make a gateway hold by WebSocket: messages that never end, many small ones, pings without readers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.frames import Frame, Opcode

from tests.support.gateway import RunningGateway, start_gateway
from tests.support.servers import EACH
from tests.support.services import Services
from tests.support.sockets import SocketUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

PRICE = 10_000
FUNDS = 10_000_000
MIB = 1 << 20
MAX_MESSAGE = MIB // 4


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"WEBSOCKET_MAX_MESSAGE": str(MAX_MESSAGE), "WEBSOCKET_CLOSE_TIMEOUT": "1", "PROXY_IDLE_TIMEOUT": "60"}


@pytest_asyncio.fixture(scope="module")
async def shop(world: World, sockets: SocketUpstream, gateways: dict[str, RunningGateway]) -> Shop:
    return await world.publisher(PRICE, api_url=sockets.url, websocket_enabled=True)


@dataclass
class Line:
    """An open connection as bytes. Nothing is read from it unless asked for."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def push(self, data: bytes, at_most: int) -> int:
        """Send the same bytes again and again; return how many went before the gateway closed, or took no more."""
        sent = 0
        with contextlib.suppress(OSError, TimeoutError):
            while sent < at_most and not self.writer.is_closing():
                self.writer.write(data)
                async with asyncio.timeout(5):
                    await self.writer.drain()
                sent += len(data)
        return sent

    async def message(self) -> bytes:
        """Return the next message, which the gateway sends as one frame; leave out pings."""
        async with asyncio.timeout(60):
            while True:
                opcode, payload = await self._frame()
                if opcode not in (Opcode.PING, Opcode.PONG):
                    return payload

    async def close_code(self) -> int | None:
        """Read to the end; return the code of the Close frame, None when the connection was reset before."""
        async with asyncio.timeout(60):
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    opcode, payload = await self._frame()
                    if opcode == Opcode.CLOSE:
                        return int.from_bytes(payload[:2], "big")
        return None

    async def _frame(self) -> tuple[int, bytes]:
        first, length = await self.reader.readexactly(2)
        if length > 125:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
        return first & 0x0F, await self.reader.readexactly(length)


@contextlib.asynccontextmanager
async def line(gateway: RunningGateway, shop: Shop, agent: Agent, path: str = "/echo") -> AsyncGenerator[Line]:
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    end.setblocking(False)
    await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", gateway.port))
    reader, writer = await asyncio.open_connection(sock=end)
    head = (
        f"GET /publishers/{shop.slug}{path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Authorization: {agent.headers['Authorization']}\r\n\r\n"
    )
    writer.write(head.encode())
    try:
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


def frame(opcode: Opcode, payload: bytes, *, fin: bool = False) -> bytes:
    return Frame(opcode, payload, fin=fin).serialize(mask=True)


def memory(gateway: RunningGateway) -> int:
    """Return the resident bytes of a gateway's processes."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    family = {gateway.process.pid}
    while new := {child for child, parent in parents.items() if parent in family} - family:
        family |= new
    pages = 0
    for pid in family:
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Growth:
    """How many bytes a gateway has grown at most since this began."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway, self._before, self.most = gateway, memory(gateway), 0

    async def __aenter__(self) -> Growth:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._task.cancel()
        self._note()

    def _note(self) -> None:
        self.most = max(self.most, memory(self._gateway) - self._before)

    async def _look(self) -> None:
        while True:
            self._note()
            await asyncio.sleep(0.02)


async def test_messages_that_never_end_are_cut_off_before_they_fill_the_memory(
    wired: RunningGateway, world: World, shop: Shop
) -> None:
    agent = await world.agent(FUNDS)
    begun, more = frame(Opcode.BINARY, b""), frame(Opcode.CONT, b"x" * MIB)
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line(wired, shop, agent)) for _ in range(24)]
        growth = await stack.enter_async_context(Growth(wired))
        for each in lines:
            each.writer.write(begun)
        sent = await asyncio.gather(*(each.push(more, 40 * MIB) for each in lines))
    assert max(sent) < 40 * MIB, "every one was closed"
    assert growth.most < 480 * MIB, "and not by 960"


async def test_one_large_frame_that_never_ends_is_cut_off(wired: RunningGateway, world: World, shop: Shop) -> None:
    agent = await world.agent(FUNDS)
    async with line(wired, shop, agent) as attacker:
        attacker.writer.write(b"\x82\xff" + (15 * MIB).to_bytes(8, "big") + b"\0\0\0\0")
        assert await attacker.push(b"x" * 65_536, 4 * MIB) < 4 * MIB or await attacker.close_code() in (1009, None)
    async with line(wired, shop, agent) as honest:
        honest.writer.write(frame(Opcode.TEXT, b"hello", fin=True))
        assert await honest.message() == b"hello"


async def test_unfinished_text_is_counted_in_bytes(wired: RunningGateway, world: World, shop: Shop) -> None:
    agent = await world.agent(FUNDS)
    async with line(wired, shop, agent) as attacker:
        attacker.writer.write(frame(Opcode.TEXT, b""))
        piece = frame(Opcode.CONT, "🜁".encode() * 4096)
        # Less than the bound in characters, more than anybody may leave unfinished in bytes.
        for _ in range(56):
            attacker.writer.write(piece)
        assert await attacker.close_code() in (1009, None)


async def test_an_unfinished_message_may_be_fragmented_and_slow(
    wired: RunningGateway, world: World, shop: Shop
) -> None:
    agent = await world.agent(FUNDS)
    content = b"abcdefgh" * (MAX_MESSAGE // 8)
    async with line(wired, shop, agent) as honest:
        for _ in range(6):  # more than anybody may leave unfinished, if it were added up
            honest.writer.write(frame(Opcode.TEXT, b""))
            for at in range(0, len(content), 16):
                honest.writer.write(frame(Opcode.CONT, content[at : at + 16]))
                if at == len(content) // 2:
                    await honest.writer.drain()
                    await asyncio.sleep(0.3)  # a look of the gateway in the middle of the message
            honest.writer.write(frame(Opcode.CONT, b"", fin=True))
            await honest.writer.drain()
            assert await honest.message() == content


async def test_many_small_messages_wait_as_bytes(wired: RunningGateway, world: World, shop: Shop) -> None:
    agent = await world.agent(FUNDS)
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line(wired, shop, agent)) for _ in range(12)]
        growth = await stack.enter_async_context(Growth(wired))
        flood = frame(Opcode.BINARY, b"", fin=True) * 40_000
        await asyncio.gather(*(each.push(flood, len(flood)) for each in lines))
        await asyncio.sleep(1)
    assert growth.most < 60 * MIB


async def test_pings_of_a_caller_that_reads_no_pongs_stop(wired: RunningGateway, world: World, shop: Shop) -> None:
    agent = await world.agent(FUNDS)
    async with line(wired, shop, agent) as attacker:
        attacker.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = await attacker.push(frame(Opcode.PING, b"p" * 125, fin=True) * 400, 32 * MIB)
    assert sent < 24 * MIB


@pytest.mark.parametrize("server", EACH)
async def test_few_whole_messages_wait_for_an_upstream_that_reads_none(
    services: Services, database_url: str, world: World, shop: Shop, server: str
) -> None:
    running = await start_gateway(services, database_url, SERVER=server, WEBSOCKET_MAX_MESSAGE=str(8 * MIB))
    try:
        await running.hears(shop.slug)
        agent = await world.agent(FUNDS)
        async with line(running, shop, agent, "/deaf") as sender:
            sent = await sender.push(frame(Opcode.BINARY, b"x" * (8 * MIB - 1), fin=True), 160 * MIB)
            assert sent <= 64 * MIB
    finally:
        await running.stop()
