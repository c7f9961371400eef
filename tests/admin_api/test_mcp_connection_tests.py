"""Owners try their MCP server: a session, its tools, how many of them are for sale, and why it does not work."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.admin_api.conftest import SECRET, Api, Clerk
from tests.admin_api.test_connection_tests import path_of
from tests.support.mcp_server import CREDENTIAL, Conversation, Play, PublishersServer, ScriptedMcpServer


async def test_a_server_is_tried_before_there_is_a_publisher(
    api: Api, clerk: Clerk, mcp_server: PublishersServer
) -> None:
    owner = await clerk.agent()
    mcp_server.forget()
    body = {"mcp_endpoint": mcp_server.url, "api_headers": {"X-Secret": SECRET}}
    answer = await api.call("POST", path_of(owner), owner.key, json=body, expect=200)
    data = answer.json()["data"]
    assert (data["ok"], data["outcome"], data["status"]) == (True, "answered", 200)
    assert data["mcp"] == {"version": "2025-06-18", "tools": 7, "for_sale": None}
    assert data["detail"] == "The server speaks MCP 2025-06-18 and lists 7 tools."
    assert all(isinstance(took, int) for took in data["times"].values())
    assert [method for method, _ in mcp_server.requests] == ["POST", "POST", "POST", "DELETE"], "the session is ended"
    assert {fields["x-secret"] for _, fields in mcp_server.requests} == {SECRET}
    assert SECRET not in answer.text


async def test_a_publisher_is_told_how_many_of_its_tools_are_for_sale(
    api: Api, clerk: Clerk, mcp_server: PublishersServer
) -> None:
    owner = await clerk.agent()
    protected = {"method": "POST", "path": "/hidden", "is_protected": True, "protection_reason": "Not for sale."}
    made = await clerk.publisher(
        owner, api_url=..., integration_type="mcp", mcp_endpoint=mcp_server.url, endpoints=[protected],
        api_headers={"Authorization": CREDENTIAL},
    )  # fmt: skip
    data = (await api.call("POST", path_of(owner, made["id"]), owner.key, json={}, expect=200)).json()["data"]
    assert (data["ok"], data["mcp"]["tools"], data["mcp"]["for_sale"]) == (True, 7, 6)
    assert data["detail"].endswith("lists 7 tools, 6 of them for sale.")
    assert mcp_server.requests[-1][1]["authorization"] == CREDENTIAL


async def test_what_a_server_was_seen_to_have_is_shown_until_it_is_another(
    api: Api, clerk: Clerk, mcp_server: PublishersServer
) -> None:
    owner = await clerk.agent()
    protected = {"method": "POST", "path": "/Hidden", "is_protected": True, "protection_reason": "Not for sale."}
    documented = {"method": "POST", "path": "/forecast", "description": "In the publisher's words"}
    made = await clerk.publisher(
        owner, api_url=..., integration_type="mcp", mcp_endpoint=mcp_server.url, endpoints=[protected, documented],
    )  # fmt: skip
    assert made["mcp_capabilities"] is None
    path, slug = f"/organizations/{owner.organization_id}/publishers/{made['id']}", made["slug"]

    async def mine(**changes: Any) -> dict[str, Any]:
        method, body = ("PUT", {"json": changes}) if changes else ("GET", {})
        return (await api.call(method, path, owner.key, **body, expect=200)).json()["data"]

    async def buyers() -> Any:
        return (await api.call("GET", f"/publishers/{slug}", expect=200)).json()["data"]["mcp_capabilities"]

    await api.call("POST", path_of(owner, made["id"]), owner.key, json={}, expect=200)
    shown = await mine()
    found, updated_at = shown["mcp_capabilities"], shown["updated_at"]
    assert (found["version"], updated_at) == ("2025-06-18", made["updated_at"])
    assert [one["name"] for one in found["tools"]] == [
        "forecast", "free_tip", "failing", "hidden", "counted", "slow", "asking"
    ]  # fmt: skip
    assert found["tools"][0] == {"name": "forecast", "description": "The weather of the next days."}
    assert found["resources"] == [{"uri": "weather://stations", "name": "stations", "description": "Every station."}]
    assert found["prompts"] == [{"name": "pack", "description": "What to pack."}]

    assert [one["name"] for one in (await buyers())["tools"]] == [
        "forecast", "free_tip", "failing", "counted", "slow", "asking"
    ]  # fmt: skip
    page = (await api.call("GET", f"/store/{slug}", expect=200)).text
    assert "its server had 1 resource and 1 prompt," in page
    assert "<code>free_tip</code>" in page
    assert not re.search("<code>(hidden|forecast)</code>", page)

    await mine(undocumented_endpoint_policy="default_deny")
    assert [one["name"] for one in (await buyers())["tools"]] == ["forecast"]
    assert (await mine(name="Another name", mcp_endpoint=mcp_server.url))["mcp_capabilities"] == found
    assert (await mine(mcp_endpoint="http://127.0.0.1:1/mcp"))["mcp_capabilities"] is None
    await api.call("POST", path_of(owner, made["id"]), owner.key, json={}, expect=200)
    assert (await buyers()) is None


async def test_what_a_server_says_of_itself_is_kept_as_short_plain_text(
    api: Api, clerk: Clerk, odd_mcp: ScriptedMcpServer
) -> None:
    async def many(came: Conversation) -> None:
        names = ["fine", "../up", "in\nvisible", 7, None, *(f"tool{number}" for number in range(400))]
        text = "a\u0000b\u202ec\n<b>" + "x" * 5_000
        await came.json(came.response({"tools": [{"name": name, "description": text} for name in names]}))

    async def broken(came: Conversation) -> None:
        await came.status(500)

    odd_mcp.forget()
    odd_mcp.plays.update({"tools/list": many, "resources/list": broken})
    owner = await clerk.agent()
    made = await clerk.publisher(owner, api_url=..., integration_type="mcp", mcp_endpoint=odd_mcp.url)
    tried = (await api.call("POST", path_of(owner, made["id"]), owner.key, json={}, expect=200)).json()["data"]
    assert (tried["ok"], tried["status"]) == (True, 200)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    found = (await api.call("GET", path, owner.key, expect=200)).json()["data"]["mcp_capabilities"]
    assert [one["name"] for one in found["tools"]] == ["fine", *(f"tool{number}" for number in range(199))]
    assert found["tools"][0]["description"].startswith("a b c <b>xxx")
    assert {len(one["description"]) for one in found["tools"]} == {300}
    assert (found["resources"], found["prompts"]) == (None, [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"undocumented_endpoint_policy": "default_deny"}, "none of them for sale"),
        ({"billing_model": "x402_passthrough"}, "has the billing model x402_passthrough, by which tools are not sold"),
    ],
    ids=["default-deny", "billing-model"],
)
async def test_a_publisher_that_sells_none_of_its_tools_is_told_why(
    api: Api, clerk: Clerk, mcp_server: PublishersServer, changes: dict[str, Any], said: str
) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, api_url=..., integration_type="mcp", mcp_endpoint=mcp_server.url, **changes)
    data = (await api.call("POST", path_of(owner, made["id"]), owner.key, json={}, expect=200)).json()["data"]
    assert (data["ok"], data["outcome"]) == (False, "nothing_for_sale")
    assert said in data["detail"]


def status(number: int, body: bytes = b"<p>nothing of MCP</p>", *fields: str) -> Play:
    async def play(came: Conversation) -> None:
        await came.status(number, body, "text/html", *fields)

    return play


async def no_message(came: Conversation) -> None:
    await came.json({"hello": "world"})


async def another_id(came: Conversation) -> None:
    await came.json(came.response({"protocolVersion": "2025-06-18"}, number=77))


async def refuses(came: Conversation) -> None:
    await came.json(came.response(error={"code": -32602, "message": f"a secret: {SECRET}"}), status=400)


async def refuses_kindly(came: Conversation) -> None:
    await came.json(came.response(error={"code": -32602, "message": f"a secret: {SECRET}"}))


async def without_tools(came: Conversation) -> None:
    await came.json(came.response(error={"code": -32601, "message": "no tools"}))


@pytest.mark.parametrize(
    ("plays", "outcome", "said"),
    [
        ({"initialize": status(200)}, "not_mcp", "neither JSON nor an event stream"),
        ({"initialize": status(404)}, "not_mcp", "no MCP server at this path"),
        ({"initialize": status(405)}, "not_mcp", "old HTTP+SSE transport"),
        ({"initialize": status(307, b"", "Location: /elsewhere")}, "not_mcp", "redirects are not followed"),
        ({"initialize": status(401)}, "unauthorized", "refuses the credentials"),
        ({"tools/list": status(403)}, "unauthorized", "refuses the credentials"),
        ({"initialize": status(503)}, "server_error", "answered 503"),
        ({"tools/list": status(500)}, "server_error", "answered 500"),
        ({"initialize": no_message}, "not_mcp", "ended without a response"),
        ({"initialize": another_id}, "not_mcp", "ended without a response"),
        ({"initialize": refuses}, "not_mcp", "answered 400"),
        ({"initialize": refuses_kindly}, "mcp_refused", "refuses to open a session (JSON-RPC error -32602)"),
        ({"tools/list": refuses_kindly}, "mcp_refused", "refuses to list its tools (JSON-RPC error -32602)"),
        ({"tools/list": without_tools}, "no_tools", "lists no tools"),
        ({}, "no_tools", "lists no tools"),
    ],
)
async def test_why_a_server_is_none(
    api: Api, clerk: Clerk, odd_mcp: ScriptedMcpServer, plays: dict[str, Play], outcome: str, said: str
) -> None:
    odd_mcp.forget()
    odd_mcp.plays.update(plays)
    owner = await clerk.agent()
    answer = await api.call("POST", path_of(owner), owner.key, json={"mcp_endpoint": odd_mcp.url}, expect=200)
    data = answer.json()["data"]
    assert (data["ok"], data["outcome"]) == (False, outcome), data
    assert said in data["detail"]
    assert SECRET not in answer.text


@pytest.mark.parametrize("version", ["1999-01-01", ["2025-06-18"], {"a": 1}, None, "2025-06-18\r\nX: y"])
async def test_a_version_that_is_not_known_is_said_and_not_used(
    api: Api, clerk: Clerk, odd_mcp: ScriptedMcpServer, version: Any
) -> None:
    odd_mcp.forget()
    odd_mcp.version = version
    owner = await clerk.agent()
    answer = await api.call("POST", path_of(owner), owner.key, json={"mcp_endpoint": odd_mcp.url}, expect=200)
    assert answer.json()["data"]["outcome"] == "mcp_version"
    assert [one["method"] for one in odd_mcp.messages] == ["initialize"]


@pytest.mark.parametrize(
    ("url", "outcome"),
    [("http://127.0.0.1:1/mcp", "connect_failed"), ("https://10.0.0.1/mcp", "address_refused")],
)
async def test_why_a_server_cannot_be_reached(api: Api, clerk: Clerk, url: str, outcome: str) -> None:
    owner = await clerk.agent()
    data = (await api.call("POST", path_of(owner), owner.key, json={"mcp_endpoint": url}, expect=200)).json()["data"]
    assert (data["ok"], data["outcome"], data["mcp"]) == (False, outcome, None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"mcp_endpoint": "https://example.com/mcp", "api_url": "https://example.com"}, "api_url"),
        ({"mcp_endpoint": "https://example.com/mcp", "path": "/tools"}, "path"),
        ({"mcp_endpoint": "http://example.com/mcp"}, "mcp_endpoint"),
        ({"mcp_endpoint": "mcp"}, "mcp_endpoint"),
    ],
)
async def test_what_is_no_test_is_refused_by_field(api: Api, clerk: Clerk, body: dict[str, Any], field: str) -> None:
    owner = await clerk.agent()
    problem = (await api.call("POST", path_of(owner), owner.key, json=body, expect=400)).json()
    assert problem["errors"][0]["field"] == field
