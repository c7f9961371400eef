"""The demo's MCP server: official clients use it as it is, and it says what it does not do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from gateway.devservices.processes import free_port
from tests.devservices.test_upstreams import _start


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    number = free_port()
    process: subprocess.Popen[bytes] = _start(number)
    yield f"http://127.0.0.1:{number}/mcp"
    process.terminate()
    assert process.wait(10) == 0


@pytest.fixture(params=["legacy", "auto"])
def connecting(url: str, request: pytest.FixtureRequest) -> Client:
    """The client, to be entered in the task that leaves it again."""
    return Client(streamable_http_client(url), mode=request.param)


async def test_the_official_client_lists_what_there_is(connecting: Client) -> None:
    async with connecting as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"list_symbols", "price_report", "find_character"}
        assert tools["price_report"].input_schema["required"] == ["symbol"]
        assert [str(one.uri) for one in (await client.list_resources()).resources] == ["market://symbols"]
        assert "ACME" in (await client.read_resource("market://symbols")).contents[0].text
        assert [one.name for one in (await client.list_prompts()).prompts] == ["compare_stocks"]
        asked = await client.get_prompt("compare_stocks", {"first": "ACME", "second": "BOLT"})
        assert asked.messages[0].content.text.startswith("Compare ACME with BOLT")


async def test_the_official_client_calls_its_tools(connecting: Client) -> None:
    async with connecting as client:
        seen: list[float] = []

        async def progress(done: float, _total: float | None, _message: str | None) -> None:
            seen.append(done)

        arguments = {"symbol": "acme", "first": "2026-01-01", "last": "2026-01-30"}
        report = await client.call_tool("price_report", arguments, progress_callback=progress)
        assert seen == [1]
        assert report.structured_content["lowest"] <= report.structured_content["average"]
        assert (report.structured_content["first"], report.structured_content["last"]) == ("2026-01-01", "2026-01-30")
        assert json.loads(report.content[0].text) == report.structured_content
        found = await client.call_tool("find_character", {"words": "snowman"})
        assert found.structured_content["results"][0]["code_point"] == "U+2603"
        assert "ACME" in (await client.call_tool("list_symbols")).structured_content["symbols"]


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("price_report", {"symbol": "NONE"}),
        ("price_report", {"symbol": "ACME", "first": "yesterday"}),
        ("price_report", {"symbol": "ACME", "first": "2026-01-02", "last": "2026-01-01"}),
        ("find_character", {"words": " "}),
    ],
)
async def test_what_a_tool_cannot_do_is_a_result_that_says_so(
    connecting: Client, tool: str, arguments: dict[str, Any]
) -> None:
    async with connecting as client:
        found = await client.call_tool(tool, arguments)
    assert found.is_error
    assert found.content[0].text


async def test_what_is_not_there_is_an_error(connecting: Client) -> None:
    async with connecting as client:
        with pytest.raises(MCPError, match="there is no tool nothing"):
            await client.call_tool("nothing")
        with pytest.raises(MCPError, match="there is no resource"):
            await client.read_resource("market://nothing")
        with pytest.raises(MCPError, match="only compare_stocks"):
            await client.get_prompt("nothing")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"nothing", 400, -32700),
        (b"[]", 400, -32600),
        (b'{"jsonrpc":"2.0","id":1}', 400, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"nothing"}', 200, -32601),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_symbols","arguments":[1]}}',
            200,
            -32602,
        ),
    ],
)
def test_what_is_no_request_is_refused(url: str, body: bytes, status: int, code: int) -> None:
    answer = httpx.post(url, content=body, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_notification_is_taken_and_nothing_else_than_messages(url: str) -> None:
    note = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
    assert httpx.post(url, content=note, trust_env=False).status_code == 202
    answer = httpx.get(url, trust_env=False)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
