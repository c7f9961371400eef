"""How owners say what use and bytes cost: shown to who may buy, in force at once, and refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from pricing.reported import Watch
from pricing.tariffs.pay_per_use import UsageRate
from pricing.tariffs.per_byte import ByteRate
from tests.admin_api.conftest import Api, Clerk

TOKENS = {
    "billing_model": "pay_per_use",
    "gateway_fee_percent": "10",
    "upstream_usage_prices": {"usage.prompt_tokens": "0.15", "usage.completion_tokens": "0.60"},
    "reserve_max_charge": "0.05",
    "unresolved_fallback_charge": "0.01",
}


async def test_what_use_costs_is_shown_and_in_force(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, **TOKENS)
    stored = (await api.call("GET", f"/publishers/{made['slug']}", expect=200)).json()["data"]
    for shown in (made, stored):
        assert {name: shown[name] for name in TOKENS} == TOKENS
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    assert compiled.not_served is None
    assert compiled.watch == Watch(unit_paths=("usage.prompt_tokens", "usage.completion_tokens"))
    prices = (("usage.prompt_tokens", 150_000), ("usage.completion_tokens", 600_000))
    rate = compiled.prices[0].metered
    assert isinstance(rate, UsageRate)
    assert (rate.reserve, rate.unit_prices, rate.fee_ppm) == (50_000, prices, 100_000)
    body = {"publisher_id": made["id"], "query": ""}
    estimate = (await api.call("POST", f"/publishers/{made['slug']}/estimate", json=body, expect=200)).json()
    assert estimate["estimated_cost_atomic"] == 50_000, "the most"


async def test_a_price_of_bytes_is_in_force_with_its_pricing_model(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, price_per_mib="0.001", reserve_max_charge="1")
    assert made["pricing"][0]["pricing_model"] == "per_byte", "bytes with a price are not given away"
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    for model, most in (("per_request", "1"), ("per_byte", "0.5")):
        change = {"asset_id": made["accepted_assets"][0]["id"], "pricing_model": model, "max_charge": most}
        await api.call("PUT", f"{path}/pricing", owner.key, json=change, expect=200)
    compiled = api.services.catalog.find(made["slug"])
    assert compiled is not None
    assert compiled.prices[0].metered == ByteRate(500_000, 1_000)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"upstream_usage_prices": {"usage.tokens": "-1"}}, "upstream_usage_prices", "must be a plain decimal number"),
        ({"upstream_usage_prices": {"a..b": "1"}}, "upstream_usage_prices", "no dotted path"),
        ({"upstream_usage_prices": {"a": 1}}, "upstream_usage_prices", "no decimal text"),
        ({"upstream_usage_prices": {}}, "upstream_usage_prices", "must name 1 to 16 paths"),
        ({"upstream_usage_prices": ["a"]}, "upstream_usage_prices", "must be an object"),
        ({"upstream_cost_header": "X Cost"}, "upstream_cost_header", "not a token"),
        ({"upstream_cost_header": "X-Cost"}, "upstream_cost_header", "cannot be combined"),
        ({"upstream_cost_response_path": "usage.cost"}, "upstream_", "cannot be combined"),
        ({"reserve_max_charge": "0"}, "reserve_max_charge", "must be above 0"),
        ({"reserve_max_charge": "0.0000001"}, "reserve_max_charge", "more than 6 digits"),
        ({"unresolved_fallback_charge": 1}, "unresolved_fallback_charge", "must be a string"),
        ({"websocket_enabled": True}, "websocket_enabled", "cannot be combined with pay_per_use"),
        ({"billing_model": "prepaid_credits"}, "upstream_usage_prices", "needs the billing_model pay_per_use"),
        ({"billing_model": "x402_passthrough"}, "upstream_usage_prices", "needs the billing_model pay_per_use"),
        (
            {"billing_model": ..., "upstream_usage_prices": ..., "upstream_cost_response_path": "usage.cost"},
            "upstream_cost_response_path",
            "needs the billing_model pay_per_use",
        ),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    api: Api, clerk: Clerk, fields: dict[str, Any], field: str, words: str
) -> None:
    owner = await clerk.agent()
    body = clerk.order(**{**TOKENS, **fields})
    answer = await api.call("POST", f"/organizations/{owner.organization_id}/publishers", owner.key, json=body)
    assert answer.status_code == 400
    assert words in answer.text
    assert field in answer.text
