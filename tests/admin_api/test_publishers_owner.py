"""Publishers from their owner's side: create, read, change, delete, prices."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.catalog.assets import asset_id
from tests.admin_api.conftest import PUBLIC_URL, SECRET, WALLET, Api, Clerk

USDC = str(asset_id("eip155:8453", "USDC"))
SEPOLIA = str(asset_id("eip155:84532", "USDC"))
ETHER = str(asset_id("eip155:84532", "ETH"))


async def test_a_created_publisher_answers_what_was_sent_and_is_in_store_and_snapshot(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    endpoints = [
        {"method": "GET", "path": "/v1/items/{id}", "price": "0.001", "description": "one item"},
        {"method": "DELETE", "path": "/v1/items/{id}", "is_protected": True, "protection_reason": "read only"},
    ]
    made = await clerk.publisher(
        owner,
        description="Items",
        capabilities=["items"],
        endpoints=endpoints,
        price_per_get="0.002",
        gateway_fee_percent="2.50",
        undocumented_endpoint_policy="default_deny",
        upstream_headers={"X-Plan": "gold"},
        allowed_passthrough_headers=["X-Trace"],
    )
    assert made["gateway_fee_percent"] == "2.5"
    assert made["pricing"][0]["price_per_call"] == "0.05"
    assert made["pricing"][0]["price_per_get"] == "0.002"
    assert made["pricing"][0]["pricing_model"] == "per_request"
    assert [asset["id"] for asset in made["accepted_assets"]] == [SEPOLIA]
    assert [one["price"] for one in made["endpoints"]] == ["0.001", None]
    assert made["endpoints"][1]["protection_reason"] == "read only"
    assert (made["total_queries"], made["unique_agents_served"], made["is_verified"]) == (0, 0, False)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    assert (await api.call("GET", path, owner.key, expect=200)).json()["data"] == made
    stored = (await api.call("GET", f"/publishers/{made['slug']}", expect=200)).json()["data"]
    assert stored["name"] == made["name"]
    assert (stored["api_url"], stored["upstream_headers"]) == (None, {})
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    assert compiled.prices[0].prices.per_call == 50_000


async def test_a_taken_slug_is_a_conflict_even_after_deletion(api: Api, clerk: Clerk) -> None:
    owner, other = await clerk.agent(), await clerk.agent()
    made = await clerk.publisher(owner)
    path = f"/organizations/{other.organization_id}/publishers"
    await api.call("POST", path, other.key, json=clerk.order(slug=made["slug"]), expect=409)
    own = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    assert (await api.call("DELETE", own, owner.key, expect=200)).json() == {}
    assert api.services.catalog.find(made["slug"]) is None
    await api.call("GET", own, owner.key, expect=404)
    await api.call("DELETE", own, owner.key, expect=404)
    await api.call("GET", f"/publishers/{made['slug']}", expect=404)
    await api.call("POST", path, other.key, json=clerk.order(slug=made["slug"]), expect=409)


async def test_an_update_changes_what_it_names_and_null_clears(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, description="before", price_per_get="0.01", upstream_api_key=SECRET)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    changes = {"name": "After", "description": None, "price_per_get": None, "price_per_post": "0.3"}
    after = (await api.call("PUT", path, owner.key, json=changes, expect=200)).json()["data"]
    prices = after["pricing"][0]
    assert (after["name"], after["description"]) == ("After", None)
    assert (prices["price_per_get"], prices["price_per_post"], prices["price_per_call"]) == (None, "0.30", "0.05")
    assert after["slug"] == made["slug"]
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    assert compiled.route is not None
    assert SECRET.encode() in dict(compiled.route.headers)[b"Authorization"]
    assert (await api.call("PUT", path, owner.key, json={}, expect=200)).json()["data"]["name"] == "After"
    off = (await api.call("PUT", path, owner.key, json={"is_active": False}, expect=200)).json()["data"]
    assert off["is_active"] is False
    await api.call("GET", f"/publishers/{made['slug']}", expect=404)
    listed = (await api.call("GET", f"/organizations/{owner.organization_id}/publishers", owner.key)).json()["data"]
    assert [one["id"] for one in listed] == [made["id"]]
    await api.call("PUT", path, owner.key, json={"slug": "other-slug"}, expect=400)


async def test_assets_come_and_go_and_prices_fit_each(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, accepted_asset_ids=[USDC, SEPOLIA])
    assert made["accepted_assets"][0]["id"] == USDC
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    after = await api.call("PUT", path, owner.key, json={"add_asset_ids": [ETHER]}, expect=200)
    assert {row["asset_id"]: row["price_per_call"] for row in after.json()["data"]["pricing"]} == {
        USDC: "0.05",
        SEPOLIA: "0.05",
        ETHER: "0.05",
    }
    tiny = {"price_per_call": "0.000000000000000001"}
    refused = await api.call("PUT", path, owner.key, json=tiny, expect=400)
    assert refused.json()["errors"][0]["field"] == "price_per_call"
    exact = await api.call("PUT", f"{path}/pricing", owner.key, json={"asset_id": ETHER, **tiny}, expect=200)
    assert exact.json()["data"]["price_per_call"] == "0.000000000000000001"
    removed = await api.call("PUT", path, owner.key, json={"remove_asset_ids": [USDC, SEPOLIA]}, expect=200)
    assert [row["asset_id"] for row in removed.json()["data"]["pricing"]] == [ETHER]
    await api.call("PUT", path, owner.key, json={"remove_asset_ids": [ETHER]}, expect=400)
    foreign = {"asset_id": USDC, "price_per_call": "1"}
    assert "asset_id" in (await api.call("PUT", f"{path}/pricing", owner.key, json=foreign, expect=400)).text


async def test_pricing_keeps_what_it_does_not_name(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}/pricing"
    body: dict[str, Any] = {"asset_id": SEPOLIA, "min_charge": "0.01", "max_charge": "2", "markup_multiplier": "1.250"}
    data = (await api.call("PUT", path, owner.key, json=body, expect=200)).json()["data"]
    assert (data["min_charge"], data["max_charge"], data["markup_multiplier"]) == ("0.01", "2.00", "1.25")
    assert (data["price_per_call"], data["asset_symbol"]) == ("0.05", "USDC")
    wrong = {"asset_id": SEPOLIA, "max_charge": "0.001"}
    assert (await api.call("PUT", path, owner.key, json=wrong, expect=400)).json()["errors"][0]["field"] == "max_charge"
    zero = {"asset_id": SEPOLIA, "markup_multiplier": "0"}
    assert (await api.call("PUT", path, owner.key, json=zero, expect=400)).json()["errors"][0][
        "field"
    ] == "markup_multiplier"
    body = {"asset_id": SEPOLIA, "token_exchange_mode": "body", "max_queries_per_minute": 7, "prepaid_enabled": False}
    data = (await api.call("PUT", path, owner.key, json=body, expect=200)).json()["data"]
    assert (data["max_queries_per_minute"], data["prepaid_enabled"]) == (7, False)
    shown = (await api.call("GET", path.removesuffix("/pricing"), owner.key)).json()["data"]
    assert shown["token_exchange_mode"] == "body"


async def test_the_largest_price_is_exact_and_one_above_is_refused(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    largest = "1000000000000000000000000"
    made = await clerk.publisher(owner, price_per_call=largest)
    assert made["pricing"][0]["price_per_call"] == f"{largest}.00"
    path = f"/organizations/{owner.organization_id}/publishers"
    above = clerk.order(price_per_call=f"{largest}.000001")
    problem = (await api.call("POST", path, owner.key, json=above, expect=400)).json()
    assert problem["errors"][0]["field"] == "price_per_call"


async def test_wallet_and_network_change_together(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    other = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
    for body, field in (
        ({"wallet_address": other}, "wallet_network_id"),
        ({"wallet_network_id": "eip155:8453"}, "wallet_address"),
    ):
        problem = (await api.call("PUT", path, owner.key, json=body, expect=400)).json()
        assert problem["errors"][0]["field"] == field
    await api.call("PUT", path, owner.key, json={"wallet_address": WALLET}, expect=200)
    both = {"wallet_address": other, "wallet_network_id": "eip155:8453"}
    assert (await api.call("PUT", path, owner.key, json=both, expect=200)).json()["data"]["wallet_address"] == other


async def test_secrets_are_in_no_answer(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    secrets = {
        "api_headers": {"Authorization": f"Bearer {SECRET}"},
        "upstream_api_key": SECRET,
        "api_key_header": "X-Api-Key",
        "jwt_access_key": SECRET,
        "jwt_secret_key": SECRET,
        "oauth2_client_secret": SECRET,
        "auth_type": "jwt",
        "database_config": {
            "connection_string": f"postgresql://u:{SECRET}@db/x",
            "host": f"u:{SECRET}@db",
            "port": 5432,
        },
    }
    path = f"/organizations/{owner.organization_id}/publishers"
    created = await api.call("POST", path, owner.key, json=clerk.order(**secrets), expect=201)
    made = created.json()["data"]
    assert made["database_config"] == {"port": 5432}
    one = f"{path}/{made['id']}"
    answers = [
        created,
        await api.call("GET", one, owner.key),
        await api.call("GET", path, owner.key),
        await api.call("GET", f"/publishers/{made['slug']}"),
        await api.call("GET", "/publishers"),
        await api.call("PUT", one, owner.key, json={"upstream_api_key": f"{SECRET}\r\nX: y"}, expect=400),
        await api.call("PUT", one, owner.key, json={"api_headers": {"X": f"{SECRET}\n"}}, expect=400),
        await api.call("PUT", one, owner.key, json={"jwt_secret_key": [SECRET]}, expect=400),
        await api.call("PUT", one, owner.key, json={SECRET: 1}),
    ]
    assert all(SECRET not in answer.text for answer in answers[:-1])
    async with api.services.database.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT document::text, credentials FROM catalog.publisher WHERE id = $1", made["id"]
        )
    assert SECRET not in row["document"]
    assert SECRET.encode() not in row["credentials"]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"price_per_call": "1.0000001"}, "price_per_call"),
    ({"price_per_call": "-1"}, "price_per_call"),
    ({"price_per_call": "1e3"}, "price_per_call"),
    ({"price_per_call": "٣"}, "price_per_call"),
    ({"price_per_call": 0.05}, "price_per_call"),
    ({"price_per_cal": "0.05"}, "price_per_cal"),
    ({"gateway_fee_percent": "100.0001"}, "gateway_fee_percent"),
    ({"gateway_fee_percent": "1.00001"}, "gateway_fee_percent"),
    ({"slug": "suggest"}, "slug"),
    ({"slug": "A"}, "slug"),
    ({"slug": "shop_1"}, "slug"),
    ({"slug": "x" * 65}, "slug"),
    ({"slug": ...}, "slug"),
    ({"name": "  "}, "name"),
    ({"publisher_category": "shop"}, "publisher_category"),
    ({"billing_model": "free"}, "billing_model"),
    ({"auth_type": "basic"}, "auth_type"),
    ({"auth_type": "jwt"}, "jwt_secret_key"),
    ({"oauth_provider_slug": "no-such-provider"}, "oauth_provider_slug"),
    ({"auth_type": "oauth2_cc"}, "oauth2_token_url"),
    ({"api_url": ...}, "api_url"),
    ({"integration_type": "mcp", "api_url": ...}, "mcp_endpoint"),
    ({"publisher_category": "database", "database_type": "serendb"}, "database_config"),
    ({"publisher_category": "database", "database_type": "neon"}, "database_config"),
    ({"publisher_category": "database"}, "database_config"),
    ({"publisher_category": "database", "database_config": {"host": "db.example.com"}}, "database_config"),
    ({"api_url": "http://192.168.1.10"}, "api_url"),
    ({"api_url": "http://[::1]:8080"}, "api_url"),
    ({"api_url": "http://0x7f000001.example"}, "api_url"),
    ({"api_url": "https://169.254.169.254/latest"}, "api_url"),
    ({"api_url": "http://api.example.com"}, "api_url"),
    ({"api_url": "ftp://api.example.com"}, "api_url"),
    ({"api_url": "https://u:p@api.example.com"}, "api_url"),
    ({"api_url": "https://api.example.com/#x"}, "api_url"),
    ({"api_url": "https://api.example.com/?k=v"}, "api_url"),
    ({"api_url": "https://api.example.com/\r\nX: y"}, "api_url"),
    ({"logo_url": "javascript:alert(1)"}, "logo_url"),
    ({"token_exchange_url": "https://10.0.0.5/token"}, "token_exchange_url"),
    ({"api_headers": {"X-A": "a\r\nB: c"}}, "api_headers"),
    ({"api_headers": {"X A": "a"}}, "api_headers"),
    ({"api_headers": {"Host": "other"}}, "api_headers"),
    ({"api_headers": {"Transfer-Encoding": "chunked"}}, "api_headers"),
    ({"api_headers": {"X-A": 1}}, "api_headers"),
    ({"api_headers": ["X-A"]}, "api_headers"),
    ({"api_headers": {"X-A": "1", "x-a": "2"}}, "api_headers"),
    ({"upstream_headers": {"Content-Length": "1"}}, "upstream_headers"),
    ({"upstream_headers": {"Authorization": "Bearer x"}}, "upstream_headers"),
    ({"allowed_passthrough_headers": ["Authorization"]}, "allowed_passthrough_headers"),
    ({"allowed_passthrough_headers": ["Connection"]}, "allowed_passthrough_headers"),
    ({"api_key_header": "X\n"}, "api_key_header"),
    ({"api_key_header": "X-Key", "api_key_query_param": "key", "upstream_api_key": "k"}, "api_key_query_param"),
    ({"request_content_type": "json"}, "request_content_type"),
    ({"upstream_cost_response_path": "usage..cost"}, "upstream_cost_response_path"),
    ({"wallet_address": "0x123"}, "wallet_address"),
    ({"wallet_address": "0x" + "0" * 40}, "wallet_address"),
    ({"wallet_address": WALLET.replace("Ae", "aE", 1)}, "wallet_address"),
    ({"wallet_network_id": "eip155:1"}, "wallet_network_id"),
    ({"wallet_network_id": ...}, "wallet_network_id"),
    ({"accepted_asset_ids": []}, "accepted_asset_ids"),
    ({"accepted_asset_ids": ["00000000-0000-0000-0000-000000000000"]}, "accepted_asset_ids"),
    ({"accepted_asset_ids": ["x"]}, "accepted_asset_ids.0"),
    ({"capabilities": ["x" * 201]}, "capabilities.0"),
    ({"capabilities": ["x"] * 51}, "capabilities"),
    ({"description": "x" * 10_001}, "description"),
    ({"email": "nobody"}, "email"),
    ({"grace_period_minutes": -1}, "grace_period_minutes"),
    ({"grace_period_minutes": "5"}, "grace_period_minutes"),
    ({"token_cache_ttl_seconds": 2**40}, "token_cache_ttl_seconds"),
    ({"database_config": {"a": "x" * 70_000}}, "database_config"),
    ({"protected_operations": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}, "protected_operations"),
    ({"endpoints": [{"method": "GET", "path": "v1"}]}, "endpoints.0.path"),
    ({"endpoints": [{"method": "GET", "path": "/a/../b"}]}, "endpoints.0.path"),
    ({"endpoints": [{"method": "GET", "path": "/a/%2e%2E/b"}]}, "endpoints.0.path"),
    ({"endpoints": [{"method": "GET", "path": "/a?b=c"}]}, "endpoints.0.path"),
    ({"endpoints": [{"method": "GET", "path": "/a/x{id}"}]}, "endpoints.0.path"),
    ({"endpoints": [{"method": "GET", "path": "/{a}/{a}"}]}, "endpoints.0.path"),
    ({"endpoints": [{"method": "HEAD", "path": "/a"}]}, "endpoints.0.method"),
    ({"endpoints": [{"method": "GET", "path": "/a", "price": "0.0000001"}]}, "endpoints.0.price"),
    ({"endpoints": [{"method": "GET", "path": "/{a}"}, {"method": "GET", "path": "/{b}"}]}, "endpoints"),
    (
        {"endpoints": [{"method": "GET", "path": f"/{n}", "is_default": True} for n in "ab"]},
        "endpoints",
    ),
]


@pytest.mark.parametrize(("changes", "field"), BAD, ids=lambda value: str(value)[:60])
async def test_bad_input_is_refused_with_its_field(
    api: Api, clerk: Clerk, owner_key: tuple[str, str], changes: dict[str, Any], field: str
) -> None:
    path, key = owner_key
    problem = (await api.call("POST", path, key, json=clerk.order(**changes), expect=400)).json()
    assert problem["type"] == "/problems/invalid-request"
    assert field in [error["field"] for error in problem["errors"]]


@pytest.fixture(scope="module")
async def owner_key(clerk: Clerk) -> tuple[str, str]:
    owner = await clerk.agent()
    return f"/organizations/{owner.organization_id}/publishers", owner.key


async def test_a_private_address_is_called_one(api: Api, clerk: Clerk, owner_key: tuple[str, str]) -> None:
    path, key = owner_key
    for url in ("http://192.168.1.10", "https://10.1.2.3/x"):
        problem = (await api.call("POST", path, key, json=clerk.order(api_url=url), expect=400)).json()
        assert "private address" in problem["detail"]


async def test_listed_addresses_may_be_plain_http(api: Api, clerk: Clerk, owner_key: tuple[str, str]) -> None:
    path, key = owner_key
    for url in ("http://127.0.0.1:9000/base", "http://localhost:9000"):
        await api.call("POST", path, key, json=clerk.order(api_url=url), expect=201)


async def test_a_kind_is_understood_and_no_secret_is_answered(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    mcp = await clerk.publisher(owner, integration_type=..., api_url=..., mcp_endpoint="https://mcp.example.com/mcp")
    assert mcp["integration_type"] == "mcp"
    oauth = await clerk.publisher(
        owner, auth_type="oauth2_cc", oauth2_token_url="https://id.example.com/token", oauth2_client_id="me",
        oauth2_client_secret=SECRET, oauth2_scopes=["read"],
    )  # fmt: skip
    assert SECRET not in str(oauth)
    assert PUBLIC_URL not in str(oauth["logo_url"])
