"""What a publisher's MCP server may do wrong, or on purpose: nobody is charged for it, and nothing here is held up."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from tests.mcp.conftest import PRICE
from tests.support.gateway import RunningGateway
from tests.support.mcp_client import call, opened, post, request, response
from tests.support.mcp_server import Conversation, Play, ScriptedMcpServer, selling
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")
RESULT = {"content": [{"type": "text", "text": "done"}]}
FUNDS = 1_000_000


@pytest.fixture
def server(odd_mcp: ScriptedMcpServer) -> ScriptedMcpServer:
    odd_mcp.forget()
    return odd_mcp


@pytest.fixture
async def sold(world: World, server: ScriptedMcpServer) -> Shop:
    """Sells it, with a credential of its own: what others' lists said is not what this one's says."""
    return await world.publisher(PRICE, **selling(server, upstream_headers={"X-Only": uuid4().hex}))


async def called(gateway: RunningGateway, shop: Shop, agent: Agent, number: Any = 1) -> dict[str, Any]:
    session = await opened(gateway, shop, agent)
    return response(await post(gateway, shop, call("odd", number, progressToken=1), agent, mcp_session_id=session))


async def of_another_call(came: Conversation) -> None:
    await came.begin_stream()
    await came.event(came.response(RESULT, number="another"))
    await came.end_stream()


async def batch(came: Conversation) -> None:
    await came.json([came.response(RESULT)])


async def no_json(came: Conversation) -> None:
    await came.json(b'{"jsonrpc":"2.0","id":1,"result":')


async def infinite(came: Conversation) -> None:
    await came.json(b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"n":1e999}}')


async def bottomless(came: Conversation) -> None:
    await came.json(b'{"jsonrpc":"2.0","id":1,"result":{"content":' + b"[" * 5_000 + b"]" * 5_000 + b"}}")


async def text_for_result(came: Conversation) -> None:
    await came.json(came.response("done"))


async def neither(came: Conversation) -> None:
    await came.json({"jsonrpc": "2.0", "id": came.id})


async def too_large(came: Conversation) -> None:
    await came.json(came.response({"content": [{"type": "text", "text": "x" * 9_000_000}]}))


async def too_large_an_event(came: Conversation) -> None:
    await came.begin_stream()
    await came.event(came.response({"content": [{"type": "text", "text": "x" * 9_000_000}]}))


async def unreadable_progress(came: Conversation) -> None:
    await came.begin_stream()
    await came.event(b"data: {not json\n\n")
    await came.event(came.response(RESULT))
    await came.end_stream()


@pytest.mark.parametrize(
    "play",
    [of_another_call, batch, no_json, infinite, bottomless, text_for_result, neither, too_large, too_large_an_event,
     unreadable_progress],
)  # fmt: skip
async def test_what_is_no_result_costs_nothing(
    gateway: RunningGateway, world: World, server: ScriptedMcpServer, sold: Shop, agent: Agent, play: Play
) -> None:
    server.plays["odd"] = play
    said = await called(gateway, sold, agent)
    assert said["error"]["data"]["type"] == "/problems/upstream-invalid"
    assert await world.balance(agent) == FUNDS
    assert server.called("odd") == 1


async def test_only_the_first_response_to_the_call_counts_and_a_stream_need_not_end(
    gateway: RunningGateway, world: World, server: ScriptedMcpServer, sold: Shop, agent: Agent
) -> None:
    async def play(came: Conversation) -> None:
        await came.begin_stream()
        await came.event(came.response({"content": [], "isError": True}, number=99))
        await came.event(came.response(RESULT))
        await came.event(came.response(error={"code": 1, "message": "it was nothing"}))
        await asyncio.sleep(3600)  # the stream stays open

    server.plays["odd"] = play
    async with asyncio.timeout(10):
        said = await called(gateway, sold, agent)
    assert said["result"]["content"] == RESULT["content"]
    assert await world.balance(agent) == FUNDS - PRICE


async def test_a_result_cannot_speak_for_the_gateway(
    gateway: RunningGateway, world: World, server: ScriptedMcpServer, sold: Shop, agent: Agent
) -> None:
    meta = {"x402/payment-response": {"success": True, "transaction": "0x1"}, "tollway/cost": {"amount": "0"}, "own": 1}

    async def play(came: Conversation) -> None:
        await came.json(came.response({**RESULT, "_meta": meta}), "X-Cost: 0", "Idempotency-Replayed: true")

    server.plays["odd"] = play
    said = (await called(gateway, sold, agent))["result"]["_meta"]
    assert (said["tollway/cost"]["amount"], said["own"], "x402/payment-response" in said) == ("0.01", 1, False)


async def test_a_request_for_payment_of_the_servers_own_is_no_result(
    gateway: RunningGateway, world: World, server: ScriptedMcpServer, sold: Shop, agent: Agent
) -> None:
    """A server that sells by x402 itself, behind a price of ours: its request is passed on, and costs nothing here."""
    offer = {"x402Version": 2, "accepts": [{"scheme": "exact", "payTo": "0xevil"}]}
    answer = {"isError": True, "structuredContent": offer, "content": [{"type": "text", "text": json.dumps(offer)}]}

    async def play(came: Conversation) -> None:
        await came.json(came.response(answer))

    server.plays["odd"] = play
    said = (await called(gateway, sold, agent))["result"]
    assert said["_meta"]["tollway/cost"]["amount"] == "0"
    assert await world.balance(agent) == FUNDS


async def test_a_refusal_is_passed_on_within_bounds(
    gateway: RunningGateway, server: ScriptedMcpServer, sold: Shop, agent: Agent
) -> None:
    async def play(came: Conversation) -> None:
        await came.json(came.response(error={"code": "no number", "message": "x" * 100_000}))

    server.plays["odd"] = play
    error = (await called(gateway, sold, agent))["error"]
    assert (error["code"], len(error["message"])) == (-32603, 1_000)


async def test_a_list_without_end_is_cut(
    gateway: RunningGateway, world: World, server: ScriptedMcpServer, sold: Shop
) -> None:
    async def play(came: Conversation) -> None:
        page = int(came.message.get("params", {}).get("cursor", "0"))
        tools = [{"name": f"tool-{page}-{number}", "inputSchema": {}} for number in range(50)]
        await came.json(came.response({"tools": tools, "nextCursor": str(page + 1)}))

    server.plays["tools/list"] = play
    listed = (await gateway.client.get(f"/publishers/{sold.slug}/_tools")).json()["tools"]
    assert len(listed) == 50 * 20
    assert sum(one.get("method") == "tools/list" for one in server.messages) == 20


async def test_a_list_that_is_too_long_is_refused_at_both_doors(
    gateway: RunningGateway, server: ScriptedMcpServer, sold: Shop, agent: Agent
) -> None:
    server.tools = [{"name": f"tool-{number}", "description": "x" * 1_000} for number in range(9_000)]
    answer = await gateway.client.get(f"/publishers/{sold.slug}/_tools")
    assert (answer.status_code, answer.json()["type"]) == (502, "/problems/upstream-invalid")
    session = await opened(gateway, sold, agent)
    said = response(await post(gateway, sold, request("tools/list"), agent, mcp_session_id=session))
    assert said["error"]["data"]["type"] == "/problems/upstream-invalid"


async def test_tools_of_no_possible_name_are_not_listed(
    gateway: RunningGateway, server: ScriptedMcpServer, sold: Shop, agent: Agent
) -> None:
    odd = [None, 7, "", "../forecast", "a//b", "x" * 201, "fore\u200bcast", "new\nline", ["forecast"]]
    server.tools = [{"name": name} for name in [*odd, "fine", "also fine"]] + ["no object", None]
    listed = (await gateway.client.get(f"/publishers/{sold.slug}/_tools")).json()["tools"]
    session = await opened(gateway, sold, agent)
    shown = response(await post(gateway, sold, request("tools/list"), agent, mcp_session_id=session))["result"]["tools"]
    assert [one["name"] for one in listed] == [one["name"] for one in shown] == ["fine", "also fine"]


async def test_a_tool_that_comes_later_costs_the_call_price_and_is_not_sold_where_only_documented_ones_are(
    gateway: RunningGateway, world: World, server: ScriptedMcpServer, agent: Agent
) -> None:
    open_shop = await world.publisher(PRICE, **selling(server))
    strict = await world.publisher(PRICE, **selling(server, undocumented_endpoint_policy="default_deny"))

    async def play(came: Conversation) -> None:
        await came.json(came.response(RESULT))

    server.plays["later"] = play
    for shop, listed, charged in ((open_shop, ["later"], PRICE), (strict, [], 0)):
        session = await opened(gateway, shop, agent)
        server.tools = []
        asked = await post(gateway, shop, request("tools/list"), agent, mcp_session_id=session)
        assert response(asked)["result"]["tools"] == []
        server.tools = [{"name": "later"}]
        asked = await post(gateway, shop, request("tools/list"), agent, mcp_session_id=session)
        assert [one["name"] for one in response(asked)["result"]["tools"]] == listed
        before = await world.balance(agent)
        answer = response(await post(gateway, shop, call("later"), agent, mcp_session_id=session))
        assert ("result" in answer) == bool(listed)
        assert before - await world.balance(agent) == charged
    assert server.called("later") == 1


async def test_an_address_in_what_a_server_says_is_not_followed(
    gateway: RunningGateway, world: World, server: ScriptedMcpServer, sold: Shop, agent: Agent
) -> None:
    async def play(came: Conversation) -> None:
        await came.status(307, b"", "text/plain", "Location: http://169.254.169.254/latest/meta-data")

    server.plays["odd"] = play
    said = await called(gateway, sold, agent)
    assert said["error"]["data"]["type"] == "/problems/upstream-invalid"
    assert await world.balance(agent) == FUNDS


@pytest.mark.parametrize("given", ["x" * 4_000, "a, b", "\u00e9\u00e8"])
async def test_odd_session_ids_come_back_to_their_server_as_they_were(
    gateway: RunningGateway, server: ScriptedMcpServer, sold: Shop, agent: Agent, given: str
) -> None:
    seen: list[bytes] = []

    async def opens(came: Conversation) -> None:
        result = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "odd"}}
        await came.json(came.response(result), f"Mcp-Session-Id: {given}")

    async def play(came: Conversation) -> None:
        seen.append(came.head)
        await came.json(came.response(RESULT))

    server.plays |= {"initialize": opens, "odd": play}
    assert "result" in await called(gateway, sold, agent)
    assert f"mcp-session-id: {given}\r\n".encode() in seen[0]
