"""What owner and store say of whether calls work now is what a call would find."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin_api.conftest import PUBLIC_URL, Api, Clerk

TAKES_NOTHING = "takes no payments: balances are switched off (prepaid_enabled), and wallets cannot pay its assets here"


@pytest.mark.parametrize(
    ("fields", "prices", "reason"),
    [
        ({}, {}, None),
        ({"price_per_call": None}, {}, None),  # free
        ({}, {"pricing_model": "tiered"}, "has no tiers (price_tiers)"),
        (
            {},
            {"pricing_model": "per_row"},
            "has the pricing model per_row, and the billing model prepaid_credits goes with per_byte or per_request or tiered",
        ),
        (
            {"billing_model": "pay_per_use", "upstream_cost_response_path": "usage.cost"},
            {},
            "does not say what its calls cost at most (reserve_max_charge)",
        ),
        ({}, {"prepaid_enabled": False}, TAKES_NOTHING),
        ({"price_per_call": None}, {"prepaid_enabled": False}, None),
    ],
)
async def test_a_publisher_says_whether_it_can_be_called(
    api: Api, clerk: Clerk, fields: dict[str, Any], prices: dict[str, Any], reason: str | None
) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner, **fields)
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    if prices:
        change = {"asset_id": made["accepted_assets"][0]["id"], **prices}
        await api.call("PUT", f"{path}/pricing", owner.key, json=change, expect=200)
    for where, key in ((path, owner.key), (f"/publishers/{made['slug']}", None)):
        shown = (await api.call("GET", where, key, expect=200)).json()["data"]
        assert (shown["ready"], shown["not_ready"]) == (reason is None, reason)
    page = (await api.call("GET", f"{PUBLIC_URL}/store/{made['slug']}", expect=200)).text
    assert (f"cannot be called now: it {reason}." in page) == (reason is not None)


async def test_an_inactive_one_is_not_ready(api: Api, clerk: Clerk) -> None:
    owner = await clerk.agent()
    made = await clerk.publisher(owner)
    assert (made["ready"], made["not_ready"]) == (True, None), "as soon as it is there"
    path = f"/organizations/{owner.organization_id}/publishers/{made['id']}"
    off = (await api.call("PUT", path, owner.key, json={"is_active": False}, expect=200)).json()["data"]
    assert (off["ready"], off["not_ready"]) == (False, "is not active")
