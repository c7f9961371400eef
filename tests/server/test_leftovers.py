"""Clients that leave in the middle of everything leave nothing behind, and nothing that only the collector would find."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

from gateway.server.asgi import HttpCall
from gateway.server.connection import Connection
from gateway.server.request import Request
from gateway.server.websocket import SocketCall
from tests.server.conftest import GET, Stage, answer, whole
from tests.server.test_websockets import handshake

CLIENTS = 320
POST = b"POST /slow HTTP/1.1\r\nHost: a\r\n"


async def stream(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(10):
        await send({"type": "http.response.body", "body": b"x" * 20_000, "more_body": True})
        await asyncio.sleep(0.001)
    await send({"type": "http.response.body"})


async def slow(_scope: Any, receive: Any, send: Any) -> None:
    await whole(receive)
    await asyncio.sleep(0.02)
    await answer(send, b"ok")


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


async def client(stage: Stage, number: int, chance: random.Random) -> None:
    """Do something, and leave politely or not."""
    wire = await stage.open()
    sent, most = [
        (GET * 5, 500),
        (b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n", 50_000),
        (POST + b"Content-Length: 100000\r\n\r\n" + b"x" * chance.randrange(100_000), 0),
        (GET[: chance.randrange(len(GET))], 0),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + chance.choice([b"0\r\n\r\n", b"x", b""]) + GET,
            0,
        ),
        (b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" * 3, 0),
        (handshake() + chance.choice([b"", b"\x82\x80" + bytes(4), b"\0" * 9]), 10),
        (b"\0\1\2" + GET, 100),
    ][number % 8]
    wire.writer.write(sent)
    if most:
        await wire.reader.read(chance.randrange(1, most))
    else:
        await asyncio.sleep(chance.random() * 0.03)
    if chance.random() < 0.5:
        wire.writer.transport.abort()
    else:
        wire.close()


async def test_nothing_is_left_of_who_has_left(stage: Stage) -> None:
    stage.handlers.update({"/stream": stream, "/slow": slow, "/socket": echo})
    chance, problems = random.Random(7), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
    gc.collect()
    gc.disable()
    try:
        for batch in range(0, CLIENTS, 80):
            await asyncio.gather(*(client(stage, number, chance) for number in range(batch, batch + 80)))
        assert stage.service is not None
        assert stage.asgi is not None
        async with asyncio.timeout(30):
            while stage.service.connections or stage.asgi.tasks:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        kinds = (Connection, Request, HttpCall, SocketCall)
        assert [thing for thing in gc.get_objects() if isinstance(thing, kinds)] == []
    finally:
        gc.enable()
        asyncio.get_running_loop().set_exception_handler(None)
    assert problems == []
