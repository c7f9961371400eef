"""How an answer is framed, by what its application sends, and that a broken one is seen to be broken."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.hostile.wire import Answer, request
from tests.server.conftest import GET, Stage, whole

MIB = 1 << 20


async def told(stage: Stage, method: str, *messages: dict[str, Any], version: str = "1.1", fields: str = "") -> Answer:
    """Have an application say something, and read the answer to the end of its connection."""

    async def say(_scope: Any, receive: Any, send: Any) -> None:
        await whole(receive)
        for message in messages:
            await send(message)

    stage.handlers["/told"] = say
    async with stage.wire() as wire:
        await wire.send(f"{method} /told HTTP/{version}\r\nHost: a\r\n{fields}\r\n".encode())
        found = await wire.answer(head=method == "HEAD")
        if found.get("connection") != "close":
            await wire.send(GET)
            assert (await wire.answer()).status == 200, "the next one is in step"
        else:
            assert await wire.ended()
        return found


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def test_a_whole_answer_has_its_length_and_a_stream_is_chunked(stage: Stage) -> None:
    whole_one = await told(stage, "GET", start(), part(b"hello"))
    assert (whole_one.body, whole_one.all("content-length"), whole_one.all("transfer-encoding")) == (
        b"hello",
        ["5"],
        [],
    )
    stream = await told(stage, "GET", start(), part(b"hel", True), part(b"", True), part(b"lo", True), part(b""))
    assert (stream.body, stream.all("content-length"), stream.all("transfer-encoding")) == (b"hello", [], ["chunked"])
    large = await told(stage, "GET", start(), part(b"x" * MIB, True), part(b"y"))
    assert large.body == b"x" * MIB + b"y"
    assert {name for name, _ in whole_one.headers} == {"content-length"}, "nothing of the server's own"


@pytest.mark.parametrize("fields", ["", "Connection: keep-alive\r\n"])
async def test_a_stream_to_http_1_0_ends_with_its_connection(stage: Stage, fields: str) -> None:
    stream = await told(stage, "GET", start(), part(b"hel", True), part(b"lo"), version="1.0", fields=fields)
    assert (stream.body, stream.all("transfer-encoding"), stream.get("connection")) == (b"hello", [], "close")
    known = await told(
        stage, "GET", start(200, (b"content-length", b"5")), part(b"hello"), version="1.0", fields=fields
    )
    assert (known.body, known.get("connection")) == (b"hello", "keep-alive" if fields else "close")


@pytest.mark.parametrize("status", [204, 304])
async def test_some_answers_have_no_body_whatever_is_sent(stage: Stage, status: int) -> None:
    found = await told(stage, "GET", start(status, (b"content-length", b"5")), part(b"hello"))
    assert (found.status, found.all("transfer-encoding")) == (status, [])
    assert found.all("content-length") == ([] if status == 204 else ["5"])
    assert (await told(stage, "GET", start(status), part(b""))).all("content-length") == []


async def test_head_has_the_fields_of_get_and_no_body(stage: Stage) -> None:
    known = await told(stage, "HEAD", start(200, (b"content-length", b"5")), part(b"hello"))
    assert known.all("content-length") == ["5"]
    assert (await told(stage, "HEAD", start(), part(b"hel", True), part(b"lo"))).all("content-length") == []
    assert (await told(stage, "HEAD", start(), part(b""))).all("content-length") == []


async def test_names_in_capitals_frame_as_well(stage: Stage) -> None:
    found = await told(
        stage, "GET", start(200, (b"Content-Length", b"5"), (b"Transfer-Encoding", b"x")), part(b"hello")
    )
    assert (found.all("content-length"), found.all("transfer-encoding"), found.body) == (["5"], [], b"hello")


async def test_an_application_may_end_the_connection(stage: Stage) -> None:
    found = await told(stage, "GET", start(200, (b"connection", b"close"), (b"transfer-encoding", b"gzip")), part(b"a"))
    assert (found.all("connection"), found.all("transfer-encoding"), found.body) == (["close"], [], b"a")


@pytest.mark.parametrize(
    "messages",
    [
        (start(200, (b"content-length", b"9")), part(b"hello")),
        (start(200, (b"content-length", b"9")), part(b"hel", True), part(b"lo")),
        (start(200, (b"content-length", b"3")), part(b"he", True), part(b"llo")),
        (start(), part(b"hello", True)),
        (start(),),
    ],
    ids=["short", "short in parts", "long", "without an end", "head alone"],
)
async def test_an_answer_that_is_not_whole_is_seen_to_be_so(stage: Stage, messages: tuple[dict[str, Any], ...]) -> None:
    async def say(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    stage.handlers["/told"] = say
    async with stage.wire() as wire:
        await wire.send(request("GET", "/told") + GET)
        try:
            found = await wire.answer()
        except EOFError:
            return
        assert not found.complete


async def test_an_endless_answer_to_http_1_0_that_breaks_off_is_reset(stage: Stage) -> None:
    async def say(_scope: Any, _receive: Any, send: Any) -> None:
        await send(start())
        await send(part(b"hello", True))
        await asyncio.sleep(0.05)

    stage.handlers["/told"] = say
    async with stage.wire() as wire:
        await wire.send(b"GET /told HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):  # noqa: PT012
            while await wire.reader.read(65_536):
                pass


@pytest.mark.parametrize("field", [(b"x", b"a\r\nSet-Cookie: b"), (b"x", b"a\nb"), (b"x", b"a\0b"), (b"x\r\ny", b"a")])
async def test_a_line_end_in_a_field_is_never_sent(stage: Stage, field: tuple[bytes, bytes]) -> None:
    assert (await told(stage, "GET", start(200, field), part(b"hello"))).status == 500


async def test_an_application_that_fails_is_a_problem(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_scope: Any, _receive: Any, _send: Any) -> None:
        raise LookupError("a secret cause")

    stage.handlers["/fail"] = fail
    async with stage.wire() as wire:
        await wire.send(request("GET", "/fail"))
        found = await wire.answer()
        assert (found.status, json.loads(found.body)["type"]) == (500, "/problems/internal-error")
        assert b"cause" not in found.body
        assert await wire.ended()
    assert "a secret cause" in caplog.text
