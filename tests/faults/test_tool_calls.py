"""A gateway killed while a tool of an MCP server runs, and at every step of its call: its price is paid for a result, or
given back, once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import pytest

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.mcp_client import call, opened, post, response
from tests.support.mcp_server import Conversation, ScriptedMcpServer, selling
from tests.support.services import Services
from tests.support.world import Agent, Shop, World

pytestmark = [pytest.mark.usefixtures("sound_books"), pytest.mark.slow]

FUNDS, PRICE = 1_000_000, 10_000
RESULT = {"content": [{"type": "text", "text": "done"}]}


async def through_mcp(gateway: RunningGateway, shop: Shop, agent: Agent, key: str) -> tuple[int, Any]:
    """Call the tool as an MCP client does; returns the status of a problem, or 200, and the text of the result."""
    session = await opened(gateway, shop, agent)
    meta = {"tollway/idempotency-key": key} if key else {}
    said = response(await post(gateway, shop, call("slow", **meta), agent, mcp_session_id=session))
    if "error" in said:
        return said["error"]["data"]["status"], said
    return 200, said["result"]["content"][0]["text"]


async def by_http(gateway: RunningGateway, shop: Shop, agent: Agent, key: str) -> tuple[int, Any]:
    headers = agent.headers | ({"Idempotency-Key": key} if key else {})
    answer = await gateway.client.post(f"/publishers/{shop.slug}/slow", headers=headers, json={})
    found = answer.json()
    return answer.status_code, found["content"][0]["text"] if answer.status_code == 200 else found


@pytest.mark.parametrize("way", [through_mcp, by_http], ids=["mcp", "http"])
@pytest.mark.parametrize(
    ("point", "key"),
    [
        ("the tool runs", ""),
        ("the tool runs", "once"),
        ("claim.after", "once"),
        ("authorize.before", ""),
        ("authorize.after", ""),
        ("authorize.after", "once"),
        ("forward.after", ""),
        ("forward.after", "once"),
        ("store.before", "once"),
        ("store.after", "once"),
        ("deliver.after", ""),
    ],
)
async def test_killed_when(
    point: str,
    key: str,
    way: Any,
    services: Services,
    database_url: str,
    world: World,
    connection: Connection,
    odd_mcp: ScriptedMcpServer,
) -> None:
    async def slow(came: Conversation) -> None:
        if point == "the tool runs":
            await odd_mcp.go_on.wait()
        await came.json(came.response(RESULT))

    odd_mcp.forget()
    odd_mcp.plays["slow"] = slow
    agent, shop = await world.agent(FUNDS), await world.publisher(PRICE, **selling(odd_mcp))
    settings = {} if point == "the tool runs" else {"FAULT": f"{point}:kill"}
    doomed = await start_gateway(services, database_url, MONEY_DEAD_AFTER="1", **settings)
    running = asyncio.ensure_future(way(doomed, shop, agent, key))
    if point == "the tool runs":
        await odd_mcp.begun.wait()
        assert await world.balance(agent) == FUNDS - PRICE, "paid before the server heard of it"
        await doomed.kill()
    with contextlib.suppress(httpx.TransportError):
        await running
    await asyncio.to_thread(doomed.process.wait, 30)
    await doomed.kill()
    runs = odd_mcp.called("slow")
    odd_mcp.go_on.set()
    healed = await start_gateway(services, database_url, MONEY_DEAD_AFTER="1")
    try:
        async with asyncio.timeout(60):
            while (await proof.verify(connection)).open_exchanges:
                await asyncio.sleep(0.1)
        kept = point == "store.after"
        assert await world.balance(agent) == FUNDS - (PRICE if kept else 0)
        if key:
            while (found := await way(healed, shop, agent, key))[0] == 409:
                await asyncio.sleep(0.1)
            assert found == (200, "done")
            assert odd_mcp.called("slow") == runs + (not kept)
            async with asyncio.timeout(60):
                while await world.balance(agent) != FUNDS - PRICE:
                    await asyncio.sleep(0.02)
    finally:
        await healed.stop()
