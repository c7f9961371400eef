"""Tools and resources by plain HTTP, as the contract has them."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.mcp.conftest import PRICE
from tests.support.gateway import RunningGateway
from tests.support.mcp_server import Conversation, PublishersServer, ScriptedMcpServer, selling
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")


async def called(
    gateway: RunningGateway, shop: Shop, agent: Agent | None, tool: str, arguments: Any = None, **fields: str
) -> httpx.Response:
    headers = {**(agent.headers if agent else {}), **{name.replace("_", "-"): value for name, value in fields.items()}}
    return await gateway.client.post(f"/publishers/{shop.slug}/{tool}", json=arguments, headers=headers)


async def test_tools_and_resources_are_listed(gateway: RunningGateway, shop: Shop) -> None:
    answer = await gateway.client.get(f"/publishers/{shop.slug}/_tools")
    tools = {tool["name"]: tool for tool in answer.json()["tools"]}
    assert set(tools) == {"forecast", "free_tip", "failing", "counted", "slow", "asking"}
    assert tools["forecast"]["input_schema"]["required"] == ["city"]
    assert tools["forecast"]["price"]["amount"] == "0.01"
    answer = await gateway.client.get(f"/publishers/{shop.slug}/_resources")
    assert answer.json() == {
        "resources": [
            {
                "uri": "weather://stations",
                "name": "stations",
                "description": "Every station.",
                "mime_type": "text/plain",
            }
        ]
    }


async def test_a_list_is_asked_for_once(gateway: RunningGateway, server: PublishersServer, world: World) -> None:
    shop = await world.publisher(PRICE, **selling(server, upstream_headers={"X-Only": "here"}))
    server.forget()
    path = f"/publishers/{shop.slug}/_tools"
    answers = await asyncio.gather(*(gateway.client.get(path) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(server.requests) == 3, "initialize, initialized, tools/list"


async def test_a_tool_is_called(gateway: RunningGateway, world: World, shop: Shop, agent: Agent) -> None:
    answer = await called(gateway, shop, agent, "forecast", {"city": "Lisbon"})
    assert answer.status_code == 200
    assert answer.json()["content"] == [{"type": "text", "text": "Lisbon: sunny for 1 days"}]
    assert (answer.headers["x-cost"], answer.headers["x-balance"]) == ("0.01", "0.99")
    assert await world.balance(agent) == 1_000_000 - PRICE
    receipt = await gateway.client.get(f"/receipts/{answer.headers['x-request-id']}", headers=agent.headers)
    assert receipt.status_code == 200


async def test_progress_is_passed_over(gateway: RunningGateway, shop: Shop, agent: Agent) -> None:
    answer = await called(gateway, shop, agent, "counted", {"steps": 2})
    assert (answer.json()["content"][0]["text"], answer.headers["x-cost"]) == ("counted", "0.05")


async def test_a_tool_that_fails_costs_nothing(gateway: RunningGateway, world: World, shop: Shop, agent: Agent) -> None:
    answer = await called(gateway, shop, agent, "failing")
    assert (answer.status_code, answer.json()["isError"], answer.headers["x-cost"]) == (200, True, "0")
    assert await world.balance(agent) == 1_000_000


async def test_a_key_buys_one_run(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    first = await called(gateway, shop, agent, "forecast", {"city": "Oslo", "days": 2}, idempotency_key="k1")
    again = await called(gateway, shop, agent, "forecast", {"days": 2, "city": "Oslo"}, idempotency_key="k1")
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    other = await called(gateway, shop, agent, "forecast", {"city": "Rome"}, idempotency_key="k1")
    assert other.status_code == 422
    assert server.runs["forecast"] == 1
    assert await world.balance(agent) == 1_000_000 - PRICE


async def test_a_lost_session_is_replaced_and_nothing_runs_twice(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    assert (await called(gateway, shop, agent, "forecast", {"city": "Oslo"})).status_code == 200
    await server.restart()
    assert (await called(gateway, shop, agent, "forecast", {"city": "Oslo"})).status_code == 200
    assert server.runs["forecast"] == 2
    assert await world.balance(agent) == 1_000_000 - 2 * PRICE


async def test_each_caller_has_a_session_of_its_own(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    other = await world.agent(1_000_000)
    for buyer in (agent, other, agent):
        await called(gateway, shop, buyer, "forecast", {"city": "Oslo"})
    for _ in range(2):
        await called(gateway, shop, None, "free_tip")
    sessions = [
        fields["mcp-session-id"]
        for method, fields in server.requests
        if "mcp-session-id" in fields and method == "POST"
    ]
    of_calls = [one for number, one in enumerate(sessions) if one in sessions[:number]]
    assert len(set(sessions)) == 4
    assert len(of_calls) == 5
    assert [method for method, _ in server.requests].count("DELETE") == 2, "nobody's sessions are used once"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "", 404), ("GET", "/forecast", 405), ("POST", "/_tools", 405), ("PUT", "/forecast", 405),
        ("POST", "/forecast?x=1", 400), ("POST", "/..%2fforecast", 400), ("POST", "/%2e%2e/x", 400),
        ("POST", "/a//b", 400), ("POST", "/forecast/", 400), ("POST", "/a%00b", 400), ("POST", "/hidden", 403),
        ("POST", "/%ff", 400),
    ],
)  # fmt: skip
async def test_odd_requests_are_refused_and_reach_nobody(
    gateway: RunningGateway,
    world: World,
    server: PublishersServer,
    shop: Shop,
    agent: Agent,
    method: str,
    path: str,
    status: int,
) -> None:
    answer = await gateway.client.request(method, f"/publishers/{shop.slug}{path}", headers=agent.headers)
    assert answer.status_code == status, answer.text
    assert not server.requests
    assert await world.balance(agent) == 1_000_000


@pytest.mark.parametrize(
    "body",
    [b"[]", b"[{}]", b"1", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff", b'{"a":1e999}', b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
     b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"],
)  # fmt: skip
async def test_odd_arguments_are_refused_before_anything_is_paid(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent, body: bytes
) -> None:
    answer = await gateway.client.post(f"/publishers/{shop.slug}/forecast", content=body, headers=agent.headers)
    assert answer.status_code == 400, answer.text
    assert not server.runs
    assert await world.balance(agent) == 1_000_000


async def test_too_much_is_refused(gateway: RunningGateway, server: PublishersServer, shop: Shop, agent: Agent) -> None:
    body = json.dumps({"city": "x" * 1_100_000}).encode()
    answer = await gateway.client.post(f"/publishers/{shop.slug}/forecast", content=body, headers=agent.headers)
    assert answer.status_code == 413
    assert not server.requests


async def test_a_server_that_is_away_costs_nothing(gateway: RunningGateway, world: World, agent: Agent) -> None:
    away = PublishersServer()
    shop = await world.publisher(PRICE, **selling(away))
    answer = await called(gateway, shop, agent, "forecast", {"city": "Oslo"})
    assert (answer.status_code, answer.json()["type"]) == (502, "/problems/upstream-unreachable")
    assert await world.balance(agent) == 1_000_000


@pytest.mark.parametrize("options", [{"json_response": True}, {"stateless_http": True}], ids=["json", "stateless"])
async def test_servers_of_other_forms_are_sold_as_well(
    gateway: RunningGateway, world: World, agent: Agent, options: dict[str, Any]
) -> None:
    other = PublishersServer()
    await other.start(**options)
    try:
        shop = await world.publisher(PRICE, **selling(other))
        answer = await called(gateway, shop, agent, "forecast", {"city": "Oslo"})
        assert answer.json()["content"][0]["text"] == "Oslo: sunny for 1 days"
    finally:
        await other.stop()


async def test_an_execution_has_its_own_price(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    await world.connection.execute(
        "UPDATE catalog.pricing SET price_per_execution = 30000, price_per_post = 20000 WHERE publisher_id = $1",
        shop.id,
    )
    await world.told()
    assert (await called(gateway, shop, agent, "forecast", {"city": "Oslo"})).headers["x-cost"] == "0.03"
    assert (await called(gateway, shop, agent, "counted", {"steps": 0})).headers["x-cost"] == "0.05"


async def test_only_documented_tools_are_sold_where_the_publisher_says_so(
    gateway: RunningGateway, world: World, server: PublishersServer, agent: Agent
) -> None:
    shop = await world.publisher(PRICE, **selling(server, undocumented_endpoint_policy="default_deny"))
    tools = (await gateway.client.get(f"/publishers/{shop.slug}/_tools")).json()["tools"]
    assert {tool["name"] for tool in tools} == {"free_tip", "counted"}
    assert (await called(gateway, shop, agent, "forecast", {"city": "Oslo"})).status_code == 404


@pytest.mark.parametrize(
    "name", ["get weather/now", "na\u00efve", "a%b", "%41", "x?y=1", "a#b", "a;b", "a\\b", "\u5929\u6c17", "a+b", "A.B"]
)
async def test_names_are_percent_encoded_once(
    gateway: RunningGateway, world: World, odd_mcp: ScriptedMcpServer, agent: Agent, name: str
) -> None:
    async def run(came: Conversation) -> None:
        await came.json(came.response({"content": []}))

    odd_mcp.forget()
    odd_mcp.plays[name] = run
    shop = await world.publisher(PRICE, **selling(odd_mcp))
    answer = await called(gateway, shop, agent, quote(name, safe=""), {})
    assert answer.status_code == 200, answer.text
    assert odd_mcp.called(name) == 1
