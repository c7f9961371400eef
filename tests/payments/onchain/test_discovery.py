"""What the gateway lists for wallets is what its 402 asks for."""

from __future__ import annotations

from tests.payments.onchain.buyer import PRICE, decoded
from tests.payments.onchain.conftest import Buying
from tests.support.gateway import RunningGateway
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
    shop = await world.publisher(PRICE, SEPOLIA_USDC, endpoints=endpoints)
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
    assert "x402" in (await client.get("/llms.txt")).text
    document = (await client.get(f"/publishers/{shop.slug}/openapi.json")).json()
    assert document["paths"]["/v1/data"]["get"]["x-payment-info"]["protocols"] == [{"x402": {}}, {"prepaid": {}}]
