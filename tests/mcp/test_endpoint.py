"""The MCP endpoint on the wire: sessions are their callers' own, and no message says two things."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from tests.mcp.conftest import COUNTED, PRICE
from tests.payments.evm.conftest import until
from tests.support.gateway import RunningGateway
from tests.support.mcp_client import ACCEPT, call, connected, opened, post, request, response
from tests.support.mcp_server import Conversation, PublishersServer, ScriptedMcpServer, selling
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")


async def test_sessions_are_their_callers_own(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    session = await opened(gateway, shop, agent)
    assert session not in {fields.get("mcp-session-id") for _, fields in server.requests}
    other, elsewhere = await world.agent(1_000_000), await world.publisher(PRICE, **selling(server))
    server.forget()
    strangers = [(other, shop), (None, shop), (agent, elsewhere)]
    for who, where in strangers:
        answer = await post(gateway, where, call(), who, mcp_session_id=session)
        assert (answer.status_code, response(answer)["error"]["data"]["type"]) == (404, "/problems/session-lost")
        headers = (who.headers if who else {}) | {"Mcp-Session-Id": session}
        for method in ("GET", "DELETE"):
            answer = await gateway.client.request(method, f"/publishers/{where.slug}/mcp", headers=headers)
            assert answer.status_code == 404
    assert not server.requests, "no stranger's message came so far"
    assert await world.balance(other) == 1_000_000
    answer = await post(gateway, shop, call(), agent, mcp_session_id=session)
    assert response(answer)["result"]["content"][0]["text"].startswith("Oslo")


@pytest.mark.parametrize(
    "change", [lambda it: it[:-2], lambda it: it + "AA", lambda it: "x" + it[1:], lambda _: "***", lambda _: ""]
)
async def test_a_session_id_that_is_none_is_refused(
    gateway: RunningGateway, server: PublishersServer, shop: Shop, agent: Agent, change: Any
) -> None:
    session = await opened(gateway, shop, agent)
    server.forget()
    answer = await post(gateway, shop, call(), agent, mcp_session_id=change(session))
    assert answer.status_code == 404
    assert not server.requests


async def test_a_session_ends_when_its_caller_says_so(gateway: RunningGateway, shop: Shop, agent: Agent) -> None:
    session = await opened(gateway, shop, agent)
    headers = agent.headers | {"Mcp-Session-Id": session}
    assert (await gateway.client.delete(f"/publishers/{shop.slug}/mcp", headers=headers)).status_code == 200
    assert (await post(gateway, shop, call(), agent, mcp_session_id=session)).status_code == 404


async def test_a_session_that_the_server_has_lost_costs_nothing(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    session = await opened(gateway, shop, agent)
    await server.restart()
    for message in (call(), request("tools/list")):
        answer = await post(gateway, shop, message, agent, mcp_session_id=session)
        assert (answer.status_code, response(answer)["error"]["data"]["type"]) == (404, "/problems/session-lost")
    assert await world.balance(agent) == 1_000_000


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        ([call(), call()], 400, -32700),
        (b"", 400, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}', 400, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b"[" * 3_000 + b"]" * 3_000 + b"}", 400, -32700),
        ([call()], 400, -32700),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"ping","m\\u0065thod":"tools/call","params":{"name":"forecast"}}',
            400,
            -32700,
        ),
        (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}', 400, -32700),
        ('{"jsonrpc":"2.0","id":1,"method":"ping"}'.encode("utf-16"), 400, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n{"jsonrpc":"2.0","id":2,"method":"tools/call"}', 400, -32700),
        ({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "forecast"}}, 400, -32602),
        ({"id": 1, "method": "ping"}, 200, -32602),
        (request("tools/call", {"name": "forecast"}, number=None), 400, -32602),
        (request("ping", number=[1]), 400, -32602),
        (request("tools/Call", {"name": "forecast"}), 200, -32601),
        (request("tasks/result", {"taskId": "1"}), 200, -32601),
        (request("tools/call", ["forecast"]), 200, -32602),
        (request("tools/call", {"name": "forecast", "arguments": [1]}), 200, -32602),
        (request("tools/call", {"name": "forecast", "task": {}}), 200, -32602),
        (request("tools/call", {"name": ""}), 200, -32602),
        (request("tools/call", {"name": "../forecast"}), 200, -32602),
        (request("tools/call", {"name": "fore\u0000cast"}), 200, -32602),
        (request("tools/call", {"name": 7}), 200, -32602),
        (call("forecast", **{"x402/payment": "no payment"}), 200, -32602),
    ],
)
async def test_what_is_no_message_is_refused_and_reaches_nobody(
    gateway: RunningGateway,
    world: World,
    server: PublishersServer,
    shop: Shop,
    agent: Agent,
    message: Any,
    status: int,
    code: int,
) -> None:
    answer = await post(gateway, shop, message, agent)
    assert (answer.status_code, response(answer)["error"]["code"]) == (status, code)
    assert not server.requests
    assert await world.balance(agent) == 1_000_000


async def test_a_message_that_is_too_large_is_refused(
    gateway: RunningGateway, server: PublishersServer, shop: Shop
) -> None:
    answer = await post(gateway, shop, request("ping", {"x": "y" * 1_100_000}))
    assert answer.status_code == 413
    assert not server.requests


async def test_fields_cannot_say_something_else_than_the_message(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    for fields in ({"mcp_name": "free_tip"}, {"mcp_method": "tools/list"}, {"mcp_name": "=?base64?ZnJlZV90aXA=?="}):
        answer = await post(gateway, shop, call("counted"), agent, **fields)
        assert response(answer)["error"]["code"] == -32602
    assert not server.requests
    assert await world.balance(agent) == 1_000_000


async def test_a_batch_of_one_key_buys_once(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    session = await opened(gateway, shop, agent)
    messages = [call("forecast", number, **{"tollway/idempotency-key": "k"}) for number in range(1, 6)]
    answers = await asyncio.gather(*(post(gateway, shop, one, agent, mcp_session_id=session) for one in messages))
    said = [response(answer) for answer in answers]
    assert [one["id"] for one in said] == [1, 2, 3, 4, 5]
    assert all("result" in one or one["error"]["data"]["type"] == "/problems/call-running" for one in said)
    assert server.runs["forecast"] == 1
    assert await world.balance(agent) == 1_000_000 - PRICE
    again = await post(gateway, shop, messages[0], agent, mcp_session_id=session)
    assert again.headers["idempotency-replayed"] == "true"
    assert response(again)["result"]["content"][0]["text"].startswith("Oslo")


async def test_keys_of_both_doors_are_the_same(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    headers = agent.headers | {"Idempotency-Key": "both"}
    path = f"/publishers/{shop.slug}/forecast"
    first = await gateway.client.post(path, json={"city": "Oslo"}, headers=headers)
    session = await opened(gateway, shop, agent)
    again = await post(gateway, shop, call(), agent, mcp_session_id=session, idempotency_key="both")
    assert response(again)["result"]["content"] == first.json()["content"]
    assert server.runs["forecast"] == 1
    assert await world.balance(agent) == 1_000_000 - PRICE


async def test_many_calls_cannot_spend_more_than_there_is(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop
) -> None:
    agent = await world.agent(3 * PRICE)
    session = await opened(gateway, shop, agent)
    calls = [post(gateway, shop, call(number=number), agent, mcp_session_id=session) for number in range(8)]
    said = [response(answer)["result"] for answer in await asyncio.gather(*calls)]
    assert sum(not one["isError"] for one in said) == server.runs["forecast"] == 3
    assert await world.balance(agent) == 0


async def test_who_leaves_pays_for_what_runs(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    session = await opened(gateway, shop, agent)
    headers = ACCEPT | agent.headers | {"Mcp-Session-Id": session}
    path = f"/publishers/{shop.slug}/mcp"
    message = call("slow", 1, progressToken=1)
    async with gateway.client.stream("POST", path, json=message, headers=headers) as answer:
        async for line in answer.aiter_lines():
            if "notifications/progress" in line:
                break
    server.gate.set()
    await until(lambda: _earned(world, shop, PRICE))
    assert server.runs["slow ended"] == 1
    assert await world.balance(agent) == 1_000_000 - PRICE


async def _earned(world: World, shop: Shop, amount: int) -> bool:
    return await world.earned(shop) == amount


async def test_a_cancelled_call_costs_nothing(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    session = await opened(gateway, shop, agent)
    running = asyncio.create_task(post(gateway, shop, call("slow", 7), agent, mcp_session_id=session))
    await server.begun.wait()
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    assert (await post(gateway, shop, cancel, agent, mcp_session_id=session)).status_code == 202
    assert "error" in response(await running)
    assert "slow ended" not in server.runs
    assert await world.balance(agent) == 1_000_000


async def test_a_stranger_cannot_cancel(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    session = await opened(gateway, shop, agent)
    stranger = await world.agent()
    running = asyncio.create_task(post(gateway, shop, call("slow", 7), agent, mcp_session_id=session))
    await server.begun.wait()
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    own = await opened(gateway, shop, stranger)
    assert (await post(gateway, shop, cancel, stranger, mcp_session_id=own)).status_code == 202
    assert (await post(gateway, shop, cancel, stranger, mcp_session_id=session)).status_code == 404
    server.gate.set()
    assert response(await running)["result"]["content"][0]["text"] == "done"


async def test_a_server_that_dies_in_a_call_costs_nothing(gateway: RunningGateway, world: World, agent: Agent) -> None:
    dying = PublishersServer()
    await dying.start()
    shop = await world.publisher(PRICE, **selling(dying))
    session = await opened(gateway, shop, agent)
    running = asyncio.create_task(post(gateway, shop, call("slow", 1, progressToken=1), agent, mcp_session_id=session))
    await dying.begun.wait()
    await dying.stop()
    said = response(await running)
    assert "error" in said or said["result"]["isError"]
    assert await world.balance(agent) == 1_000_000


async def test_what_was_sold_cannot_be_asked_for_again(
    gateway: RunningGateway, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    session = await opened(gateway, shop, agent)
    params = {"name": "counted", "arguments": {"steps": 1}, "_meta": {"progressToken": 1}}
    answer = await post(gateway, shop, request("tools/call", params), agent, mcp_session_id=session)
    assert "\nid:" not in f"\n{answer.text}"
    headers = agent.headers | {"Mcp-Session-Id": session, "Last-Event-ID": "1", "Accept": "text/event-stream"}
    async with gateway.client.stream("GET", f"/publishers/{shop.slug}/mcp", headers=headers) as stream:
        assert stream.status_code == 200
    method, fields = server.requests[-1]
    assert method == "GET"
    assert "last-event-id" not in fields


async def test_a_newest_client_that_closes_its_stream_ends_the_call(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    streaming = asyncio.Event()

    async def progress(*_: Any) -> None:
        streaming.set()

    async with connected(gateway, shop, agent, "auto") as client:
        running = asyncio.create_task(client.call_tool("slow", progress_callback=progress))
        await streaming.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await until(lambda: _earned(world, shop, PRICE))
    assert "slow ended" not in server.runs
    assert await world.balance(agent) == 1_000_000 - PRICE


async def test_both_prices_are_charged_where_both_doors_lead(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    session = await opened(gateway, shop, agent)
    message = request("tools/call", {"name": "counted", "arguments": {"steps": 0}})
    answer = await post(gateway, shop, message, agent, mcp_session_id=session)
    assert response(answer)["result"]["_meta"]["tollway/cost"]["amount"] == "0.05"
    assert await world.balance(agent) == 1_000_000 - COUNTED


@pytest.mark.parametrize("name", ["Counted", "COUNTED", "\uff43ounted", " counted", "counted ", "\\counted"])
async def test_no_spelling_of_a_tools_name_is_cheaper(
    gateway: RunningGateway, world: World, odd_mcp: ScriptedMcpServer, agent: Agent, name: str
) -> None:
    """A server may take these for its own tool, which costs more than others do."""

    async def run(came: Conversation) -> None:
        await came.json(came.response({"content": []}))

    odd_mcp.forget()
    odd_mcp.plays[name] = run
    shop = await world.publisher(PRICE, **selling(odd_mcp))
    session = await opened(gateway, shop, agent)
    message = request("tools/call", {"name": name, "arguments": {}})
    said = response(await post(gateway, shop, message, agent, mcp_session_id=session))
    assert said["result"]["_meta"]["tollway/cost"]["amount"] == "0.05"
    answer = await gateway.client.post(f"/publishers/{shop.slug}/{quote(name, safe='')}", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.05")
    assert odd_mcp.called(name) == 2


@pytest.mark.parametrize("name", ["HIDDEN", "Hidden", "\uff48idden", " hidden", "hidden ", "\\hidden"])
async def test_no_spelling_of_a_tools_name_gets_past_its_protection(
    gateway: RunningGateway, world: World, odd_mcp: ScriptedMcpServer, agent: Agent, name: str
) -> None:
    odd_mcp.forget()
    odd_mcp.tools = [{"name": name}]
    shop = await world.publisher(PRICE, **selling(odd_mcp))
    session = await opened(gateway, shop, agent)
    message = request("tools/call", {"name": name, "arguments": {}})
    said = response(await post(gateway, shop, message, agent, mcp_session_id=session))
    assert said["error"]["data"]["type"] == "/problems/endpoint-protected"
    answer = await gateway.client.post(f"/publishers/{shop.slug}/{quote(name, safe='')}", headers=agent.headers)
    assert answer.status_code == 403
    listed = response(await post(gateway, shop, request("tools/list"), agent, mcp_session_id=session))
    assert listed["result"]["tools"] == []
    assert odd_mcp.called(name) == 0


async def test_calls_of_one_id_are_each_paid_and_answered(
    gateway: RunningGateway, world: World, odd_mcp: ScriptedMcpServer, agent: Agent
) -> None:
    async def run(came: Conversation) -> None:
        await came.begin_stream()
        await came.progress()
        await odd_mcp.go_on.wait()
        text = came.message["params"]["arguments"]["text"]
        await came.event(came.response({"content": [{"type": "text", "text": text}]}))
        await came.end_stream()

    odd_mcp.forget()
    odd_mcp.plays["echo"] = run
    shop = await world.publisher(PRICE, **selling(odd_mcp))
    session = await opened(gateway, shop, agent)
    calls = [request("tools/call", {"name": "echo", "arguments": {"text": text}}, 1) for text in ("a", "b")]
    running = [asyncio.create_task(post(gateway, shop, one, agent, mcp_session_id=session)) for one in calls]
    await until(lambda: _called(odd_mcp, 2))
    odd_mcp.go_on.set()
    said = [response(answer)["result"]["content"][0]["text"] for answer in await asyncio.gather(*running)]
    assert said == ["a", "b"]
    assert await world.balance(agent) == 1_000_000 - 2 * PRICE


async def _called(server: ScriptedMcpServer, times: int) -> bool:
    return server.called("echo") == times
