"""WebSockets on the server: handshakes that are none, messages, bounds, closing, and who is told what."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from gateway.server.websocket import CLOSE_SECONDS
from tests.hostile.wire import Wire
from tests.server.conftest import MAX_MESSAGE, Stage

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ASKS = ("Connection: keep-alive, Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13", KEY)


def handshake(*fields: str) -> bytes:
    return "\r\n".join(["GET /socket HTTP/1.1", "Host: a", *(fields or ASKS), "", ""]).encode()


def frame(opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin=fin).serialize(mask=True)


async def read_frame(wire: Wire) -> tuple[int, bytes]:
    async with asyncio.timeout(30):
        first, length = await wire.reader.readexactly(2)
        if length > 125:
            length = int.from_bytes(await wire.reader.readexactly(2 if length == 126 else 8), "big")
        return first & 0x0F, await wire.reader.readexactly(length)


def closing(code: int, reason: str = "") -> bytes:
    return code.to_bytes(2, "big") + reason.encode()


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


class Socket:
    """An application: it echoes, notes what it is told, and waits for leave to take messages."""

    def __init__(self, stage: Stage) -> None:
        self.heard: list[dict[str, Any]] = []
        self.leave = asyncio.Event()
        self.leave.set()
        self.ended = asyncio.Event()
        stage.handlers["/socket"] = self.run

    async def run(self, _scope: Any, receive: Any, send: Any) -> None:
        self.heard.append(await receive())
        await send({"type": "websocket.accept", "headers": [(b"x-cost", b"1")]})
        try:
            while True:
                await self.leave.wait()
                message = await receive()
                self.heard.append(message)
                if message["type"] == "websocket.disconnect":
                    return
                await self.answer(message, send)
        finally:
            self.ended.set()

    async def answer(self, message: dict[str, Any], send: Any) -> None:
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4000, "reason": "asked"})
        else:
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


async def opened(stage: Stage, behind: bytes = b"") -> Wire:
    wire = await stage.open()
    await wire.send(handshake() + behind)
    found = await wire.answer(head=True)
    assert (found.status, found.get("x-cost")) == (101, "1")
    assert found.get("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert found.get("upgrade").lower() == "websocket"
    return wire


@pytest.mark.parametrize(
    "case",
    [
        (426, ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 12", KEY)),
        (426, ("Connection: Upgrade", "Upgrade: websocket", KEY)),
        (400, ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")),
        (400, ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short")),
        (400, ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY, KEY)),
    ],
)
async def test_a_handshake_that_is_none_is_refused(stage: Stage, case: tuple[int, tuple[str, ...]]) -> None:
    status, fields = case
    async with stage.wire() as wire:
        await wire.send(handshake(*fields))
        found = await wire.answer()
        assert (found.status, json.loads(found.body)["status"]) == (status, status)
        assert status != 426 or found.get("sec-websocket-version") == "13"
        assert await wire.ended()
    assert stage.scopes == []


async def test_messages_go_both_ways_and_begin_right_behind_the_handshake(stage: Stage) -> None:
    socket = Socket(stage)
    wire = await opened(stage, frame(Opcode.TEXT, b"first") + frame(Opcode.BINARY, b"\0\xff"))
    assert [await read_frame(wire) for _ in range(2)] == [(Opcode.TEXT, b"first"), (Opcode.BINARY, b"\0\xff")]
    await wire.send(frame(Opcode.TEXT, "grü".encode()[:3], fin=False) + frame(Opcode.PING, b"p"))
    assert await read_frame(wire) == (Opcode.PONG, b"p")
    await wire.send(frame(Opcode.CONT, "grüße".encode()[3:]))
    assert await read_frame(wire) == (Opcode.TEXT, "grüße".encode())
    assert [message["type"] for message in socket.heard] == ["websocket.connect", *["websocket.receive"] * 3]
    (scope,) = stage.scopes
    assert (scope["type"], scope["scheme"], scope["subprotocols"]) == ("websocket", "ws", [])


async def test_the_chosen_subprotocol_is_told(stage: Stage) -> None:
    async def choose(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][1]})

    stage.handlers["/socket"] = choose
    async with stage.wire() as wire:
        await wire.send(handshake(*ASKS, "Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c"))
        assert (await wire.answer(head=True)).get("sec-websocket-protocol") == "b"
        assert await read_frame(wire) == (Opcode.CLOSE, closing(1000))


@pytest.mark.parametrize("how", ["denial", "close", "nothing", "fault"])
async def test_a_connection_may_be_refused_in_http(stage: Stage, how: str) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if how == "denial":
            assert "websocket.http.response" in scope["extensions"]
            headers = [(b"content-length", b"2"), (b"x-a", b"1")]
            await send({"type": "websocket.http.response.start", "status": 402, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": b"no"})
        elif how == "close":
            await send({"type": "websocket.close"})
        elif how == "fault":
            raise LookupError("a cause")

    stage.handlers["/socket"] = refuse
    async with stage.wire() as wire:
        await wire.send(handshake())
        found = await wire.answer()
        assert found.status == {"denial": 402, "close": 403, "nothing": 500, "fault": 500}[how]
        assert how != "denial" or (found.body, found.get("x-a")) == (b"no", "1")
        assert await wire.ended()


async def test_a_client_closes(stage: Stage) -> None:
    socket = Socket(stage)
    wire = await opened(stage)
    await wire.send(frame(Opcode.CLOSE, closing(4321, "mine é")))
    assert await read_frame(wire) == (Opcode.CLOSE, closing(4321, "mine é"))
    assert await wire.ended()
    await socket.ended.wait()
    assert socket.heard[-1] == {"type": "websocket.disconnect", "code": 4321, "reason": "mine é"}


async def test_a_client_vanishes(stage: Stage) -> None:
    socket = Socket(stage)
    wire = await opened(stage)
    wire.close()
    await asyncio.wait_for(socket.ended.wait(), 30)
    assert socket.heard[-1]["code"] == 1006


async def test_an_application_closes_and_hears_what_its_client_answers(stage: Stage) -> None:
    socket = Socket(stage)
    wire = await opened(stage)
    await wire.send(frame(Opcode.TEXT, b"close") + frame(Opcode.TEXT, b"too late"))
    assert await read_frame(wire) == (Opcode.CLOSE, closing(4000, "asked"))
    await wire.send(frame(Opcode.CLOSE, closing(4000)))
    assert await wire.ended()
    await asyncio.wait_for(socket.ended.wait(), 30)
    assert socket.heard[-1]["type"] == "websocket.disconnect"
    assert [message.get("text") for message in socket.heard[1:-1]] == ["close"]


async def test_who_does_not_answer_a_close_is_cut_off(stage: Stage) -> None:
    Socket(stage)
    wire = await opened(stage)
    await wire.send(frame(Opcode.TEXT, b"close"))
    await read_frame(wire)
    assert stage.service is not None
    (connection,) = stage.service.connections
    connection.expire(asyncio.get_running_loop().time() + CLOSE_SECONDS + 1)
    assert await wire.ended()


async def test_a_silent_client_is_pinged(stage: Stage) -> None:
    Socket(stage)
    wire = await opened(stage)
    assert stage.service is not None
    (connection,) = stage.service.connections
    connection.expire(asyncio.get_running_loop().time() + 21)
    assert await read_frame(wire) == (Opcode.PING, b"")


@pytest.mark.parametrize("framed", ["whole", "fragments", "one that never ends"])
async def test_a_message_is_bounded_in_bytes(stage: Stage, framed: str) -> None:
    socket = Socket(stage)
    wire = await opened(stage)
    await wire.send(frame(Opcode.BINARY, b"x" * MAX_MESSAGE))
    assert await read_frame(wire) == (Opcode.BINARY, b"x" * MAX_MESSAGE)
    if framed == "whole":
        await wire.send(frame(Opcode.BINARY, b"x" * (MAX_MESSAGE + 1)))
    elif framed == "fragments":
        await wire.send(frame(Opcode.TEXT, fin=False) + frame(Opcode.CONT, "é".encode() * 1_000, fin=False) * 51)
    else:
        await wire.send(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4) + b"x" * (MAX_MESSAGE + 1))
    assert await read_frame(wire) == (Opcode.CLOSE, closing(1009, "message too large"))
    assert await wire.ended()
    await asyncio.wait_for(socket.ended.wait(), 30)
    assert socket.heard[-1]["code"] == 1009


@pytest.mark.parametrize(
    "broken",
    [
        b"\x81\x01x",
        b"\xf1\x80" + bytes(4),
        frame(Opcode.CONT, b"x"),
        frame(Opcode.TEXT, b"\xff"),
        b"\x83\x80" + bytes(4),
    ],
    ids=["not masked", "reserved bits", "continues nothing", "no UTF-8", "unknown opcode"],
)
async def test_who_breaks_the_protocol_is_closed(stage: Stage, broken: bytes) -> None:
    socket = Socket(stage)
    wire = await opened(stage)
    await wire.send(broken)
    opcode, payload = await read_frame(wire)
    assert (opcode, int.from_bytes(payload[:2], "big") in (1002, 1007)) == (Opcode.CLOSE, True)
    assert await wire.ended()
    await asyncio.wait_for(socket.ended.wait(), 30)


async def test_messages_that_nobody_takes_wait_with_their_sender(stage: Stage) -> None:
    socket = Socket(stage)
    socket.leave.clear()
    wire = await opened(stage)
    one = frame(Opcode.BINARY, b"x" * 50_000)
    wire.writer.write(one * 400)
    for _ in range(30):
        await asyncio.sleep(0.01)
    assert stage.service is not None
    (connection,) = stage.service.connections
    call = connection._upgraded
    assert len(call._inbox) == 1
    assert sum(map(len, call._came)) < 600_000
    socket.leave.set()
    for _ in range(400):
        assert (await read_frame(wire))[1] == b"x" * 50_000


async def test_pings_of_who_takes_no_pongs_wait_with_their_sender(stage: Stage) -> None:
    Socket(stage)
    wire = await opened(stage)
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    pings = frame(Opcode.PING, b"p" * 125) * 500
    for _ in range(400):
        wire.writer.write(pings)
    await until(lambda: stage.service and all(one.full for one in stage.service.connections))
    for _ in range(30):
        await asyncio.sleep(0.01)
    assert stage.service is not None
    (connection,) = stage.service.connections
    assert connection.transport.get_write_buffer_size() < 1 << 20


async def test_an_application_that_fails_is_a_1011(stage: Stage) -> None:
    async def fail(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raise LookupError("a cause")

    stage.handlers["/socket"] = fail
    async with stage.wire() as wire:
        await wire.send(handshake())
        assert (await wire.answer(head=True)).status == 101
        assert await read_frame(wire) == (Opcode.CLOSE, closing(1011))
