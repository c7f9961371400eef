"""A kept connection to a publisher that turns out closed: what may be read twice is sent once more, and paid once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.hostile.wire import ScriptedUpstream
from tests.support.gateway import RunningGateway
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("sound_books")
FUNDS, PRICE = 1_000_000, 10_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest_asyncio.fixture
async def stale() -> AsyncIterator[ScriptedUpstream]:
    """It closes its connection at the first request for /stale, having read it, and answers later ones."""
    server = ScriptedUpstream(answers={"first": OK})

    async def once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.targets.count(b"/stale") > 1:
            writer.write(OK)
            await writer.drain()

    server.answers["stale"] = once
    await server.start()
    yield server
    await server.stop()


KEY = {"Idempotency-Key": "one"}
CASES = {
    "safe": ("GET", {}, True),
    "safe, and kept for its key": ("GET", KEY, True),
    "keyed, and the publisher takes keys": ("POST", {**KEY, "X-Takes": "keys"}, True),
    "keyed here alone": ("POST", KEY, False),
    "neither": ("POST", {}, False),
    "idempotent, not safe": ("DELETE", {}, False),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_may_be_read_twice_is_sent_once_more_and_paid_once(
    case: str, gateway: RunningGateway, world: World, stale: ScriptedUpstream
) -> None:
    method, fields, again = CASES[case]
    allowed = ["Idempotency-Key"] if "X-Takes" in fields else []
    shop = await world.publisher(PRICE, api_url=stale.url, allowed_passthrough_headers=allowed)
    agent = await world.agent(FUNDS)
    path = f"/publishers/{shop.slug}"
    assert (await gateway.client.get(f"{path}/first", headers=agent.headers)).status_code == 200
    body = b"{}" if method == "POST" else None
    answer = await gateway.client.request(method, f"{path}/stale", headers={**agent.headers, **fields}, content=body)
    cost, paid = ("0.01", 2) if again else ("0", 1)
    assert (answer.status_code, answer.headers["x-cost"]) == ((200, cost) if again else (502, cost)), answer.text
    assert stale.targets == [b"/first", *[b"/stale"] * (2 if again else 1)]
    assert await world.balance(agent) == FUNDS - paid * PRICE


async def test_what_fails_on_the_new_connection_as_well_costs_nothing(
    gateway: RunningGateway, world: World, stale: ScriptedUpstream
) -> None:
    async def gone(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        return

    stale.answers["gone"] = gone
    shop, agent = await world.publisher(PRICE, api_url=stale.url), await world.agent(FUNDS)
    await gateway.client.get(f"/publishers/{shop.slug}/first", headers=agent.headers)
    answer = await gateway.client.get(f"/publishers/{shop.slug}/gone", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (502, "0")
    assert stale.targets == [b"/first", b"/gone", b"/gone"]
    assert await world.balance(agent) == FUNDS - PRICE
