"""How owners say what tiers cost: shown to who may buy, in force at once, and refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from pricing.tariffs.tiered import Step, Tier, rate_of
from tests.admin_api.conftest import PUBLIC_URL, Api, Clerk, Member

TIERS = [{"up_to": 100, "price": "0"}, {"up_to": 1000, "price": "0.01"}, {"price": "0.005"}]
SHOWN = [*TIERS[:2], {"up_to": None, "price": "0.005"}]


def pricing_path(owner: Member, made: dict[str, Any]) -> str:
    return f"/organizations/{owner.organization_id}/publishers/{made['id']}/pricing"


async def test_tiers_are_shown_and_in_force(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, price_tiers=TIERS, endpoints=[{"method": "GET", "path": "/towns"}])
    stored = (await api.call("GET", f"/publishers/{made['slug']}", expect=200)).json()["data"]
    for shown in (made, stored):
        assert (shown["price_tiers"], shown["tier_style"]) == (SHOWN, None)
        assert shown["pricing"][0]["pricing_model"] == "tiered", "tiers say how a new publisher is priced"
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    assert compiled.not_served is None
    assert compiled.prices[0].tiers is not None
    assert compiled.prices[0].tiers.steps == (Step(0, 100, 0), Step(100, 1000, 10_000), Step(1000, None, 5_000))
    body = {"publisher_id": made["id"], "query": ""}
    estimate = (await api.call("POST", f"/publishers/{made['slug']}/estimate", json=body, expect=200)).json()
    assert estimate["estimated_cost_atomic"] == 10_000, "the dearest"
    document = (await api.call("GET", f"/publishers/{made['slug']}/openapi.json", expect=200)).json()
    price = document["paths"]["/towns"]["get"]["x-payment-info"]["price"]
    assert price == {"mode": "dynamic", "currency": "USD", "min": "0", "max": "0.01"}
    page = (await api.call("GET", f"{PUBLIC_URL}/store/{made['slug']}", expect=200)).text
    words = "free up to 100, 0.01 USDC up to 1,000, 0.005 USDC beyond"
    assert f"per call, by the month&#39;s calls: {words}" in page


async def test_tiers_may_come_with_the_prices_of_an_asset_and_go_again(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    falling = [{"up_to": 10, "price": "0.02"}, {"price": "0.01"}]
    change = {"asset_id": made["accepted_assets"][0]["id"], "pricing_model": "tiered", "price_tiers": falling}
    await api.call("PUT", pricing_path(owner, made), owner.key, json={**change, "tier_style": "volume"}, expect=200)
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    assert compiled.prices[0].tiers == rate_of([Tier(10, 20_000), Tier(None, 10_000)], "volume")
    gone = {"price_tiers": None, "tier_style": None}
    await api.call("PUT", pricing_path(owner, made).removesuffix("/pricing"), owner.key, json=gone, expect=200)
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    assert compiled.not_served == "has no tiers (price_tiers)"


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"price_tiers": []}, "price_tiers", "1 to 20 tiers"),
        ({"price_tiers": [{"up_to": n, "price": "1"} for n in range(1, 21)] + TIERS[2:]}, "price_tiers", "1 to 20"),
        ({"price_tiers": {"price": "1"}}, "price_tiers", "must be a list"),
        ({"price_tiers": ["1"]}, "price_tiers", "must have tiers such as"),
        ({"price_tiers": [{"price": "1", "flat": "2"}]}, "price_tiers", "nothing else"),
        ({"price_tiers": [{"price": 1}]}, "price_tiers", "no decimal text"),
        ({"price_tiers": [{"price": "-1"}]}, "price_tiers", "must be a plain decimal number"),
        ({"price_tiers": [{"price": "0.0000001"}]}, "price_tiers", "more than 6 digits"),
        ({"price_tiers": [{"price": "0"}]}, "price_tiers", "above 0 in one tier"),
        ({"price_tiers": [{"up_to": 5, "price": "1"}]}, "price_tiers", "last tier without up_to"),
        ({"price_tiers": [{"price": "1"}, {"price": "2"}]}, "price_tiers", "without an up_to"),
        ({"price_tiers": [{"up_to": 0, "price": "0"}, {"price": "2"}]}, "price_tiers", "above 0"),
        ({"price_tiers": [{"up_to": 1.5, "price": "0"}, {"price": "2"}]}, "price_tiers", "whole number"),
        ({"price_tiers": [{"up_to": True, "price": "0"}, {"price": "2"}]}, "price_tiers", "whole number"),
        ({"price_tiers": [TIERS[1], TIERS[0], TIERS[2]]}, "price_tiers", "must end later"),
        ({"price_tiers": [TIERS[0], TIERS[0], TIERS[2]]}, "price_tiers", "must end later"),
        ({"price_tiers": TIERS, "tier_style": "volume"}, "price_tiers", "must not get dearer"),
        ({"price_tiers": TIERS, "tier_style": "flat"}, "tier_style", "must be one of graduated, volume"),
        ({"tier_style": "graduated"}, "tier_style", "needs price_tiers"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    api: Api, clerk: Clerk, fields: dict[str, Any], field: str, words: str
) -> None:
    owner = await clerk.agent()
    body = clerk.order(**fields)
    answer = await api.call("POST", f"/organizations/{owner.organization_id}/publishers", owner.key, json=body)
    assert answer.status_code == 400
    assert words in answer.text
    assert field in answer.text
    if field == "price_tiers" and "tier_style" not in fields:
        made = await clerk.publisher(owner)
        change = {"asset_id": made["accepted_assets"][0]["id"], **fields}
        answer = await api.call("PUT", pricing_path(owner, made), owner.key, json=change)
        assert (answer.status_code, words in answer.text) == (400, True)


async def test_tiers_that_are_set_are_in_force_and_no_other_price_beside_them(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    path, asset = pricing_path(owner, made), made["accepted_assets"][0]["id"]

    async def model() -> str:
        stored = (await api.call("GET", f"/publishers/{made['slug']}", expect=200)).json()["data"]
        return stored["pricing"][0]["pricing_model"]

    assert await model() == "per_request"
    changed = {"price_tiers": TIERS}
    await api.call("PUT", path.removesuffix("/pricing"), owner.key, json=changed, expect=200)
    assert await model() == "tiered"
    for other in ({"pricing_model": "per_request"}, {"pricing_model": None}):
        answer = await api.call("PUT", path, owner.key, json={"asset_id": asset, **other}, expect=400)
        assert answer.json()["errors"][0]["field"] == "pricing_model"
        assert "null clears them" in answer.text
    flat = {"asset_id": asset, "pricing_model": "per_request", "price_per_call": "0.5", "price_tiers": None}
    await api.call("PUT", path, owner.key, json=flat, expect=200)
    assert await model() == "per_request"
    await api.call("PUT", path, owner.key, json={"asset_id": asset, "price_tiers": TIERS}, expect=200)
    assert await model() == "tiered"
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    assert compiled.prices[0].tiers is not None


async def test_what_is_not_sold_by_tiers_is_refused_with_them(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    path = f"/organizations/{owner.organization_id}/publishers"
    for fields, words in (
        ({"billing_model": "pay_per_use", "upstream_cost_header": "X-Cost"}, "billing_model pay_per_use"),
        ({"billing_model": "x402_passthrough"}, "billing_model x402_passthrough"),
        ({"integration_type": "mcp", "mcp_endpoint": "https://api.example.com/mcp"}, "integration_type mcp"),
    ):
        body = clerk.order(**fields, price_tiers=TIERS)
        answer = await api.call("POST", path, owner.key, json=body, expect=400)
        assert answer.json()["errors"][0]["field"] == "price_tiers"
        assert words in answer.text
    made = await clerk.publisher(owner, price_tiers=TIERS)
    change = {"billing_model": "pay_per_use", "upstream_cost_header": "X-Cost"}
    answer = await api.call("PUT", f"{path}/{made['id']}", owner.key, json=change, expect=400)
    assert answer.json()["errors"][0]["field"] == "price_tiers"


async def test_the_least_and_most_of_a_call_are_in_what_is_shown(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, price_tiers=TIERS, endpoints=[{"method": "GET", "path": "/towns"}])
    change = {"asset_id": made["accepted_assets"][0]["id"], "min_charge": "0.006", "max_charge": "0.008"}
    await api.call("PUT", pricing_path(owner, made), owner.key, json=change, expect=200)
    page = (await api.call("GET", f"{PUBLIC_URL}/store/{made['slug']}", expect=200)).text
    assert "free up to 100, 0.008 USDC up to 1,000, 0.006 USDC beyond" in page
    document = (await api.call("GET", f"/publishers/{made['slug']}/openapi.json", expect=200)).json()
    price = document["paths"]["/towns"]["get"]["x-payment-info"]["price"]
    assert (price["min"], price["max"]) == ("0", "0.008")
