"""What the gateway lists for wallets is what its 402 asks for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.payments.onchain.buyer import PRICE, decoded
from tests.payments.onchain.conftest import Buying
from tests.support.gateway import RunningGateway
from tests.support.mcp_server import PublishersServer
from tests.support.world import SEPOLIA_USDC, World


async def test_the_list_of_what_wallets_can_buy_is_what_their_402_says(
    world: World, gateway: RunningGateway, buying: Buying
) -> None:
    endpoints = [
        {"method": "GET", "path": "/v1/data"},
        {"method": "GET", "path": "/v1/items/{id}", "price": "0.5"},
        {"method": "GET", "path": "/free", "price": "0"},
        {"method": "GET", "path": "/admin", "is_protected": True},
    ]
    shop = await world.publisher(PRICE, SEPOLIA_USDC, endpoints=endpoints, refund_rules={"empty_result": "rows"})
    client = (await buying()).client
    listed = (await client.get("/.well-known/x402")).json()
    mine = {item["resource"]: item for item in listed["items"] if item["metadata"]["publisher"] == shop.slug}
    base = f"https://tollway.test/publishers/{shop.slug}"
    assert set(mine) == {f"{base}/v1/data", f"{base}/v1/items/{{id}}"}
    assert [url for url in listed["resources"] if shop.slug in url] == [f"{base}/v1/data"]
    for listing, path in ((f"{base}/v1/data", "/v1/data"), (f"{base}/v1/items/{{id}}", "/v1/items/7")):
        asked = await client.get(f"/publishers/{shop.slug}{path}")
        assert asked.status_code == 402
        assert mine[listing]["accepts"] == decoded(asked.headers["payment-required"])["accepts"]
        assert mine[listing]["metadata"]["free_when"] == asked.json()["seren"]["free_when"]
    assert {item["metadata"]["pricing"] for item in mine.values()} == {"fixed"}
    assert "x402" in (await client.get("/llms.txt")).text
    document = (await client.get(f"/publishers/{shop.slug}/openapi.json")).json()
    assert document["paths"]["/v1/data"]["get"]["x-payment-info"]["protocols"] == [{"x402": {}}, {"prepaid": {}}]


TIERS = [{"up_to": 3, "price": "0"}, {"price": "0.004"}]
SOLD_OTHERWISE: dict[str, tuple[str, dict[str, Any]]] = {
    "metered": ("GET", {"pricing_model": "per_byte", "price_per_mib": "0.1", "reserve_max_charge": "0.2"}),
    "tiered": ("GET", {"pricing_model": "tiered", "price_tiers": TIERS}),
    "fixed": ("POST", {"integration_type": "mcp", "api_url": None}),
}


@pytest.mark.parametrize("pricing", SOLD_OTHERWISE)
async def test_what_costs_by_use_by_tiers_or_by_tool_is_listed_at_the_most(
    world: World, gateway: RunningGateway, buying: Buying, mcp_server: PublishersServer, pricing: str
) -> None:
    method, fields = SOLD_OTHERWISE[pricing]
    endpoints = [{"method": method, "path": "/counted"}]
    if fields.get("integration_type") == "mcp":
        fields = {**fields, "mcp_endpoint": mcp_server.url}
        endpoints.append({"method": "GET", "path": "/no-tool"})
    price = None if pricing == "tiered" else PRICE
    shop = await world.publisher(price, SEPOLIA_USDC, endpoints=endpoints, **fields)
    client = (await buying()).client
    listed = (await client.get("/.well-known/x402")).json()
    (mine,) = [item for item in listed["items"] if item["metadata"]["publisher"] == shop.slug]
    assert mine["metadata"]["pricing"] == pricing
    assert "free_when" not in mine["metadata"]
    asked = await client.request(method, f"/publishers/{shop.slug}/counted", json={} if method == "POST" else None)
    assert asked.status_code == 402
    assert mine["accepts"] == decoded(asked.headers["payment-required"])["accepts"]
