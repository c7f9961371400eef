"""A publisher whose model or credential no code serves yet is refused: it is never sold at another price than its own."""

import pytest

from gateway.database.pool import Connection
from tests.support.gateway import RunningGateway
from tests.support.upstream import RecordingUpstream
from tests.support.world import Shop, World


async def refusal(gateway: RunningGateway, world: World, shop: Shop) -> str:
    agent = await world.agent(1_000_000)
    answer = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
    assert (answer.status_code, answer.json()["type"]) == (501, "/problems/kind-not-served")
    assert await world.balance(agent) == 1_000_000
    return answer.json()["detail"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"billing_model": "pay_per_use"}, "cost at most (reserve_max_charge)"),
        ({"billing_model": "pay_per_use", "reserve_max_charge": "1"}, "where its answers name their cost"),
        (
            {"billing_model": "x402_passthrough"},
            "pricing model per_request, and the billing model x402_passthrough goes with",
        ),
        ({"integration_type": "mcp"}, "neither an HTTP API nor an MCP server"),
        ({"requires_user_oauth": True}, "names no provider"),
        ({"ownership_tracking_enabled": True}, "tracks who owns"),
        ({"protected_operations": ["DELETE"]}, "protects operations"),
    ],
)
@pytest.mark.parametrize("price", [None, 10_000])
async def test_what_is_not_served_is_neither_sold_nor_given_away(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, document: dict, reason: str, price: int | None
) -> None:
    upstream.forget()
    assert reason in await refusal(gateway, world, await world.publisher(price, **document))
    assert upstream.calls == 0


async def test_a_pricing_model_without_its_prices_is_refused(
    gateway: RunningGateway, world: World, connection: Connection, upstream: RecordingUpstream
) -> None:
    upstream.forget()
    shop = await world.publisher(10_000)
    await connection.execute("UPDATE catalog.pricing SET pricing_model = 'tiered' WHERE publisher_id = $1", shop.id)
    await world.told()
    assert "has no tiers (price_tiers)" in await refusal(gateway, world, shop)
    assert upstream.calls == 0


async def test_a_use_that_names_no_cost_must_have_a_price(gateway: RunningGateway, world: World) -> None:
    fields = {"billing_model": "pay_per_use", "reserve_max_charge": "1", "upstream_cost_response_path": "usage.cost"}
    assert "unresolved_fallback_charge" in await refusal(gateway, world, await world.publisher(None, **fields))


@pytest.mark.parametrize("model", ["prepaid_credits", "x402_per_request"])
async def test_fixed_prices_are_served_to_prepaid_callers(gateway: RunningGateway, world: World, model: str) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher(10_000, billing_model=model)
    answer = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.01")
