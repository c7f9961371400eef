"""The official MCP client works through the gateway as it is, and pays for the tools that it calls."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import CreateMessageResult, ElicitResult, TextContent

from tests.mcp.conftest import COUNTED, PRICE
from tests.support.gateway import RunningGateway
from tests.support.javascript import MCP, node
from tests.support.mcp_client import connected
from tests.support.mcp_server import CREDENTIAL, Conversation, PublishersServer, ScriptedMcpServer, selling
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")


async def test_tools_are_listed_with_their_prices(gateway: RunningGateway, shop: Shop, mode: str) -> None:
    async with connected(gateway, shop, mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"forecast", "free_tip", "failing", "counted", "slow", "asking"}
    assert tools["forecast"].description == "The weather of the next days.\n\nPrice: 0.01 USDC per call."
    assert tools["free_tip"].description.endswith("Price: free.")
    assert tools["counted"].meta["tollway/price"] == {"amount": "0.05", "asset": "USDC", "network": "eip155:8453"}
    assert tools["forecast"].input_schema["properties"].keys() == {"city", "days"}


async def test_a_call_is_paid_and_answered(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent, mode: str
) -> None:
    async with connected(gateway, shop, agent, mode) as client:
        result = await client.call_tool("forecast", {"city": "Lisbon", "days": 3})
    assert (result.is_error, result.content[0].text) == (False, "Lisbon: sunny for 3 days")
    assert result.meta["tollway/cost"]["amount"] == "0.01"
    assert await world.balance(agent) == 1_000_000 - PRICE
    assert await world.earned(shop) == PRICE
    seen = {fields.get("authorization") for _, fields in server.requests}
    assert seen == {CREDENTIAL}, "the agent's key never reaches the publisher"


async def test_what_is_free_costs_nothing(
    gateway: RunningGateway, world: World, shop: Shop, agent: Agent, mode: str
) -> None:
    async with connected(gateway, shop, agent, mode) as client:
        assert (await client.call_tool("free_tip")).content[0].text == "take an umbrella"
        assert [str(one.uri) for one in (await client.list_resources()).resources] == ["weather://stations"]
        assert (await client.read_resource("weather://stations")).contents[0].text == "Berlin, Lisbon"
        assert (await client.get_prompt("pack", {"city": "Oslo"})).messages[0].content.text.endswith("Oslo?")
    assert await world.balance(agent) == 1_000_000


async def test_progress_comes_while_the_tool_runs(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent, mode: str
) -> None:
    seen: list[float] = []

    async def progress(done: float, _total: float | None, _message: str | None) -> None:
        seen.append(done)
        server.gate.set()  # `slow` ends only after its progress has arrived here

    async with connected(gateway, shop, agent, mode) as client:
        assert (await client.call_tool("slow", progress_callback=progress)).content[0].text == "done"
        assert (await client.call_tool("counted", {"steps": 3}, progress_callback=progress)).content[
            0
        ].text == "counted"
    assert seen == [1, 1, 2, 3]
    assert await world.balance(agent) == 1_000_000 - PRICE - COUNTED


async def test_a_tool_that_fails_costs_nothing(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent, mode: str
) -> None:
    async with connected(gateway, shop, agent, mode) as client:
        result = await client.call_tool("failing")
        assert result.is_error
        assert "the station is down" in result.content[0].text
        assert result.meta["tollway/cost"]["amount"] == "0"
        assert (await client.call_tool("nothing_like_it")).is_error
    assert server.runs == {"failing": 1}
    assert await world.balance(agent) == 1_000_000


async def test_without_funds_a_call_says_what_it_needs(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, mode: str
) -> None:
    poor = await world.agent(PRICE - 1)
    async with connected(gateway, shop, poor, mode) as client:
        result = await client.call_tool("forecast", {"city": "Rome"})
        assert result.is_error
        assert result.structured_content["x402Version"] == 2
        offer = result.structured_content["accepts"][0]
        assert (offer["scheme"], offer["extra"]["deficit"]) == ("prepaid", "0.000001")
        assert json.loads(result.content[0].text) == result.structured_content, "x402 has both say the same"
        assert await world.balance(poor) == PRICE - 1
    assert not server.runs


async def test_what_is_not_for_sale_is_not_run(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    async with connected(gateway, shop, agent) as client:
        with pytest.raises(MCPError, match="Not for sale"):
            await client.call_tool("hidden")
    assert not server.runs
    assert await world.balance(agent) == 1_000_000


async def test_what_the_server_asks_its_caller_and_the_answers_pass_through(
    gateway: RunningGateway, world: World, shop: Shop, agent: Agent
) -> None:
    async def tell(_context: Any, asked: Any) -> ElicitResult:
        assert asked.message == "Where?"
        return ElicitResult(action="accept", content={"city": "Oslo"})

    async def think(_context: Any, asked: Any) -> CreateMessageResult:
        said = TextContent(type="text", text=f"{asked.messages[0].content.text} Cold.")
        return CreateMessageResult(role="assistant", content=said, model="none")

    async with connected(gateway, shop, agent, elicitation_callback=tell, sampling_callback=think) as client:
        result = await client.call_tool("asking")
    assert (result.is_error, result.content[0].text) == (False, "accept, Oslo? Cold.")
    assert await world.balance(agent) == 1_000_000 - PRICE


async def test_a_list_in_pages_is_read_page_by_page(
    gateway: RunningGateway, world: World, odd_mcp: ScriptedMcpServer, agent: Agent
) -> None:
    async def page(came: Conversation) -> None:
        number = int(came.message.get("params", {}).get("cursor", "0"))
        names = (f"tool-{number}", "hidden") if number < 2 else (f"tool-{number}",)
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
        await came.json(came.response({"tools": tools, **({"nextCursor": str(number + 1)} if number < 2 else {})}))

    odd_mcp.forget()
    odd_mcp.plays["tools/list"] = page
    shop = await world.publisher(PRICE, **selling(odd_mcp))
    found, cursor = [], None
    async with connected(gateway, shop, agent) as client:
        while True:
            listed = await client.list_tools(cursor=cursor)
            found += [(tool.name, tool.meta["tollway/price"]["amount"]) for tool in listed.tools]
            if not (cursor := listed.next_cursor):
                break
    assert found == [("tool-0", "0.01"), ("tool-1", "0.01"), ("tool-2", "0.01")]
    answer = await gateway.client.get(f"/publishers/{shop.slug}/_tools")
    assert [tool["name"] for tool in answer.json()["tools"]] == ["tool-0", "tool-1", "tool-2"]


async def test_the_typescript_client_works_as_it_is(
    gateway: RunningGateway, world: World, server: PublishersServer, shop: Shop, agent: Agent
) -> None:
    endpoint = f"{gateway.url}/publishers/{shop.slug}/mcp"
    script = Path(__file__).parent / "clients" / "typescript.mjs"
    process = await asyncio.to_thread(node, script, MCP, ENDPOINT=endpoint, KEY=agent.key)
    printed, _ = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0
    found = json.loads(printed)
    assert {tool["name"]: tool["_meta"]["tollway/price"]["amount"] for tool in found["tools"]}["counted"] == "0.05"
    assert found["progress"] == [1, 2, 3]
    assert found["counted"]["_meta"]["tollway/cost"]["amount"] == "0.05"
    assert (found["failing"]["isError"], found["failing"]["_meta"]["tollway/cost"]["amount"]) == (True, "0")
    assert found["resource"]["contents"][0]["text"] == "Berlin, Lisbon"
    assert found["prompt"]["messages"][0]["content"]["text"].endswith("Oslo?")
    assert server.requests[-1][0] == "DELETE"
    assert await world.balance(agent) == 1_000_000 - COUNTED
