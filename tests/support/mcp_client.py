"""MCP clients of the gateway: the official SDK's, and single messages on the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from tests.support.gateway import RunningGateway
from tests.support.world import Agent, Shop

ACCEPT = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
VERSION = "2025-06-18"
NEWEST = "2026-07-28"


def request(method: str, params: Any = None, number: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method} | ({} if params is None else {"params": params})


def call(tool: str = "forecast", number: Any = 1, **meta: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": {"city": "Oslo"} if tool == "forecast" else {}}
    return request("tools/call", params | ({"_meta": meta} if meta else {}), number)


async def post(
    gateway: RunningGateway, shop: Shop, message: Any, agent: Agent | None = None, **fields: str
) -> httpx.Response:
    headers = (
        ACCEPT | (agent.headers if agent else {}) | {name.replace("_", "-"): value for name, value in fields.items()}
    )
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return await gateway.client.post(f"/publishers/{shop.slug}/mcp", content=body, headers=headers)


async def opened(gateway: RunningGateway, shop: Shop, agent: Agent | None = None) -> str:
    """Open a session and return its id."""
    client = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    answer = await post(gateway, shop, request("initialize", client), agent)
    assert "mcp-session-id" in answer.headers, (answer.status_code, answer.headers, answer.text)
    session = answer.headers["mcp-session-id"]
    begun = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await post(gateway, shop, begun, agent, mcp_session_id=session)).status_code == 202
    return session


def response(answer: httpx.Response) -> dict[str, Any]:
    """The JSON-RPC response in an answer of either form."""
    if answer.headers["content-type"].startswith("application/json"):
        return answer.json()
    return json.loads(answer.text.strip().rpartition("data: ")[2])


@asynccontextmanager
async def connected(
    gateway: RunningGateway, shop: Shop, agent: Agent | None = None, mode: str = "legacy", **options: Any
) -> AsyncIterator[Client]:
    """The official client at the gateway's endpoint."""
    headers = {} if agent is None else agent.headers
    async with create_mcp_http_client(headers) as http:
        transport = streamable_http_client(f"{gateway.url}/publishers/{shop.slug}/mcp", http_client=http)
        async with Client(transport, mode=mode, **options) as client:
            yield client
