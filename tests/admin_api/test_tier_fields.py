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
