"""What each field of a publisher does, as a buyer or the owner sees it: one scene for each, or for a few that belong
together. Which fields there are is the contract's to say (test_publisher_fields.py).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from gateway.catalog.assets import asset_id
from tests.journeys.publisher_stage import PRICE, Stage, shows
from tests.support.token_server import CLIENT, KEY, SECRET
from tests.support.world import SEPOLIA_USDC

ETHER = asset_id("eip155:84532", "ETH")
OTHER_WALLET = "0x000000000000000000000000000000000000dEaD"


# --- Being found and read about ---


def _found_by(name: str, make: Callable[[str], Any]) -> None:
    async def scene(stage: Stage) -> None:
        shop = await stage.sells(**{name: make(stage.word)})
        found = await stage.gateway.client.get("/publishers/suggest", params={"query": stage.word})
        assert [one["slug"] for one in found.json()["data"]["publishers"]] == [shop["slug"]]

    shows(name)(scene)


for _name in ("name", "description", "resource_name", "resource_description"):
    _found_by(_name, lambda word: f"Sells {word} daily")
for _name in ("capabilities", "categories", "use_cases"):
    _found_by(_name, lambda word: [word])


@shows("slug")
async def _slug(stage: Stage) -> None:
    shop = await stage.sells(slug=f"own-{stage.word}")
    assert shop["slug"] == f"own-{stage.word}"
    await stage.call(shop)


@shows("email")
async def _email(stage: Stage) -> None:
    shop = await stage.sells(email="seller@example.com")
    assert shop["email"] == "seller@example.com", "for the owner and for operators (tollway publisher show)"
    assert (await stage.store(shop))["data"]["email"] is None, "and not for buyers"


@shows("logo_url")
async def _logo(stage: Stage) -> None:
    shop = await stage.sells(logo_url="https://cdn.example.com/logo.png")
    answer = await stage.gateway.client.get(f"/publishers/{shop['slug']}/logo")
    assert (answer.status_code, answer.headers["location"]) == (302, "https://cdn.example.com/logo.png")


@shows("publisher_type")
async def _seller(stage: Stage) -> None:
    assert "Sold by</dt><dd>an organization" in await stage.page(await stage.sells(publisher_type="organization"))
    assert "Sold by</dt><dd>an individual" in await stage.page(await stage.sells())


@shows("project_id")
async def belongs_to_a_project(stage: Stage) -> None:
    client, headers = stage.gateway.client, stage.seller.headers
    made = await client.post("/projects", headers=headers, json={"name": "Tides", "region": "local"})
    path = f"/projects/{made.json()['data']['id']}"
    shop = await stage.sells(project_id=made.json()["data"]["id"])
    refused = await client.delete(path, headers=headers)
    assert (refused.status_code, refused.json()["publishers"]) == (409, [shop["slug"]])


@shows("usage_examples", "usage_examples.title", "usage_examples.description", "usage_examples.curl")
async def _examples(stage: Stage) -> None:
    example = {"title": "T-one", "description": "D-two", "curl": "curl C-three"}
    page = await stage.page(await stage.sells(usage_examples=[example]))
    assert all(word in page for word in example.values())


@shows("pricing_display_text")
async def _price_words(stage: Stage) -> None:
    assert "words: <bdi>Half of noon</bdi>" in await stage.page(await stage.sells(pricing_display_text="Half of noon"))


@shows("min_display_price")
async def _shown_least(stage: Stage) -> None:
    shop = await stage.sells(
        min_display_price="0.02", billing_model="pay_per_use", reserve_max_charge="2", price_per_call=None,
        upstream_cost_response_path="usage.cost", unresolved_fallback_charge="0.1",
    )  # fmt: skip
    assert "by use, from 0.02 USDC, at most 2 USDC per call" in await stage.page(shop)


# --- What reaches the publisher's server ---


@shows("api_url")
async def _api_url(stage: Stage) -> None:
    shop = await stage.sells(api_url=f"{stage.servers.upstream.url}/elsewhere")
    assert (await stage.arrived(shop)).target == "/elsewhere/x"


@shows("integration_type", "mcp_endpoint", "price_per_execution")
async def _mcp(stage: Stage) -> None:
    shop = await stage.sells(
        integration_type="mcp", mcp_endpoint=stage.servers.mcp.url, price_per_execution="0.07"
    )  # fmt: skip
    tools = await stage.call(shop, path="/_tools", keyed=False)
    assert {tool["price"]["amount"] for tool in tools.json()["tools"]} == {"0.07"}
    await stage.call(shop, "POST", "", 404, json={})
    assert (await stage.arrived(await stage.sells(integration_type="api"))).target == "/base/x"


@shows("request_content_type")
async def _content_type(stage: Stage) -> None:
    shop = await stage.sells(request_content_type="application/cbor")
    assert (await stage.arrived(shop, "POST", content=b"x")).all("content-type") == ["application/cbor"]


@shows("allowed_passthrough_headers")
async def _passthrough(stage: Stage) -> None:
    units = {"X-Units": "metric"}
    shop = await stage.sells(allowed_passthrough_headers=["X-Units"])
    assert (await stage.arrived(shop, headers=units)).all("x-units") == ["metric"]
    assert (await stage.arrived(await stage.sells(), headers=units)).all("x-units") == []


@shows("upstream_headers", "api_headers")
async def _headers(stage: Stage) -> None:
    request = await stage.arrived(await stage.sells(upstream_headers={"X-A": "1"}, api_headers={"X-B": "2"}))
    assert (request.all("x-a"), request.all("x-b")) == (["1"], ["2"])


@shows("upstream_api_key", "api_key_header", "api_key_query_param")
async def _key(stage: Stage) -> None:
    bearer = await stage.sells(upstream_api_key=KEY)
    assert (await stage.arrived(bearer)).all("authorization") == [f"Bearer {KEY}"]
    named = await stage.sells(upstream_api_key=KEY, api_key_header="X-Api-Key")
    assert (await stage.arrived(named)).all("x-api-key") == [KEY]
    query = await stage.sells(upstream_api_key=KEY, api_key_query_param="key")
    assert (await stage.arrived(query)).target == f"/base/x?key={KEY}"


@shows("auth_type", "jwt_secret_key", "jwt_access_key", "jwt_algorithm", "jwt_expiration_seconds")
async def _signed(stage: Stage) -> None:
    shop = await stage.sells(
        auth_type="jwt", jwt_secret_key=SECRET * 8, jwt_access_key="ak-1", jwt_algorithm="HS512",
        jwt_expiration_seconds=77,
    )  # fmt: skip
    (sent,) = (await stage.arrived(shop)).all("authorization")
    head, claims, signature = sent.removeprefix("Bearer ").split(".")
    made = hmac.new((SECRET * 8).encode(), f"{head}.{claims}".encode(), hashlib.sha512).digest()
    assert base64.urlsafe_b64encode(made).decode().rstrip("=") == signature
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert (said["iss"], said["exp"] - said["iat"]) == ("ak-1", 77)


@shows("oauth2_client_id", "oauth2_client_secret", "oauth2_scopes", "oauth2_token_url")
async def _client_credentials(stage: Stage) -> None:
    tokens = stage.servers.tokens
    tokens.forget()
    shop = await stage.sells(
        auth_type="oauth2_cc", oauth2_client_id=CLIENT, oauth2_client_secret=SECRET, oauth2_scopes=["read", "write"],
        oauth2_token_url=f"{tokens.url}/oauth/token", api_url=tokens.url,
    )  # fmt: skip
    await stage.call(shop)
    asked, called = tokens.requests
    assert b"scope=read+write" in asked.body
    assert called.all("authorization") == [f"Bearer token-{tokens.given}"]


@shows("token_exchange_url", "token_exchange_method", "token_exchange_mode", "token_response_field")
async def _exchange(stage: Stage) -> None:
    tokens = stage.servers.tokens
    tokens.forget()
    shop = await stage.sells(
        token_exchange_url=f"{tokens.url}/trade", token_exchange_method="GET", token_exchange_mode="query",
        token_response_field="session.tokens[0]", api_key_query_param="key", upstream_api_key=KEY, api_url=tokens.url,
    )  # fmt: skip
    await stage.call(shop)
    asked, called = tokens.requests
    assert (asked.method, asked.target) == ("GET", f"/trade?key={KEY}")
    assert called.all("authorization") == [f"Bearer token-{tokens.given}"]


@shows("requires_user_oauth", "oauth_provider_slug", "oauth_provider_id")
async def _callers_name(stage: Stage) -> None:
    url = stage.servers.tokens.url
    definition = {
        "name": "Notes", "slug": f"notes-{stage.word}", "authorization_url": f"{url}/authorize", "scopes": ["read"],
        "token_url": f"{url}/token", "client_id": CLIENT, "client_secret": SECRET,
    }  # fmt: skip
    path = f"/organizations/{stage.seller.organization_id}/oauth/providers"
    made = await stage.gateway.client.post(path, headers=stage.seller.headers, json=definition)
    provider = made.json()["data"]
    by = {"oauth_provider_slug": provider["slug"]}
    shop = await stage.sells(
        requires_user_oauth=True, **(by if stage.door == "create" else {"oauth_provider_id": provider["id"]})
    )
    assert shop["oauth_provider_id"] == provider["id"]
    refused = (await stage.call(shop, status=403)).json()
    assert refused["provider_id"] == provider["id"]
    assert refused["authorize_url"] in await stage.page(shop)


@shows("token_cache_ttl_seconds")
async def _kept(stage: Stage) -> None:
    tokens = stage.servers.tokens
    tokens.forget()
    fields = {
        "token_exchange_url": f"{tokens.url}/trade", "token_response_field": "session.tokens[0]",
        "upstream_api_key": KEY, "api_url": tokens.url,
    }  # fmt: skip
    kept = await stage.sells(**fields, token_cache_ttl_seconds=3600)
    for _ in range(2):
        await stage.call(kept)
    assert [one.target for one in tokens.requests].count("/trade") == 1
    tokens.forget()
    brief = await stage.sells(**fields, token_cache_ttl_seconds=1)
    await stage.call(brief)
    await asyncio.sleep(1)  # its whole life, whatever the token server says
    await stage.call(brief)
    assert [one.target for one in tokens.requests].count("/trade") == 2


# --- Endpoints ---

ENDPOINT: dict[str, Any] = {
    "method": "POST", "path": "/v1/items/{id}", "description": "Words on it", "price": "0.25", "is_default": True,
    "query_params": [
        {"name": "unit", "required": True, "param_type": "integer", "description": "Of length", "example": "7"}
    ],
    "required_headers": ["X-Region"], "request_body": {"type": "object"}, "response": {"type": "array"},
    "example_request": {"a": 1}, "example_response": [2],
}  # fmt: skip


@shows(
    "endpoints", "endpoints.method", "endpoints.path", "endpoints.price", "endpoints.query_params",
    "endpoints.query_params.name", "endpoints.query_params.required", "endpoints.required_headers",
)  # fmt: skip
async def _endpoint(stage: Stage) -> None:
    shop = await stage.sells(endpoints=[ENDPOINT])
    where, region = "/v1/items/7?unit=1", {"X-Region": "eu"}
    assert await stage.cost(shop, "POST", where, headers=region) == "0.25"
    assert await stage.cost(shop, "PUT", where) == PRICE, "another method"
    assert "X-Region" in (await stage.call(shop, "POST", where, 400)).text
    assert "unit" in (await stage.call(shop, "POST", "/v1/items/7", 400, headers=region)).text


@shows(
    "endpoints.description", "endpoints.request_body", "endpoints.response", "endpoints.example_request",
    "endpoints.example_response", "endpoints.body_template", "endpoints.query_params.param_type",
    "endpoints.query_params.description", "endpoints.query_params.example",
)  # fmt: skip
async def _documented(stage: Stage) -> None:
    template = {"method": "PUT", "path": "/fill", "body_template": {"city": "<city>"}}
    document = await stage.store(await stage.sells(endpoints=[ENDPOINT, template]), "/openapi.json")
    operation = document["paths"]["/v1/items/{id}"]["post"]
    assert operation["description"] == "Words on it"
    assert operation["requestBody"]["content"]["application/json"] == {
        "schema": {"type": "object"},
        "example": {"a": 1},
    }
    answered = operation["responses"]["200"]["content"]["application/json"]
    assert (answered["schema"]["type"], answered["example"]) == ("array", [2])
    unit = next(one for one in operation["parameters"] if one["name"] == "unit")
    assert (unit["schema"]["type"], unit["description"], unit["example"]) == ("integer", "Of length", "7")
    filled = document["paths"]["/fill"]["put"]["requestBody"]["content"]["application/json"]
    assert filled["example"] == {"city": "<city>"}


@shows("endpoints.is_default")
async def _default(stage: Stage) -> None:
    plain = {"method": "GET", "path": "/first"}
    page = await stage.page(await stage.sells(endpoints=[plain, {**plain, "path": "/second", "is_default": True}]))
    assert page.index("/second") < page.index("/first"), "it stands for the publisher: its call is the one shown"


@shows("endpoints.is_protected", "endpoints.protection_reason")
async def _protected(stage: Stage) -> None:
    closed = {"method": "GET", "path": "/x", "is_protected": True, "protection_reason": "Under repair."}
    shop = await stage.sells(endpoints=[closed])
    assert (await stage.call(shop, status=403)).json()["detail"] == "Under repair."


@shows("undocumented_endpoint_policy")
async def _undocumented(stage: Stage) -> None:
    shop = await stage.sells(endpoints=[ENDPOINT], undocumented_endpoint_policy="default_deny")
    await stage.call(shop, status=404)
    await stage.call(await stage.sells(endpoints=[ENDPOINT], undocumented_endpoint_policy="default_allow"))


# --- Prices and payments ---


@shows("price_per_call", "price_per_get", "price_per_post", "price_per_put", "price_per_patch", "price_per_delete")
async def _prices(stage: Stage) -> None:
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")
    prices = {f"price_per_{method.lower()}": f"0.0{place}" for place, method in enumerate(methods, 1)}
    shop = await stage.sells(price_per_call="0.09", **prices)
    for method in methods:
        assert await stage.cost(shop, method) == prices[f"price_per_{method.lower()}"]
    assert await stage.cost(shop, "OPTIONS") == "0.09"


@shows("min_charge", "max_charge")
async def _bounds(stage: Stage) -> None:
    shop = await stage.sells(price_per_get="0.001", price_per_post="3", min_charge="0.002", max_charge="0.5")
    assert (await stage.cost(shop), await stage.cost(shop, "POST")) == ("0.002", "0.5")


@shows("gateway_fee_percent")
async def _fee(stage: Stage) -> None:
    shop = await stage.sells(gateway_fee_percent="10")
    assert await stage.cost(shop) == PRICE
    (earned,) = (await stage.owner("GET", f"/{shop['id']}/earnings")).json()["data"]
    assert earned["total_revenue_atomic"] == 45_000


@shows("billing_model", "upstream_cost_response_path")
async def _by_use(stage: Stage) -> None:
    shop = await stage.sells(
        billing_model="pay_per_use", upstream_cost_response_path="usage.cost", reserve_max_charge="1",
        unresolved_fallback_charge="0.5", api_url=stage.servers.chat.url, price_per_call=None, pricing_model="passthrough",
    )  # fmt: skip
    body = {"model": "m", "messages": [{"role": "user", "content": "a b"}], "x_cost": 0.003}
    assert await stage.cost(shop, "POST", "/v1/chat/completions", json=body) == "0.003"


@shows("pricing_model")
async def _per_byte(stage: Stage) -> None:
    fields = {"price_per_mib": "0.1", "reserve_max_charge": "1", "price_per_call": None}
    shop = await stage.sells(pricing_model="per_byte", **fields)
    answer = await stage.call(shop, path="/bytes?n=1048576")
    assert answer.headers["x-cost"] == "0.1"


@shows("publisher_category", "database_type", "database_config", "base_price_per_1000_rows", "markup_multiplier")
async def _database(stage: Stage) -> None:
    shop = await stage.sells(
        publisher_category="database", database_type="neon", database_config=stage.servers.market.config(),
        base_price_per_1000_rows="10", markup_multiplier="1.5", pricing_model="per_row",
    )  # fmt: skip
    assert (await stage.store(shop))["data"]["database_type"] == "neon", "where it lives, for buyers to read"
    query = {"query": "SELECT name FROM demo.companies LIMIT 2"}
    assert await stage.cost(shop, "POST", "", json=query) == "0.03"


@shows("minimum_balance")
async def _least(stage: Stage) -> None:
    shop = await stage.sells(minimum_balance="50")
    (asked,) = [one for one in (await stage.call(shop, status=402)).json()["accepts"] if one["scheme"] == "prepaid"]
    assert (asked["amount"], asked["extra"]["requiredAmount"]) == ("50000", "50")
    assert asked["extra"]["deficitAtomic"] == 50_000_000 - asked["extra"]["availableBalanceAtomic"] > 0
    answer = await stage.call(shop, status=402)
    assert "This publisher asks for a balance of at least 50 USDC." in (
        answer.json().get("detail") or answer.json()["error"]
    )
    await stage.call(await stage.sells(minimum_balance="1"))
    free = await stage.sells(minimum_balance="50", price_per_get="0")
    await stage.call(free)
    tiers = [{"up_to": 1, "price": "0"}, {"price": "0.01"}]
    tiered = await stage.sells(minimum_balance="50", price_tiers=tiers)
    await stage.call(tiered)
    await stage.call(tiered, status=402)
    tools = await stage.sells(minimum_balance="50", integration_type="mcp", mcp_endpoint=stage.servers.mcp.url)
    await stage.call(tools, "POST", "/counted", 402, json={})
    config = stage.servers.market.config()
    rows = await stage.sells(
        minimum_balance="50", publisher_category="database", database_config=config, base_price_per_1000_rows="10",
        pricing_model="per_row",
    )  # fmt: skip
    await stage.call(rows, "POST", "", 402, json={"query": "SELECT name FROM demo.companies LIMIT 2"})


@shows("low_balance_threshold")
async def _low(stage: Stage) -> None:
    answer = await stage.call(await stage.sells(low_balance_threshold="50"))
    assert float(answer.headers["x-balance"]) < 50
    assert answer.headers["x-balance-low"] == "50"
    assert "x-balance-low" not in (await stage.call(await stage.sells(low_balance_threshold="0.01"))).headers


@shows("max_queries_per_minute")
async def _rate(stage: Stage) -> None:
    shop = await stage.sells(max_queries_per_minute=1)
    statuses = [
        (await stage.gateway.client.get(f"/publishers/{shop['slug']}/x", headers=stage.buyer.headers)).status_code
        for _ in range(3)
    ]
    assert statuses[0] == 200
    assert 429 in statuses, "two of three calls fall into one minute"


@shows("wallet_address", "wallet_network_id")
async def _wallet(stage: Stage) -> None:
    shop = await stage.sells(wallet_address=OTHER_WALLET, wallet_network_id="eip155:84532")
    exact = next(one for one in await stage.offers(shop) if one["scheme"] == "exact")
    assert exact["payTo"] == OTHER_WALLET, "without a fee it is paid directly"


@shows("payment_expiry_minutes")
async def _expiry(stage: Stage) -> None:
    offers = await stage.offers(await stage.sells(payment_expiry_minutes=2))
    assert [one["maxTimeoutSeconds"] for one in offers if one["scheme"] == "exact"] == [120]


@shows("onchain_enabled", "prepaid_enabled")
async def _rails(stage: Stage) -> None:
    assert "exact" in {one["scheme"] for one in await stage.offers(await stage.sells(onchain_enabled=True))}
    assert "exact" not in {one["scheme"] for one in await stage.offers(await stage.sells(onchain_enabled=False))}
    await stage.call(await stage.sells(prepaid_enabled=True))
    await stage.call(await stage.sells(prepaid_enabled=False), status=402)


@shows("accepted_asset_ids")
async def _accepted(stage: Stage) -> None:
    await _paid_in_ether(stage, accepted_asset_ids=[str(ETHER)])


@shows("add_asset_ids", "remove_asset_ids")
async def _exchanged(stage: Stage) -> None:
    await _paid_in_ether(stage, add_asset_ids=[str(ETHER)], remove_asset_ids=[str(SEPOLIA_USDC)])


async def _paid_in_ether(stage: Stage, **fields: Any) -> None:
    shop = await stage.sells(**fields)
    asked = (await stage.call(shop, status=402)).json()["accepts"]
    assert {one["extra"]["assetSymbol"] for one in asked if one["scheme"] == "prepaid"} == {"ETH"}


@shows("asset_id")
async def _asset(stage: Stage) -> None:
    shop = await stage.sells(accepted_asset_ids=[str(SEPOLIA_USDC), str(ETHER)])
    prices = {"asset_id": str(ETHER), "price_per_call": "0.0001"}
    await stage.owner("PUT", f"/{shop['id']}/pricing", prices)
    shown = {one["asset_symbol"]: one["price_per_call"] for one in (await stage.store(shop))["data"]["pricing"]}
    assert shown == {"USDC": PRICE, "ETH": "0.0001"}


@shows("is_active")
async def _active(stage: Stage) -> None:
    shop = await stage.sells(is_active=False)
    await stage.call(shop, status=404)
    await stage.store(shop, status=404)
    await stage.owner("PUT", f"/{shop['id']}", {"is_active": True})
    await stage.call(shop)
