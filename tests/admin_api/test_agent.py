"""Registration: everything at once, names, and what is refused."""

from __future__ import annotations

import re

import pytest

from tests.admin_api.conftest import PUBLIC_URL, Api, Clerk


async def test_a_registered_agent_can_use_its_key_wallet_and_organization_at_once(api: Api) -> None:
    answer = await api.call("POST", "/auth/agent", json={}, expect=201)
    data = answer.json()["data"]
    agent = data["agent"]
    assert re.fullmatch(r"[a-z]+-[a-z]+-[0-9a-f]{4}", agent["name"])
    assert re.fullmatch(r"seren_[0-9a-f]{16}_[A-Za-z0-9]{43}", agent["api_key"])
    assert (agent["status"], agent["user_type"], data["success"]) == ("active", "agent", True)
    assert agent["created_at"].endswith("Z")
    assert data["skill_files"]["skill_md"] == f"{PUBLIC_URL}/skill.md"
    assert answer.headers["x-request-id"]
    assert answer.headers["cache-control"] == "no-store"
    key = agent["api_key"]
    me = (await api.call("GET", "/auth/me", key, expect=200)).json()["data"]
    assert (me["id"], me["default_organization_id"]) == (agent["id"], agent["organization_id"])
    organizations = (await api.call("GET", "/organizations", key, expect=200)).json()["data"]
    assert [(one["id"], one["is_personal"]) for one in organizations] == [(agent["organization_id"], True)]
    keys = (await api.call("GET", "/organizations/default/api-keys", key, expect=200)).json()["data"]
    assert [one["name"] for one in keys] == ["agent"]
    balance = (await api.call("GET", "/wallet/balance", key, expect=200)).json()["data"]
    assert (balance["balance_atomic"], balance["balance_usd"]) == (0, "$0.00")
    assert balance["wallet_address"] == f"agent:{agent['id']}"


async def test_a_chosen_name_is_kept_and_taken_only_once(api: Api, clerk: Clerk) -> None:
    member = await clerk.agent(name="  Ada   Lovelace ")
    assert member.name == "Ada Lovelace"
    refused = await api.call("POST", "/auth/agent", json={"name": "ada lovelace"}, expect=409)
    assert refused.json()["type"] == "/problems/conflict"


@pytest.mark.parametrize("name", ["", "   ", "x" * 65, "a\u0007b", "a\u202eb", "a\u200bb", 7, ["x"], "x" * 300])
async def test_an_unusable_name_is_named(api: Api, name: object) -> None:
    problem = (await api.call("POST", "/auth/agent", json={"name": name}, expect=400)).json()
    assert problem["errors"][0]["field"] == "name"


async def test_a_body_is_required(api: Api) -> None:
    assert (await api.call("POST", "/auth/agent", expect=400)).json()["type"] == "/problems/invalid-request"
    assert (await api.call("POST", "/auth/agent", json=[], expect=400)).json()["title"] == "Invalid request"
    await api.call("POST", "/auth/agent", content=b"null", headers={"Content-Type": "application/json"}, expect=400)
