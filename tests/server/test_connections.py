"""The life of a connection: pipelining, backpressure both ways, time, and every way in which it ends."""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import struct
import termios
from typing import Any

import pytest

from gateway.server.connection import BODY_AHEAD, LINGER_SECONDS, Service
from tests.hostile.wire import Answer, Wire, request
from tests.server.conftest import GET, HEAD, Stage, answer, whole

MIB = 1 << 20


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.0005)


# --- One after the other ---


async def test_pipelined_requests_are_answered_in_turn_and_begin_in_turn(stage: Stage) -> None:
    order: list[str] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        number = scope["query_string"].decode()
        order.append(f"begin {number}")
        body = await whole(receive)
        await asyncio.sleep(0.01)
        order.append(f"end {number}")
        await answer(send, number.encode() + (body or b""))

    stage.handlers["/slow"] = slow
    async with stage.wire() as wire:
        raw = [request("POST", f"/slow?{number}", body=b"x" * number) for number in range(20)]
        await wire.send(b"".join(raw))
        bodies = [(await wire.answer()).body for _ in raw]
    assert bodies == [str(number).encode() + b"x" * number for number in range(20)]
    assert order == [f"{what} {number}" for number in range(20) for what in ("begin", "end")]


async def test_who_pipelines_without_end_is_not_read_without_end(stage: Stage) -> None:
    release = asyncio.Event()

    async def wait(_scope: Any, _receive: Any, send: Any) -> None:
        await release.wait()
        await answer(send, b"")

    stage.handlers["/"] = wait
    async with stage.wire() as wire:
        wire.writer.write(GET * (16 * MIB // len(GET)))
        await until(lambda: stage.scopes)
        (connection,) = stage.service.connections if stage.service else ()
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert len(connection._ahead) < HEAD + 300_000  # a head, and what one read brings
        release.set()
        assert [(await wire.answer()).status for _ in range(100)] == [200] * 100


async def test_requests_may_come_in_any_pieces(stage: Stage) -> None:
    post = b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nbod\r\n1\r\ny\r\n0\r\nX: a\r\n\r\n"
    raw = GET + post + request("POST", "/", body=b"sized") + GET
    async with stage.wire() as wire:
        for at in range(len(raw) + 1):
            await wire.send(raw[:at])
            await until(lambda at=at: not at or not (stage.service and _unread(stage.service)))
            await wire.send(raw[at:])
            assert [(await wire.answer()).body for _ in range(4)] == [b"", b"body", b"sized", b""], at


def _unread(service: Service) -> int:
    """Return how many bytes wait in the kernel for a server's only connection."""
    (connection,) = service.connections
    number: int = connection.transport.get_extra_info("socket").fileno()
    waiting: int = struct.unpack("=i", fcntl.ioctl(number, termios.FIONREAD, bytes(4)))[0]
    return waiting


async def test_a_thousand_answers_that_are_there_at_once_need_no_stack(stage: Stage) -> None:
    async with stage.wire() as wire:
        await wire.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" * 3_000)
        assert {(await wire.answer()).status for _ in range(3_000)} == {204}


# --- Backpressure ---


async def test_an_upload_that_nobody_takes_waits_with_its_sender(stage: Stage) -> None:
    take = asyncio.Event()

    async def lazy(_scope: Any, receive: Any, send: Any) -> None:
        await take.wait()
        await answer(send, str(len(await whole(receive) or b"")).encode())

    stage.handlers["/lazy"] = lazy
    async with stage.wire() as wire:
        wire.writer.write(request("POST", "/lazy", body=b"x" * (32 * MIB)))
        await until(lambda: stage.scopes)
        (connection,) = stage.service.connections if stage.service else ()
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert connection.request is not None
        assert 0 < connection.request.held < BODY_AHEAD + 300_000
        take.set()
        assert (await wire.answer()).body == str(32 * MIB).encode()


async def test_an_upload_that_is_here_whole_and_nobody_took_holds_nothing_up(stage: Stage) -> None:
    ready = asyncio.Event()

    async def ignore(_scope: Any, _receive: Any, send: Any) -> None:
        await ready.wait()
        await answer(send, b"")

    stage.handlers["/ignore"] = ignore
    async with stage.wire() as wire:
        await wire.send(request("POST", "/ignore", f"Content-Length: {BODY_AHEAD + 1}"))
        await until(lambda: stage.scopes)
        await wire.send(b"x" * (BODY_AHEAD + 1))
        await until(
            lambda: stage.service and all(one.request and one.request.body_ended for one in stage.service.connections)
        )
        ready.set()
        assert (await wire.answer()).get("connection") == ""
        await wire.send(GET)
        assert (await wire.answer()).status == 200


async def test_an_answer_that_nobody_takes_stops_its_application(stage: Stage) -> None:
    sent = [0]

    async def flood(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while sent[0] < 256:
            await send({"type": "http.response.body", "body": b"x" * MIB, "more_body": True})
            sent[0] += 1
        await send({"type": "http.response.body"})

    stage.handlers["/flood"] = flood
    async with stage.wire() as wire:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.send(request("GET", "/flood"))
        await until(lambda: stage.service and any(one.full for one in stage.service.connections))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert sent[0] < 64
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await wire.answer()).body) == 256 * MIB


# --- Expect ---


async def test_the_body_is_asked_for_when_it_is_wanted(stage: Stage) -> None:
    async with stage.wire() as wire:
        await wire.send(request("POST", "/", "Expect: 100-continue", "Content-Length: 5"))
        assert await wire.interim() == 100
        await wire.send(b"hello" + GET)
        assert [(await wire.answer()).body for _ in range(2)] == [b"hello", b""]
        await wire.send(request("POST", "/", "Expect: 100-continue", "Content-Length: 5") + b"hello")
        assert (await wire.answer()).body == b"hello", "it has come unasked"


async def test_an_answer_without_the_body_ends_the_connection_of_who_waits_for_100(stage: Stage) -> None:
    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await answer(send, b"no", 403)

    stage.handlers["/refuse"] = refuse
    async with stage.wire() as wire:
        await wire.send(request("POST", "/refuse", "Expect: 100-continue", "Content-Length: 50"))
        found = Answer(0, [], b"") if await wire.interim() == 100 else None
        assert found is None
        assert await wire.until(b"no")
        assert await wire.ended()


async def test_http_1_0_is_never_told_to_continue(stage: Stage) -> None:
    async with stage.wire() as wire:
        await wire.send(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        await wire.send(b"hello")
        assert await wire.interim() == 200


# --- Ends ---


async def test_a_refused_upload_reads_its_answer_although_it_goes_on(stage: Stage) -> None:
    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await answer(send, b"no", 403)

    stage.handlers["/refuse"] = refuse
    for _ in range(5):
        async with stage.wire() as wire:
            await wire.send(request("POST", "/refuse", body=b"x" * (2 * MIB)) + GET)
            found = await wire.answer()
            assert (found.status, found.body) == (403, b"no")
            assert await wire.ended()
    assert [scope["path"] for scope in stage.scopes] == ["/refuse"] * 5


@pytest.mark.parametrize("how", ["reset", "close", "half"])
async def test_an_application_hears_at_once_that_its_client_is_gone(stage: Stage, how: str) -> None:
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait(_scope: Any, receive: Any, send: Any) -> None:
        await whole(receive)
        message = await receive()
        await answer(send, b"")  # nobody reads it; what that means is the application's business
        heard.set_result(message["type"])

    stage.handlers["/wait"] = wait
    async with stage.wire() as wire:
        await wire.send(request("POST", "/wait", body=b"x"))
        await until(lambda: stage.scopes)
        if how == "reset":
            wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1" + bytes(7))
            wire.writer.transport.abort()
        elif how == "close":
            wire.close()
        else:
            wire.writer.write_eof()
        assert await asyncio.wait_for(heard, 30) == "http.disconnect"


async def test_an_upload_that_breaks_off_never_ends_well(stage: Stage) -> None:
    ended: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    async def read(_scope: Any, receive: Any, _send: Any) -> None:
        ended.set_result(await whole(receive))

    stage.handlers["/read"] = read
    async with stage.wire() as wire:
        await wire.send(request("POST", "/read", "Content-Length: 50") + b"half")
        await until(lambda: stage.scopes)
        wire.close()
        assert await asyncio.wait_for(ended, 30) is None


async def test_a_body_that_goes_wrong_on_its_way_is_refused(stage: Stage) -> None:
    ended: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    async def read(_scope: Any, receive: Any, _send: Any) -> None:
        ended.set_result(await whole(receive))

    stage.handlers["/read"] = read
    async with stage.wire() as wire:
        await wire.send(request("POST", "/read", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
        await until(lambda: stage.scopes)
        await wire.send(b"+5\r\nhello\r\n0\r\n\r\n" + GET)
        assert (await wire.answer()).status == 400
        assert await wire.ended()
        assert await asyncio.wait_for(ended, 30) is None
    assert len(stage.scopes) == 1


async def test_an_answer_goes_on_to_who_asked_in_the_connection_that_ends(stage: Stage) -> None:
    async with stage.wire() as wire:
        await wire.send(request("GET", "/", "Connection: close") + GET + b"\0")
        assert (await wire.answer()).get("connection") == "close"
        assert await wire.ended()
    assert len(stage.scopes) == 1


# --- Time ---


def pass_time(stage: Stage, seconds: float) -> None:
    """Let the server believe that so much time has passed."""
    assert stage.service is not None
    clock = stage.service.clock
    stage.service.clock = lambda: clock() + seconds
    stage.service.expire()


async def connected(stage: Stage, sent: bytes) -> Wire:
    wire = await stage.open()
    await wire.send(sent)
    await until(lambda: stage.service and stage.service.connections)
    return wire


async def test_an_idle_connection_ends_without_a_word(stage: Stage) -> None:
    fresh, used = await connected(stage, b""), await connected(stage, GET)
    await used.answer()
    pass_time(stage, 9)
    await used.send(GET)
    assert (await used.answer()).status == 200, "it was in time"
    pass_time(stage, 2)
    assert await fresh.ended()
    await used.send(GET)
    assert (await used.answer()).status == 200, "its time began anew"
    pass_time(stage, 11)
    assert await used.ended()


async def test_half_a_head_is_told_that_it_was_slow(stage: Stage) -> None:
    wire = await connected(stage, GET + GET[:-5])
    await wire.answer()
    await until(lambda: stage.service and all(one._ahead for one in stage.service.connections))
    pass_time(stage, 11)
    found = await wire.answer()
    assert (found.status, json.loads(found.body)["type"]) == (408, "/problems/request-timeout")
    assert await wire.ended()


async def test_no_clock_runs_while_an_answer_is_made(stage: Stage) -> None:
    release = asyncio.Event()

    async def wait(_scope: Any, _receive: Any, send: Any) -> None:
        await release.wait()
        await answer(send, b"")

    stage.handlers["/wait"] = wait
    wire = await connected(stage, request("GET", "/wait"))
    await until(lambda: stage.scopes)
    pass_time(stage, 1_000)
    release.set()
    assert (await wire.answer()).status == 200
    wire.close()


async def test_who_does_not_leave_is_left(stage: Stage) -> None:
    """Behind an answer that ends the connection, its client is read for a while only, or so much."""
    wire = await connected(stage, GET[:-2] + b"Bad Name: x\r\n\r\n")
    assert (await wire.answer()).status == 400
    assert stage.service is not None
    assert len(stage.service.connections) == 1, "it is read on"
    pass_time(stage, LINGER_SECONDS + 1)
    await until(lambda: stage.service and not stage.service.connections)
    wire.close()
    greedy = await stage.open()
    await greedy.send(b"Bad Name\r\n" + b"x" * (12 * MIB))
    await until(lambda: stage.service and not stage.service.connections)


async def test_at_the_end_answers_end_their_connections_and_idle_ones_end(stage: Stage) -> None:
    release = asyncio.Event()

    async def wait(_scope: Any, _receive: Any, send: Any) -> None:
        await release.wait()
        await answer(send, b"")

    stage.handlers["/wait"] = wait
    assert stage.service is not None
    idle, half, used = await stage.open(), await stage.open(), await stage.open()
    await half.send(GET[:10])
    await used.send(request("GET", "/wait") + GET)
    await until(lambda: stage.scopes and stage.service and len(stage.service.connections) == 3)
    stage.service.draining = True
    stage.service.end_idle()
    assert await idle.ended()
    assert await half.ended()
    release.set()
    found = await used.answer()
    assert (found.status, found.get("connection")) == (200, "close")
    assert await used.ended()
    assert len(stage.scopes) == 1
