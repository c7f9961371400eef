"""Endpoints one by one: added, changed and removed, priced at once, and two changes at once are both there."""

import asyncio
from typing import Any

from gateway.catalog.tools import tool_reading
from tests.admin_api.conftest import Api, Clerk, Member
from tests.support.market import Market


def endpoints_of(owner: Member, made: dict[str, Any]) -> str:
    return f"/organizations/{owner.organization_id}/publishers/{made['id']}/endpoints"


async def test_one_is_added_changed_and_removed_and_calls_see_it_at_once(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, price_per_call="0.01")
    path = endpoints_of(owner, made)
    added = (
        await api.call(
            "POST", path, owner.key, expect=201, json={"method": "GET", "path": "/v1/items/{id}", "price": "0.05"}
        )
    ).json()["data"]
    assert (added["path"], added["price"]) == ("/v1/items/{id}", "0.05")
    again = {"method": "GET", "path": "/v1/items/{item}"}
    taken = await api.call("POST", path, owner.key, expect=409, json=again)
    assert taken.json()["endpoint_id"] == added["id"]
    one = f"{path}/{added['id']}"
    changes = {"price": None, "is_protected": True, "refund_rules": {"empty_result": True}}
    changed = (await api.call("PATCH", one, owner.key, expect=200, json=changes)).json()["data"]
    assert (changed["id"], changed["price"], changed["is_protected"]) == (added["id"], None, True)
    assert (await api.call("GET", one, owner.key, expect=200)).json()["data"] == changed
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    assert [endpoint.is_protected for endpoint in compiled.endpoints.listed] == [True]
    assert (await api.call("DELETE", one, owner.key, expect=200)).json() == {}
    assert (await api.call("GET", path, owner.key, expect=200)).json()["data"] == []
    for method in ("GET", "DELETE"):
        await api.call(method, one, owner.key, expect=404)
    await api.call("PATCH", one, owner.key, expect=404, json={"price": "1"})


async def test_changes_at_once_lose_nothing(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, endpoints=[{"method": "GET", "path": "/old", "price": "1"}])
    path = endpoints_of(owner, made)
    (old,) = (await api.call("GET", path, owner.key, expect=200)).json()["data"]
    orders = [
        api.call("POST", path, owner.key, json={"method": "GET", "path": f"/new/{number}", "is_default": True})
        for number in range(6)
    ]
    fields: list[dict[str, Any]] = [{"price": "2"}, {"description": "Changed"}, {"is_protected": True}]
    orders += [api.call("PATCH", f"{path}/{old['id']}", owner.key, json=one) for one in fields]
    assert {answer.status_code for answer in await asyncio.gather(*orders)} == {200, 201}
    listed = (await api.call("GET", path, owner.key, expect=200)).json()["data"]
    assert {one["path"] for one in listed} == {"/old", *(f"/new/{number}" for number in range(6))}
    assert (listed[0]["price"], listed[0]["description"], listed[0]["is_protected"]) == ("2", "Changed", True)
    assert sum(one["is_default"] for one in listed) == 1


async def test_what_no_list_may_have_is_refused(api: Api, clerk: Clerk) -> None:
    owner, stranger = await clerk.agent(), await clerk.agent()
    made = await clerk.publisher(owner, endpoints=[{"method": "GET", "path": "/x"}])
    path = endpoints_of(owner, made)
    (known,) = (await api.call("GET", path, owner.key, expect=200)).json()["data"]
    one = f"{path}/{known['id']}"
    for change in ({"price": "0.1234567"}, {"path": "/y"}, {"method": "POST"}, {"refund_rules": {"nope": 1}}, {}):
        await api.call("PATCH", one, owner.key, expect=400, json=change)
    await api.call("POST", path, owner.key, expect=400, json={"method": "GET", "path": "no-slash"})
    await api.call("GET", path, stranger.key, expect=403)
    foreign = path.replace(str(owner.organization_id), str(stranger.organization_id))
    await api.call("POST", foreign, stranger.key, expect=404, json={"method": "GET", "path": "/z"})


async def test_a_put_of_the_list_replaces_it_and_ids_stay(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    first = [{"method": "GET", "path": "/a"}, {"method": "GET", "path": "/b/{id}", "is_protected": True}]
    made = await clerk.publisher(owner, endpoints=first)
    path = endpoints_of(owner, made)
    before = {one["path"]: one["id"] for one in (await api.call("GET", path, owner.key, expect=200)).json()["data"]}
    whole = path.removesuffix("/endpoints")
    await api.call("PUT", whole, owner.key, expect=200, json={"description": "The list stays."})
    await api.call("PUT", whole, owner.key, expect=200, json={"endpoints": [{"method": "GET", "path": "/b/{key}"}]})
    (left,) = (await api.call("GET", path, owner.key, expect=200)).json()["data"]
    assert (left["id"], left["path"], left["is_protected"]) == (before["/b/{id}"], "/b/{key}", False)


RULES: list[dict[str, Any]] = [
    {"price": "0.5"},
    {"is_protected": True},
    {"x402_settlement": "settle_first"},
    {"refund_on_status": ["404"]},
    {"refund_rules": {"empty_result": True}},
    {"required_headers": ["X-Unit"]},
    {"query_params": [{"name": "q", "required": True}]},
]
NO_RULES = {
    "description": "Documented.",
    "query_params": [{"name": "q"}],
    "required_headers": [],
    "is_protected": False,
}
MCP = {"integration_type": "mcp", "api_url": ..., "mcp_endpoint": "https://mcp.example.com"}


def endpoint(method: str, path: str, **fields: Any) -> dict[str, Any]:
    return {"method": method, "path": path, **fields}


async def assert_refused(
    api: Api, owner: Member, made: dict[str, Any], method: str, rule: dict[str, Any], words: str
) -> None:
    """Neither a new endpoint, a change of one, nor a list may have the rule."""
    (name,) = rule
    path = endpoints_of(owner, made)
    known = (await api.call("GET", path, owner.key, expect=200)).json()["data"]
    (one,) = [endpoint for endpoint in known if endpoint["method"] == method]
    place = known.index(one)
    for how, where, body, position in (
        ("POST", path, endpoint(method, "/new", **rule), len(known)),
        ("PATCH", f"{path}/{one['id']}", rule, place),
        ("PUT", path.removesuffix("/endpoints"), {"endpoints": [endpoint(method, "/new", **rule)]}, 0),
    ):
        problem = (await api.call(how, where, owner.key, json=body, expect=400)).json()
        assert problem["errors"][0]["field"] == f"endpoints.{position}.{name}"
        assert words in problem["errors"][0]["message"]
    assert (await api.call("GET", path, owner.key, expect=200)).json()["data"] == known


async def test_a_database_has_no_rules_of_single_endpoints(api: Api, clerk: Clerk, market: Market) -> None:
    owner = await clerk.agent()
    database = {
        "publisher_category": "database", "integration_type": ..., "api_url": ..., "price_per_call": ...,
        "base_price_per_1000_rows": "1", "database_config": market.config(sample=False),
    }  # fmt: skip
    made = await clerk.publisher(owner, **database, endpoints=[endpoint("GET", "/companies", **NO_RULES)])
    for rule in RULES:
        words = "are for HTTP APIs" if "refund_rules" in rule else "a query names no endpoint"
        await assert_refused(api, owner, made, "GET", rule, words)
    path = endpoints_of(owner, made).removesuffix("/endpoints")
    deny = {"undocumented_endpoint_policy": "default_deny"}
    problem = (await api.call("PUT", path, owner.key, json=deny, expect=400)).json()
    assert problem["errors"][0]["field"] == "undocumented_endpoint_policy"
    await api.call("PUT", path, owner.key, json={"undocumented_endpoint_policy": "default_allow"}, expect=200)


async def test_tools_have_the_rules_that_their_calls_follow(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    listed = [endpoint("GET", "/page", **NO_RULES), endpoint("POST", "/tool", **NO_RULES)]
    made = await clerk.publisher(owner, **MCP, endpoints=listed)
    path = endpoints_of(owner, made)
    one = next(known for known in (await api.call("GET", path, owner.key)).json()["data"] if known["method"] == "POST")
    for rule in RULES:
        words = "are for HTTP APIs" if "refund_rules" in rule else "unless the endpoint is POST /<tool>"
        await assert_refused(api, owner, made, "GET", rule, words)
        if set(rule) <= {"price", "is_protected", "x402_settlement"}:
            await api.call("PATCH", f"{path}/{one['id']}", owner.key, json=rule, expect=200)
        else:
            words = "are for HTTP APIs" if "refund_rules" in rule else "has no effect on tools"
            await assert_refused(api, owner, made, "POST", rule, words)
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    (tool,) = compiled.endpoints.match("POST", tool_reading("tool"))
    assert tool is not None
    assert (tool.price, tool.is_protected, tool.settlement) == (500_000, True, "settle_first")


async def test_an_api_with_rules_does_not_become_what_would_not_keep_them(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, endpoints=[endpoint("GET", "/admin", is_protected=True)])
    path = endpoints_of(owner, made).removesuffix("/endpoints")
    turn = {"integration_type": "mcp", "mcp_endpoint": "https://mcp.example.com"}
    problem = (await api.call("PUT", path, owner.key, json=turn, expect=400)).json()
    assert problem["errors"][0]["field"] == "endpoints.0.is_protected"
    await api.call("PUT", path, owner.key, json={**turn, "endpoints": []}, expect=200)
