"""Refusals from the head alone: the application hears nothing of the request, and the connection goes on if it can."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.errors import Overloaded, Problem
from gateway.server.head import Head
from tests.hostile.wire import request
from tests.server.conftest import Stage

GET = request("GET", "/busy")


@pytest.fixture(autouse=True)
def shedding(stage: Stage) -> None:
    """Refuse what is below /busy."""

    def shed(head: Head) -> Problem | None:
        return Overloaded("Try again.") if head.origin_form[0].startswith(b"/busy") else None

    stage.shed = shed


async def test_the_application_hears_nothing_and_the_connection_goes_on(stage: Stage) -> None:
    async with stage.wire() as wire:
        await wire.send(GET + GET + request("GET", "/other"))
        first, second, third = [await wire.answer() for _ in range(3)]
    assert [one.status for one in (first, second, third)] == [503, 503, 200]
    assert (json.loads(first.body)["type"], first.get("retry-after"), first.get("x-cost")) == (
        "/problems/overloaded", "1", "0",
    )  # fmt: skip
    assert first.get("x-request-id") != second.get("x-request-id")
    assert [scope["path"] for scope in stage.scopes] == ["/other"]


async def test_head_is_refused_without_a_body(stage: Stage) -> None:
    async with stage.wire() as wire:
        await wire.send(request("HEAD", "/busy"))
        answer = await wire.answer(head=True)
        assert (answer.status, answer.body) == (503, b"")
        await wire.send(GET)
        assert (await wire.answer()).status == 503


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
async def test_an_upload_is_refused_unread_and_read_as_no_request(stage: Stage, framing: str) -> None:
    async with stage.wire() as wire:
        await wire.send(request("POST", "/busy", framing))
        answer = await wire.answer()
        assert (answer.status, answer.get("connection"), answer.complete) == (503, "close", True)
        await wire.send(request("GET", "/smuggled") * 100)
        assert await wire.ended()
    await asyncio.sleep(0)
    assert stage.scopes == []


async def test_who_waits_to_be_asked_for_a_body_is_not_asked(stage: Stage) -> None:
    async with stage.wire() as wire:
        await wire.send(request("POST", "/busy", "Content-Length: 10", "Expect: 100-continue"))
        assert (await wire.answer()).status == 503
        assert await wire.ended()


async def test_a_body_that_is_there_whole_ends_no_connection(stage: Stage) -> None:
    async with stage.wire() as wire:
        await wire.send(request("POST", "/busy", "Content-Length: 5") + b"hello" + request("GET", "/other"))
        assert [(await wire.answer()).status for _ in range(2)] == [503, 200]
    assert [scope["path"] for scope in stage.scopes] == ["/other"]
