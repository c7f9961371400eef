"""The rows of docs/who-pays.md about tools of MCP servers: what the server, the agent or the gateway does wrong.

A row is a play of the server's, in which the tool has the row's name, and a scene: most agents call and read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from tests.journeys.scenes import NOBODY, Scene, Seen, Stage, row
from tests.support.mcp_client import ACCEPT, NEWEST, call, opened, post, response
from tests.support.mcp_server import Conversation, Play

PLAYS: dict[str, Play] = {}
TOOLS = {"integration_type": "mcp", "api_url": None, "mcp_endpoint": "tools"}
RESULT = {"content": [{"type": "text", "text": "done"}]}
REFUSED = {"code": -32602, "message": "wrong arguments"}


def tool(name: str, scene: Scene | None = None, **shop: Any) -> Callable[[Play], Play]:
    """Register what the server does in a row, and what the agent does: by default it calls over MCP and reads."""

    def register(play: Play) -> Play:
        PLAYS[name] = play
        row(name, **{**TOOLS, **shop})(scene or _calls(name))
        return play

    return register


def _calls(name: str) -> Scene:
    async def scene(stage: Stage) -> Seen:
        return await called(stage, name)

    return scene


async def called(stage: Stage, name: str, **options: Any) -> Seen:
    """Call a tool in a session, and read what came."""
    session = await opened(stage.gateway, stage.shop, stage.agent)
    message = call(name, progressToken=1)
    return read(await post(stage.gateway, stage.shop, message, stage.agent, mcp_session_id=session, **options))


def read(answer: httpx.Response) -> Seen:
    """What an MCP client reads: the status, our problem's name, and the cost that a result says."""
    said = response(answer)
    data = said.get("error", {}).get("data") or {}
    cost = said.get("result", {}).get("_meta", {}).get("tollway/cost", {}).get("amount")
    return Seen(answer.status_code, True, str(data.get("type", "")).removeprefix("/problems/"), cost)


def by_http(name: str) -> Scene:
    """Call a tool by plain HTTP."""

    async def scene(stage: Stage) -> Seen:
        answer = await stage.gateway.client.post(stage.path(f"/{name}"), headers=stage.agent.headers, json={})
        ours = answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()["type"].removeprefix("/problems/") if ours else ""
        return Seen(answer.status_code, True, problem, answer.headers["x-cost"])

    return scene


# --- It answers ---


@tool("tool-result")
async def _(came: Conversation) -> None:
    await came.begin_stream()
    await came.progress()
    await came.event(came.response(RESULT))
    await came.end_stream()


@tool("tool-result-by-http", by_http("tool-result-by-http"))
async def _(came: Conversation) -> None:
    await came.json(came.response(RESULT))


@tool("tool-error")
async def _(came: Conversation) -> None:
    await came.json(came.response({**RESULT, "isError": True}))


@tool("tool-error-by-http", by_http("tool-error-by-http"))
async def _(came: Conversation) -> None:
    await came.json(came.response({**RESULT, "isError": True}))


@tool("tool-refused")
async def _(came: Conversation) -> None:
    await came.json(came.response(error=REFUSED))


@tool("tool-refused-by-http", by_http("tool-refused-by-http"))
async def _(came: Conversation) -> None:
    await came.json(came.response(error=REFUSED))


async def _newest(stage: Stage) -> Seen:
    message = call("tool-asks-back")
    return read(await post(stage.gateway, stage.shop, message, stage.agent, mcp_protocol_version=NEWEST))


@tool("tool-asks-back", _newest)
async def _(came: Conversation) -> None:
    await came.json(came.response({"resultType": "input_required", "inputRequests": {}}))


@tool("tool-progress-then-error")
async def _(came: Conversation) -> None:
    await came.begin_stream()
    await came.progress()
    await came.event(came.response(error=REFUSED))
    await came.end_stream()


# --- It gives no answer ---


@tool("tool-unreachable", mcp_endpoint=f"{NOBODY}/mcp", scene=by_http("tool-unreachable"))
async def _(_came: Conversation) -> None:
    raise AssertionError("nobody is there")


@tool("tool-silent", first_byte_timeout_seconds=0.3)
async def _(_came: Conversation) -> None:
    await asyncio.sleep(3600)


@tool("tool-falls-silent", idle_timeout_seconds=0.3)
async def _(came: Conversation) -> None:
    await came.begin_stream()
    await came.progress()
    await asyncio.sleep(3600)


@tool("tool-never-ends", total_timeout_seconds=1)
async def _(came: Conversation) -> None:
    await came.begin_stream()
    for step in range(3600):
        await came.progress(step)
        await asyncio.sleep(0.05)


@tool("tool-breaks-off")
async def _(came: Conversation) -> None:
    await came.begin_stream()
    await came.progress()
    came.writer.transport.abort()


@tool("tool-stream-ends")
async def _(came: Conversation) -> None:
    await came.begin_stream()
    await came.progress()
    await came.end_stream()


@tool("tool-no-mcp")
async def _(came: Conversation) -> None:
    await came.status(200, b"<h1>Welcome</h1>", "text/html")


@tool("tool-4xx")
async def _(came: Conversation) -> None:
    await came.status(403, b"<h1>Forbidden</h1>", "text/html")


@tool("tool-5xx")
async def _(came: Conversation) -> None:
    await came.status(503, b"<h1>Later</h1>", "text/html")


@tool("tool-session-lost")
async def _(came: Conversation) -> None:
    await came.status(404, b"no such session")


# --- The agent cancels or leaves ---


async def _cancelled(stage: Stage, name: str) -> Seen:
    session = await opened(stage.gateway, stage.shop, stage.agent)
    stage.tools.begun.clear()
    message = call(name, 7, progressToken=1)
    running = asyncio.ensure_future(post(stage.gateway, stage.shop, message, stage.agent, mcp_session_id=session))
    await stage.tools.begun.wait()
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    assert (await post(stage.gateway, stage.shop, cancel, stage.agent, mcp_session_id=session)).status_code == 202
    stage.tools.go_on.set()
    return read(await running)


@tool("tool-cancelled", lambda stage: _cancelled(stage, "tool-cancelled"))
async def _(came: Conversation) -> None:
    await came.begin_stream()
    await came.progress()
    await came.server.go_on.wait()
    await came.end_stream()


@tool("tool-cancelled-too-late", lambda stage: _cancelled(stage, "tool-cancelled-too-late"))
async def _(came: Conversation) -> None:
    await came.begin_stream()
    await came.progress()
    await came.server.go_on.wait()
    await came.event(came.response(RESULT))
    await came.end_stream()


async def _left(stage: Stage, name: str, **fields: str) -> None:
    if not fields:
        fields = {"Mcp-Session-Id": await opened(stage.gateway, stage.shop, stage.agent)}
    headers = ACCEPT | stage.agent.headers | fields
    async with (
        httpx.AsyncClient(base_url=stage.gateway.url) as client,
        client.stream("POST", stage.path("/mcp"), json=call(name, progressToken=1), headers=headers) as answer,
    ):
        async for line in answer.aiter_lines():
            if "notifications/progress" in line:
                break
    stage.tools.go_on.set()


@tool("tool-left", lambda stage: _left(stage, "tool-left"))
async def _(came: Conversation) -> None:
    await came.begin_stream()
    await came.progress()
    await came.server.go_on.wait()
    await came.event(came.response(RESULT))
    await came.end_stream()


@tool(
    "tool-left-by-the-newest", lambda stage: _left(stage, "tool-left-by-the-newest", **{"MCP-Protocol-Version": NEWEST})
)
async def _(came: Conversation) -> None:
    await came.begin_stream()
    await came.progress()
    await asyncio.sleep(3600)


# --- The gateway stops ---


async def _killed(stage: Stage) -> None:
    session = await opened(stage.gateway, stage.shop, stage.agent)
    stage.tools.begun.clear()
    running = asyncio.ensure_future(
        post(stage.gateway, stage.shop, call("tool-killed"), stage.agent, mcp_session_id=session)
    )
    await stage.tools.begun.wait()
    await stage.gateway.kill()
    (failure,) = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(failure, httpx.TransportError)


@tool("tool-killed", _killed, kill="by the scene")
async def _(_came: Conversation) -> None:
    await asyncio.sleep(3600)
