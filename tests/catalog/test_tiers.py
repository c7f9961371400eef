"""Tiers as the gateway charges them: the documented formula worked out once more, for any tiers, bounds and fee."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.assets import Asset
from gateway.catalog.tiers import check_model, check_tiers, compile_tiers, price_tiers
from gateway.errors import InvalidRequest
from pricing.money import format_amount, parse_amount
from pricing.quote import Quote
from pricing.tariffs import per_request
from pricing.usage import PriceList, Usage

USDC = Asset(UUID(int=1), "eip155:8453", "Base", "USDC", "USD Coin", 6, None, False, True, UUID(int=1), True)


@st.composite
def sold(draw: st.DrawFn) -> tuple[dict[str, Any], PriceList]:
    """Return a publisher's document and its prices."""
    bounds = sorted(draw(st.sets(st.integers(1, 25), max_size=4)))
    found = draw(st.lists(st.integers(0, 30), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    style = draw(st.sampled_from([None, "graduated", "volume"]))
    if style == "volume":
        found.sort(reverse=True)
    found[0] = found[0] if any(found) else 5
    tiers = [
        {"up_to": up_to, "price": format_amount(price, 6)} for up_to, price in zip([*bounds, None], found, strict=True)
    ]
    least = draw(st.integers(0, 20))
    most = draw(st.none() | st.integers(max(least, 1), 40))
    prices = PriceList(minimum=least, maximum=most, fee_ppm=draw(st.integers(0, 1_000_000)))
    return {"price_tiers": price_tiers(tiers), "tier_style": style}, prices


def charges(document: Mapping[str, Any], prices: PriceList, calls: int) -> list[Quote]:
    """Return what the calls of a month are quoted, one after the other."""
    rate = compile_tiers(document, "tiered", USDC, prices.minimum, prices.maximum)
    assert rate is not None
    steps = (rate.step_after(used) for used in range(calls))
    return [per_request.quote(replace(prices, per_call=step.price), Usage()) for step in steps]


def by_the_formula(document: Mapping[str, Any], prices: PriceList, calls: int) -> list[int]:
    """Return the charges that docs/pricing.md promises."""

    def limited(price: int) -> int:
        least = max(price, prices.minimum) if price else 0
        return least if prices.maximum is None else min(least, prices.maximum)

    def of_tier(number: int) -> int:
        tiers = document["price_tiers"]
        tier = next(one for one in tiers if one.get("up_to") is None or number <= one["up_to"])
        return limited(parse_amount(tier["price"], 6))

    if document["tier_style"] != "volume":
        return [of_tier(number) for number in range(1, calls + 1)]
    paid = [0, *accumulate((number * of_tier(number) for number in range(1, calls + 1)), max)]
    return [limited(after - before) for before, after in pairwise(paid)]


@given(sold(), st.integers(0, 90))
def test_every_call_costs_what_the_formula_says(shop: tuple[dict[str, Any], PriceList], calls: int) -> None:
    document, prices = shop
    check_tiers(document, "integration", [USDC])
    quotes = charges(document, prices, calls)
    assert [one.amount for one in quotes] == by_the_formula(document, prices, calls)


@given(sold(), st.integers(1, 90))
def test_bounds_and_fees_hold_for_each_call_and_a_month_never_gets_cheaper(
    shop: tuple[dict[str, Any], PriceList], calls: int
) -> None:
    document, prices = shop
    quotes = charges(document, prices, calls)
    assert all(one.amount == 0 or one.amount >= prices.minimum for one in quotes)
    assert all(prices.maximum is None or one.amount <= prices.maximum for one in quotes)
    assert all(one.fee == one.amount * prices.fee_ppm // 1_000_000 for one in quotes)
    assert all(one.fee + one.publisher_part == one.amount and one.publisher_part >= 0 for one in quotes)
    rate = compile_tiers(document, "tiered", USDC, prices.minimum, prices.maximum)
    assert rate is not None
    dearest = per_request.quote(replace(prices, per_call=rate.dearest), Usage())
    assert all(one.amount <= dearest.amount for one in quotes), "who is unknown pays at least what anybody does"


@given(sold(), st.integers(1, 90))
def test_a_volume_month_comes_to_its_last_tier_unless_the_least_of_a_call_raises_it(
    shop: tuple[dict[str, Any], PriceList], calls: int
) -> None:
    document, prices = shop
    document = {**document, "tier_style": "volume"}
    document["price_tiers"] = [
        {**tier, "price": price}
        for tier, price in zip(
            document["price_tiers"],
            sorted((one["price"] for one in document["price_tiers"]), key=Decimal, reverse=True),
            strict=True,
        )
    ]
    prices = replace(prices, minimum=0)
    total = sum(one.amount for one in charges(document, prices, calls))
    each = by_the_formula({**document, "tier_style": "graduated"}, prices, calls)
    assert total == max(number * price for number, price in enumerate(each, 1))


@pytest.mark.parametrize(
    ("category", "fields", "words"),
    [
        ("database", {}, "publisher_category database"),
        ("compute", {}, "publisher_category compute"),
        ("integration", {"integration_type": "mcp"}, "integration_type mcp"),
        ("integration", {"billing_model": "pay_per_use"}, "billing_model pay_per_use"),
        ("integration", {"billing_model": "x402_passthrough"}, "billing_model x402_passthrough"),
    ],
)
def test_what_is_not_sold_by_tiers_cannot_have_them(category: str, fields: dict[str, Any], words: str) -> None:
    document = {"price_tiers": [{"price": "0.01"}], **fields}
    with pytest.raises(InvalidRequest, match=words):
        check_tiers(document, category, [USDC])
    check_tiers({**document, "price_tiers": None}, category, [USDC])


def test_tiers_cannot_be_stored_beside_another_pricing_model() -> None:
    document = {"price_tiers": [{"price": "0.01"}]}
    with pytest.raises(InvalidRequest, match="null clears them"):
        check_model(document, "per_request")
    check_model(document, "tiered")
    check_model({}, "per_request")
