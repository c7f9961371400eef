"""What API keys may do: what their scopes name, in their organization, and never more than what made them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.admin_api.conftest import Api, Clerk
from tests.admin_api.test_organizations import shared

KEYS = "/organizations/default/api-keys"


async def made(api: Api, key: str, path: str = KEYS, **body: Any) -> dict[str, Any]:
    return (await api.call("POST", path, key, json={"name": "k", **body}, expect=201)).json()["data"]


async def test_scopes_are_shown_and_hold(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    base = f"/organizations/{owner.organization_id}"
    narrow = await made(api, owner.key, scopes=["publishers.read", "wallet.read", "publishers.read"])
    assert narrow["scopes"] == ["publishers.read", "wallet.read"]
    listed = (await api.call("GET", KEYS, owner.key)).json()["data"]
    assert [one["scopes"] for one in listed] == [narrow["scopes"], None]
    key = narrow["api_key"]
    await api.call("GET", f"{base}/publishers", key, expect=200)
    await api.call("GET", "/wallet/balance", key, expect=200)
    assert (await api.call("GET", f"{base}/permissions/mine", key)).json() == ["publishers.read"]
    for method, path in (("POST", f"{base}/publishers"), ("GET", KEYS), ("POST", "/wallet/recovery")):
        problem = (await api.call(method, path, key, json={} if method == "POST" else None, expect=403)).json()
        assert "scopes" in problem["detail"]


@pytest.mark.parametrize("scopes", [["made.up"], ["buy", ""], "buy"])
async def test_unknown_scopes_are_refused(api: Api, clerk: Clerk, scopes: Any) -> None:
    owner = await clerk.agent()
    problem = (await api.call("POST", KEYS, owner.key, json={"name": "k", "scopes": scopes}, expect=400)).json()
    assert problem["errors"][0]["field"] == "scopes"


async def test_a_key_makes_none_that_may_more(api: Api, clerk: Clerk) -> None:
    owner, editor = await clerk.agent(), await clerk.agent()
    maker = (await made(api, owner.key, scopes=["api_keys.create", "buy"], expires_in_days=10))["api_key"]
    # Neither by asking for more, nor by asking for nothing, nor by living longer.
    for scopes in (["publishers.write"], ["buy", "wallet.read"]):
        await api.call("POST", KEYS, maker, json={"name": "k", "scopes": scopes}, expect=403)
    await api.call("POST", KEYS, maker, json={"name": "k", "expires_in_days": 11}, expect=403)
    heir = await made(api, maker)
    assert heir["scopes"] == ["api_keys.create", "buy"]
    parent = (await api.call("GET", KEYS, owner.key)).json()["data"][1]
    assert heir["expires_at"] == parent["expires_at"]
    shorter = await made(api, maker, scopes=["buy"], expires_in_days=3)
    born, ends = (datetime.fromisoformat(shorter[name]) for name in ("created_at", "expires_at"))
    assert ends - born < timedelta(days=4)
    # What a role does not hold, no key of it holds.
    await clerk.join(editor, owner.organization_id, "editor")
    path = f"/organizations/{owner.organization_id}/api-keys"
    await api.call("POST", path, editor.key, json={"name": "k", "scopes": ["payouts.create"]}, expect=403)


async def test_a_key_loses_what_its_owner_loses(api: Api, clerk: Clerk) -> None:
    owner, editor = await clerk.agent(), await clerk.agent()
    base = f"/organizations/{owner.organization_id}"
    await clerk.join(editor, owner.organization_id, "editor")
    key = (await made(api, editor.key, f"{base}/api-keys", scopes=["publishers.read", "publishers.write"]))["api_key"]
    order = clerk.order()
    await api.call("POST", f"{base}/publishers", key, json=order, expect=201)
    await api.call("PUT", f"{base}/members/{editor.id}/role", owner.key, json={"role_name": "viewer"}, expect=200)
    await api.call("POST", f"{base}/publishers", key, json=clerk.order(), expect=403)
    await api.call("GET", f"{base}/publishers", key, expect=200)


async def test_a_key_of_a_shared_organization_acts_in_that_one_only(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    base = await shared(api, owner)
    key = (await made(api, owner.key, f"{base}/api-keys"))["api_key"]
    await api.call("GET", f"{base}/publishers", key, expect=200)
    others = [f"/organizations/{owner.organization_id}/publishers", f"{await shared(api, owner)}/publishers"]
    told = [await api.call("GET", path, key, expect=403) for path in others]
    told.append(
        await api.call("GET", "/organizations/01890000-0000-7000-8000-000000000000/publishers", key, expect=403)
    )
    assert len({str({**answer.json(), "instance": ""}) for answer in told}) == 1
    await api.call("GET", KEYS, key, expect=403)
    # Nor does it manage the account: a recovery code would be a way to every organization.
    await api.call("POST", "/wallet/recovery", key, json={}, expect=403)
    await api.call("POST", "/organizations", key, json={"name": "another"}, expect=403)
    await api.call("POST", f"{base}/leave", key, expect=403)
    body = {"name": "k", "scopes": ["account.manage"]}
    await api.call("POST", f"{base}/api-keys", owner.key, json=body, expect=403)
    await api.call("GET", "/wallet/balance", key, expect=200)


async def test_scopes_change_and_hold_at_once(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    key = await made(api, owner.key)
    path, publishers = f"{KEYS}/{key['id']}", f"/organizations/{owner.organization_id}/publishers"
    await api.call("GET", publishers, key["api_key"], expect=200)
    told = (await api.call("PATCH", path, owner.key, json={"scopes": ["wallet.read"]}, expect=200)).json()["data"]
    assert told["scopes"] == ["wallet.read"]
    await api.call("GET", publishers, key["api_key"], expect=403)
    await api.call("GET", "/wallet/balance", key["api_key"], expect=200)
    await api.call("PATCH", path, owner.key, json={"budget": {"per_day": "1"}}, expect=200)
    told = (await api.call("PATCH", path, owner.key, json={"scopes": None}, expect=200)).json()["data"]
    assert (told["scopes"], told["budget"]["per_day"]) == (None, "1")
    await api.call("GET", publishers, key["api_key"], expect=200)
    problem = (await api.call("PATCH", path, owner.key, json={"scopes": ["made.up"]}, expect=400)).json()
    assert problem["errors"][0]["field"] == "scopes"


async def test_no_key_widens_itself_or_another_beyond_itself(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    narrow = await made(api, owner.key, scopes=["api_keys.update", "buy"])
    other = await made(api, owner.key, scopes=["buy"])
    paths = [f"{KEYS}/{one['id']}" for one in (narrow, other)]
    for path, scopes in ((paths[0], ["buy"]), (paths[0], None), (paths[1], ["buy", "wallet.read"])):
        await api.call("PATCH", path, narrow["api_key"], json={"scopes": scopes}, expect=403)
    # Everything that a narrow key may is what the other one may, too.
    told = (await api.call("PATCH", paths[1], narrow["api_key"], json={"scopes": None}, expect=200)).json()["data"]
    assert told["scopes"] == ["api_keys.update", "buy"]


async def test_keys_of_other_members_can_only_be_narrowed(api: Api, clerk: Clerk) -> None:
    owner, editor = await clerk.agent(), await clerk.agent()
    base = await shared(api, owner)
    await clerk.join(editor, base.rsplit("/", 1)[1], "editor")
    theirs = await made(api, editor.key, f"{base}/api-keys", scopes=["publishers.read", "webhooks.read"])
    path = f"{base}/api-keys/{theirs['id']}"
    for scopes in (["publishers.read", "buy"], None):
        await api.call("PATCH", path, owner.key, json={"scopes": scopes}, expect=403)
    await api.call("PATCH", path, owner.key, json={"scopes": ["webhooks.read"]}, expect=200)
    await api.call("GET", f"{base}/publishers", theirs["api_key"], expect=403)
    await api.call("PATCH", path, editor.key, json={"scopes": ["account.manage"]}, expect=403)


@pytest.mark.parametrize(
    "limits",
    [{"expires_in_days": 3}, {"ip_allow_list": ["203.0.113.0/24"]}, {"scopes": ["account.manage", "wallet.read"]}],
)
async def test_a_key_with_a_limit_makes_no_recovery_code(api: Api, clerk: Clerk, limits: dict[str, Any]) -> None:
    owner = await clerk.agent()
    key = (await made(api, owner.key, **limits))["api_key"]
    problem = (await api.call("POST", "/wallet/recovery", key, json={}, expect=403)).json()
    assert "recovery code" in problem["detail"]
    await api.call("POST", "/wallet/recovery", owner.key, json={}, expect=200)
