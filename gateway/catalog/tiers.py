"""`tiered` prices as publishers write them: their shape, the rules between them, and the compiled form of the hot path.

    "price_tiers": [{"up_to": 100, "price": "0"}, {"up_to": 10000, "price": "0.01"}, {"price": "0.005"}]
    "tier_style": "graduated"

Pure. Prices are decimals of every accepted asset. The formulas are in pricing/tariffs/tiered.py, how calls are counted
is in proxy/tiers.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

from gateway.catalog.assets import Asset
from gateway.catalog.refusals import refused
from pricing.money import MoneyError, parse_amount
from pricing.tariffs.tiered import Style, Tier, TierRate, rate_of

STYLES = ("graduated", "volume")
MAX_TIERS = 20
MAX_CALLS = 10**12

Written = Sequence[Mapping[str, Any]]


def price_tiers(value: Any) -> list[dict[str, Any]] | None:
    """Return tiers in the plain form: a price each, and all but the last where they end. Raises ValueError."""
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(cast("list[Any]", value)) <= MAX_TIERS:
        raise ValueError(f"must be a list of 1 to {MAX_TIERS} tiers")
    items = cast("list[Any]", value)
    found = [_tier(item, last=number == len(items)) for number, item in enumerate(items, 1)]
    bounds = [tier["up_to"] for tier in found[:-1]]
    if any(after >= up_to for after, up_to in pairwise([0, *bounds])):
        raise ValueError("must end later one after the other: each up_to is a whole number above the one before it")
    return found


def _tier(item: Any, *, last: bool) -> dict[str, Any]:
    tier = cast("dict[str, Any]", item) if isinstance(item, dict) else None
    if tier is None or not {*tier} <= {"up_to", "price"}:
        raise ValueError('must have tiers such as {"up_to": 1000, "price": "0.01"}, with nothing else in them')
    up_to, price = tier.get("up_to"), tier.get("price")
    if not isinstance(price, str) or len(price) > 64:
        raise ValueError('has a price that is no decimal text such as "0.01"')
    if last:
        if up_to is not None:
            raise ValueError("must have a last tier without up_to: calls beyond it would have no price")
        return {"price": price}
    if not isinstance(up_to, int) or isinstance(up_to, bool) or not 1 <= up_to <= MAX_CALLS:
        raise ValueError("has a tier before the last without an up_to that is a whole number above 0")
    return {"up_to": up_to, "price": price}


def check_tiers(document: Mapping[str, Any], category: str, assets: Iterable[Asset]) -> None:
    """Raise InvalidRequest when a price is not exact in an accepted asset, or the tiers do not fit their style, or what
    is sold.
    """
    written: Written | None = document.get("price_tiers")
    if written is None:
        if document.get("tier_style") is not None:
            raise refused("tier_style", "needs price_tiers")
        return
    _check_kind(document, category)
    for asset in assets:
        prices = _prices(written, asset)
        if not any(prices):
            raise refused("price_tiers", "must have a price above 0 in one tier at least")
        if document.get("tier_style") == "volume" and any(one < other for one, other in pairwise(prices)):
            raise refused(
                "price_tiers", "must not get dearer with the tier_style volume: calls that are paid would cost more"
            )


def _check_kind(document: Mapping[str, Any], category: str) -> None:
    """Tiers that would never be looked at are refused: calls would have another price than their publisher believes."""
    billing = document.get("billing_model")
    if category != "integration":
        raise refused("price_tiers", f"cannot be combined with publisher_category {category}: APIs alone have tiers")
    if document.get("integration_type") == "mcp":
        raise refused("price_tiers", "cannot be combined with integration_type mcp: tools have fixed prices")
    if billing in ("pay_per_use", "x402_passthrough"):
        raise refused("price_tiers", f"cannot be combined with billing_model {billing}: its answers say what they cost")


def check_model(document: Mapping[str, Any], model: str) -> None:
    """Raise InvalidRequest when a pricing model would leave tiers unlooked at that the publisher has."""
    if document.get("price_tiers") is not None and model != "tiered":
        raise refused("pricing_model", 'must be "tiered" while there are price_tiers; null clears them')


def _prices(written: Written, asset: Asset) -> list[int]:
    try:
        return [parse_amount(tier["price"], asset.decimals) for tier in written]
    except MoneyError as error:
        raise refused("price_tiers", f"has a price that {error}") from None


def limited(document: Mapping[str, Any], model: str, asset: Asset, least: int, most: int | None) -> list[Tier]:
    """Return a publisher's tiers in an asset, limited to what a call may cost; none for another pricing model."""
    written: Written = document.get("price_tiers") or ()
    if model != "tiered":
        return []
    return [Tier(one.get("up_to"), parse_amount(one["price"], asset.decimals)).within(least, most) for one in written]


def compile_tiers(
    document: Mapping[str, Any], model: str, asset: Asset, least: int, most: int | None
) -> TierRate | None:
    """Return what calls cost in an asset by the caller's month; None for another pricing model, or without tiers."""
    style: Style = document.get("tier_style") or "graduated"
    tiers = limited(document, model, asset, least, most)
    return rate_of(tiers, style) if tiers else None


def untiered(document: Mapping[str, Any], pricing: Mapping[str, Any] | None) -> str | None:
    """Return in words what a publisher lacks whose prices are to be tiered, or None."""
    if pricing is not None and pricing["model"] == "tiered" and not document.get("price_tiers"):
        return "has no tiers (price_tiers)"
    return None
