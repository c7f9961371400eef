"""What a publisher charges where the price is known after the call: `pay_per_use` billing, and `per_byte` prices.

Pure: the fields as requests have them, the rules between them, and the compiled form of the hot path. Amounts are
decimals of every accepted asset. The formulas are in pricing/tariffs, what happens to the money: proxy/purses/hold.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, cast

from gateway.catalog import checks
from gateway.catalog.assets import Asset
from gateway.catalog.refusals import refused
from pricing.money import MoneyError, parse_amount
from pricing.reported import Watch
from pricing.tariffs.pay_per_use import UsageRate
from pricing.tariffs.per_byte import ByteRate
from pricing.tariffs.x402_passthrough import PurchaseRate
from pricing.usage import PriceList

AMOUNTS = ("reserve_max_charge", "unresolved_fallback_charge", "price_per_mib")
SOURCES = ("upstream_cost_response_path", "upstream_cost_header", "upstream_usage_prices")
MAX_USAGE_PRICES = 16


def usage_prices(value: Any) -> dict[str, str] | None:
    """Return prices of a million units by the path of their count. Raises ValueError."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError('must be an object such as {"usage.total_tokens": "0.60"}')
    items = cast("dict[Any, Any]", value)
    if not 1 <= len(items) <= MAX_USAGE_PRICES:
        raise ValueError(f"must name 1 to {MAX_USAGE_PRICES} paths")
    for path, price in items.items():
        if not checks.RESPONSE_PATH.fullmatch(str(path)):
            raise ValueError("has a name that is no dotted path into the answer, such as usage.total_tokens")
        if not isinstance(price, str) or len(price) > 64:
            raise ValueError('has a price that is no decimal text such as "0.60"')
    return {str(path): price for path, price in items.items()}


def check_metering(document: Mapping[str, Any], assets: Iterable[Asset]) -> None:
    """Raise InvalidRequest when the fields contradict each other, or an amount is not exact in an accepted asset."""
    named = [name for name in SOURCES if document.get(name) is not None]
    billing = document.get("billing_model")
    if named and billing != "pay_per_use":
        raise refused(named[-1], "needs the billing_model pay_per_use")
    if billing == "pay_per_use":
        if len(named) > 1:
            raise refused(named[1], f"cannot be combined with {named[0]}: the cost is read in one place")
        if document.get("websocket_enabled"):
            raise refused("websocket_enabled", "cannot be combined with pay_per_use: a connection names no cost")
    elif billing == "x402_passthrough":
        _check_passthrough(document)
    amounts = [(name, document.get(name)) for name in AMOUNTS]
    prices: Mapping[str, str] = document.get("upstream_usage_prices") or {}
    amounts += [("upstream_usage_prices", price) for price in prices.values()]
    for asset in assets:
        for name, text in amounts:
            _check_amount(name, text, asset)


def _check_passthrough(document: Mapping[str, Any]) -> None:
    if document.get("gateway_fee_percent", "0") != "0" and document.get("reserve_max_charge") is None:
        raise refused(
            "gateway_fee_percent",
            "must be 0 with x402_passthrough and no reserve_max_charge: payments go to the upstream alone",
        )
    if document.get("websocket_enabled"):
        raise refused("websocket_enabled", "cannot be combined with x402_passthrough: handshakes carry no payments on")


def _check_amount(name: str, text: str | None, asset: Asset) -> None:
    try:
        amount = None if text is None else parse_amount(text, asset.decimals)
    except MoneyError as error:
        raise refused(name, str(error)) from None
    if amount == 0 and name in ("reserve_max_charge", "price_per_mib"):
        raise refused(name, "must be above 0")


def compile_watch(document: Mapping[str, Any]) -> Watch:
    """Return where a publisher's answers say what they cost."""
    header = document.get("upstream_cost_header")
    return Watch(
        document.get("upstream_cost_response_path"),
        str(header).lower().encode() if header else None,
        tuple(document.get("upstream_usage_prices") or ()),
    )


def compile_rate(
    document: Mapping[str, Any], model: str, asset: Asset, prices: PriceList, markup: Fraction
) -> UsageRate | ByteRate | None:
    """Return what an asset's metered calls cost; None where prices are fixed, or one is missing (`unmetered`)."""
    reserve = _reserve(document, asset, prices)
    if document.get("billing_model") == "pay_per_use":
        fallback = _amount(document, "unresolved_fallback_charge", asset)
        fallback = prices.per_call if fallback is None else fallback
        if reserve is None or fallback is None:
            return None
        units: Mapping[str, str] = document.get("upstream_usage_prices") or {}
        return UsageRate(
            reserve,
            fallback,
            asset.decimals,
            document.get("upstream_cost_response_path"),
            tuple((path, parse_amount(price, asset.decimals)) for path, price in units.items()),
            markup,
            prices.minimum,
            prices.fee_ppm,
        )
    per_mib = _amount(document, "price_per_mib", asset)
    if model != "per_byte" or reserve is None or per_mib is None:
        return None
    return ByteRate(reserve, per_mib, markup, prices.minimum, prices.fee_ppm)


def compile_purchase(
    document: Mapping[str, Any], asset: Asset, prices: PriceList, markup: Fraction
) -> PurchaseRate | None:
    """Return what callers pay for what is bought for them; None unless it is said what that may cost at most."""
    reserve = _reserve(document, asset, prices)
    if document.get("billing_model") != "x402_passthrough" or reserve is None:
        return None
    return PurchaseRate(reserve, markup, prices.minimum, prices.fee_ppm)


def unmetered(document: Mapping[str, Any], pricing: Mapping[str, Any] | None) -> str | None:
    """Return in words what a publisher lacks whose prices are to be known after the call, or None."""
    billing = document.get("billing_model")
    row: Mapping[str, Any] = pricing or {"model": "per_request"}
    model = row["model"]
    if billing != "pay_per_use" and model != "per_byte":
        return None
    if not (document.get("reserve_max_charge") or row.get("max")):
        return "does not say what its calls cost at most (reserve_max_charge)"
    if billing != "pay_per_use":
        return None if document.get("price_per_mib") else "has no price of bytes (price_per_mib)"
    if not any(document.get(name) for name in SOURCES):
        return f"does not say where its answers name their cost ({', '.join(SOURCES)})"
    if document.get("unresolved_fallback_charge") is None and row.get("per_call") is None:
        return "does not say what an answer costs that names no cost (unresolved_fallback_charge)"
    return None


def _reserve(document: Mapping[str, Any], asset: Asset, prices: PriceList) -> int | None:
    """Return the most that a call costs; at least the least."""
    chosen = [one for one in (_amount(document, "reserve_max_charge", asset), prices.maximum) if one]
    return max(min(chosen), prices.minimum) if chosen else None


def _amount(document: Mapping[str, Any], name: str, asset: Asset) -> int | None:
    text = document.get(name)
    return None if text is None else parse_amount(str(text), asset.decimals)
