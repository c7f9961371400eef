"""Automatic refunds in the pipeline: only the upstream can bring one about, on every way to pay, and before X-Cost is said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.hostile.wire import Wire, request
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
FUNDS = 1_000_000
# The upstream's answers say {"ok": true}: each of them is a failure to this rule.
FAILS = {"error_at": "ok"}


async def call(gateway: RunningGateway, shop: Shop, agent: Agent, path: str = "/x", **options: Any) -> httpx.Response:
    method = options.pop("method", "GET")
    headers = {**agent.headers, **options.pop("headers", {})}
    return await gateway.client.request(method, f"/publishers/{shop.slug}{path}", headers=headers, **options)


async def left(world: World, agent: Agent, amount: int) -> None:
    """Wait until an agent has so much: a capture is written a moment after its answer."""
    async with asyncio.timeout(60):
        while await world.balance(agent) != amount:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_what_its_rules_give_back_costs_nothing_and_its_head_says_so(
    gateway: RunningGateway, world: World, method: str
) -> None:
    shop, agent = await world.publisher(refund_rules=FAILS), await world.agent(FUNDS)
    answer = await call(gateway, shop, agent, method=method)
    assert (answer.status_code, answer.headers["x-cost"], answer.json()["ok"]) == (200, "0", True)
    assert answer.headers["x-balance"] == "1"
    assert (await world.balance(agent), await world.earned(shop)) == (FUNDS, 0)


@pytest.mark.parametrize(
    ("path", "method"), [("/x", "HEAD"), ("/status/206", "GET"), ("/status/404", "GET"), ("/status/204", "GET")]
)
async def test_an_answer_without_its_whole_content_is_paid(
    gateway: RunningGateway, world: World, path: str, method: str
) -> None:
    rules = {**FAILS, "empty_result": True, "schema": {"required": ["never"]}}
    shop, agent = await world.publisher(refund_rules=rules), await world.agent(FUNDS)
    answer = await call(gateway, shop, agent, path, method=method)
    assert answer.headers["x-cost"] == "0.01"
    assert await world.balance(agent) == FUNDS - 10_000


async def test_a_caller_cannot_ask_for_an_answer_that_is_judged_otherwise(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    fields = {"allowed_passthrough_headers": ["accept-encoding", "range", "if-range"]}
    shop, agent = await world.publisher(refund_rules={"empty_result": True}, **fields), await world.agent(FUNDS)
    asked = {"Accept-Encoding": "br", "Range": "bytes=0-0", "If-Range": '"x"'}
    answer = await call(gateway, shop, agent, headers=asked)
    seen = [(name.lower(), value) for name, value in upstream.requests[-1].headers]
    assert ("accept-encoding", "identity") in seen
    assert not {"range", "if-range"} & {name for name, _ in seen}
    assert answer.headers["x-cost"] == "0.01"


async def test_what_is_compressed_all_the_same_is_paid(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream
) -> None:
    shop, agent = await world.publisher(refund_rules=FAILS), await world.agent(FUNDS)
    upstream.extra_headers = [("Content-Encoding", "x-own")]
    try:
        answer = await call(gateway, shop, agent)
    finally:
        upstream.extra_headers = []
    assert answer.headers["x-cost"] == "0.01"


@pytest.mark.parametrize(
    "priced",
    [
        {"billing_model": "pay_per_use", "upstream_cost_header": "X-Spent", "unresolved_fallback_charge": "0.02"},
        {"pricing_model": "per_byte", "price_per_mib": "1"},
    ],
)
async def test_of_a_price_that_the_answer_tells_nothing_is_captured(
    gateway: RunningGateway, world: World, priced: dict[str, Any]
) -> None:
    shop = await world.publisher(None, refund_rules=FAILS, reserve_max_charge="0.05", **priced)
    kept = await world.publisher(None, refund_rules={"error_at": "no"}, reserve_max_charge="0.05", **priced)
    agent = await world.agent(FUNDS)
    answer = await call(gateway, shop, agent)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0")
    await left(world, agent, FUNDS)
    paid = await call(gateway, kept, agent)
    assert paid.headers["x-cost"] != "0"
    async with asyncio.timeout(60):
        while not await world.earned(kept):
            await asyncio.sleep(0.02)
    assert await world.earned(shop) == 0


async def test_the_rules_are_told_before_anything_is_paid(gateway: RunningGateway, world: World) -> None:
    shop, poor = await world.publisher(refund_rules=FAILS), await world.agent()
    unpaid = await call(gateway, shop, poor)
    assert (unpaid.status_code, unpaid.json()["seren"]["refund_rules"]) == (402, FAILS)
    assert "its `ok` tells of a failure. Only JSON answers" in unpaid.json()["seren"]["free_when"]
    plain = await call(gateway, await world.publisher(), poor)
    assert not {"refund_rules", "free_when"} & plain.json()["seren"].keys()


@contextlib.asynccontextmanager
async def server(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncGenerator[str]:
    """Serve by a function, which is called once the head of a request is there."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


def json_head(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)


async def test_what_is_waited_for_to_be_judged_costs_what_it_says(gateway: RunningGateway, world: World) -> None:
    body = b'{"ok": false, "cost": "0.001"}'

    async def slowly(writer: asyncio.StreamWriter) -> None:
        writer.write(json_head(body))
        await asyncio.sleep(2.5)  # longer than the cost of an answer without rules is waited for
        writer.write(body)
        await writer.drain()

    async with server(slowly) as url:
        shop = await world.publisher(
            None, api_url=url, refund_rules=FAILS, billing_model="pay_per_use", upstream_cost_response_path="cost",
            unresolved_fallback_charge="0.05", reserve_max_charge="0.1",
        )  # fmt: skip
        agent = await world.agent(FUNDS)
        answer = await call(gateway, shop, agent)
    assert (answer.content, answer.headers.get("x-cost")) == (body, "0.001")
    await left(world, agent, FUNDS - 1_000)


async def test_an_answer_before_the_end_of_its_request_is_not_late(gateway: RunningGateway, world: World) -> None:
    async def early(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        writer.write(json_head(b"{}") + b"{}")
        await writer.drain()

    async with server(early) as url:
        shop, agent = await world.publisher(api_url=url, refund_rules={"later_than_ms": 100}), await world.agent(FUNDS)
        wire = await Wire.open(gateway.port)
        try:
            await wire.send(request("POST", f"/publishers/{shop.slug}/x", "Content-Length: 4", key=agent.key) + b"ab")
            answer = await wire.answer()
        finally:
            wire.close()
    assert (answer.status, dict(answer.headers)["x-cost"]) == (200, "0.01")


@pytest.mark.slow
async def test_a_caller_that_sends_slowly_does_not_make_the_answer_late(gateway: RunningGateway, world: World) -> None:
    shop, agent = await world.publisher(refund_rules={"later_than_ms": 4_000}), await world.agent(FUNDS)
    wire = await Wire.open(gateway.port)
    try:
        head = request("POST", f"/publishers/{shop.slug}/x", "Content-Length: 4", key=agent.key)
        await wire.send(head + b"ab")
        await asyncio.sleep(5)
        await wire.send(b"cd")
        answer = await wire.answer()
    finally:
        wire.close()
    assert (answer.status, dict(answer.headers)["x-cost"]) == (200, "0.01")


async def test_an_endpoint_has_rules_of_its_own(gateway: RunningGateway, world: World) -> None:
    endpoints = [
        {"method": "GET", "path": "/fails/{id}", "refund_rules": FAILS},
        {"method": "GET", "path": "/status/404", "refund_on_status": ["404"], "refund_rules": {}},
        {"method": "GET", "path": "/fails", "refund_rules": {}},
    ]
    shop = await world.publisher(refund_rules={"empty_result": "absent"}, endpoints=endpoints)
    agent, poor = await world.agent(FUNDS), await world.agent(0)
    costs = {"/fails/7": "0", "/fails": "0.01", "/other": "0.01", "/status/404": "0", "/status/410": "0.01"}
    for path, cost in costs.items():
        assert (await call(gateway, shop, agent, path)).headers["x-cost"] == cost, path
    assert (await call(gateway, shop, agent, "/fails%2F7")).headers["x-cost"] == "0.01"  # which may be either
    await left(world, agent, FUNDS - 40_000)
    promised = {path: (await call(gateway, shop, poor, path)).json()["seren"] for path in ("/fails/7", "/fails", "/x")}
    assert promised["/fails/7"]["refund_rules"] == FAILS
    assert "refund_rules" not in promised["/fails"]
    assert promised["/x"]["refund_rules"] == {"empty_result": "absent"}
    document = (await gateway.client.get(f"/publishers/{shop.slug}/openapi.json")).json()
    assert document["paths"]["/fails/{id}"]["get"]["x-refund-rules"] == FAILS


async def test_a_path_that_an_answer_does_not_have_is_not_empty(gateway: RunningGateway, world: World) -> None:
    shop, agent = await world.publisher(refund_rules={"empty_result": "data.items"}), await world.agent(FUNDS)
    assert (await call(gateway, shop, agent)).headers["x-cost"] == "0.01"
