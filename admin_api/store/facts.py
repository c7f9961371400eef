"""What the store's pages and documents say of a publisher, with prices by the functions that charge them. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from gateway.catalog.assets import Asset
from gateway.catalog.prices import Pricing, call_prices
from gateway.catalog.records import Publisher
from gateway.catalog.tiers import limited
from gateway.json_text import json_text
from pricing.money import format_amount, parse_amount
from pricing.tariffs import per_request
from pricing.tariffs.per_row import RowRate
from pricing.tariffs.tiered import Style, Tier, rate_of
from pricing.usage import PriceList, Usage

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class PriceTag:
    """A price as people and documents read it; `amount` and `most` are decimals of the asset, None if not known.

    Of tiers these are the cheapest and the dearest, and `detail` says them all.
    """

    kind: str  # fixed, free, rows, metered, tiered, foreign, unsold
    symbol: str = ""
    amount: str | None = None
    most: str | None = None
    detail: str = ""

    @property
    def words(self) -> str:
        """Return the tag in words."""
        match self.kind:
            case "fixed":
                return f"{self.amount} {self.symbol} per call"
            case "rows":
                return f"{self.amount} {self.symbol} per 1,000 rows"
            case "metered":
                bounds = [f"from {self.amount} {self.symbol}"] if self.amount else []
                bounds += [f"at most {self.most} {self.symbol} per call"] if self.most else []
                return ", ".join(["by use", *bounds])
            case "tiered":
                return self.detail
            case "foreign":
                return "at its own server's prices" + (f", at most {self.most} {self.symbol}" if self.most else "")
            case "free":
                return "free"
            case _:
                return "not for sale"


UNSOLD = PriceTag("unsold")


def tag(publisher: Publisher, method: str, endpoint: Mapping[str, Any] | None = None) -> PriceTag:
    """Return what a call costs in the primary asset."""
    if not publisher.pricing:
        return UNSOLD
    row, asset = publisher.pricing[0], publisher.assets[0]
    if publisher.record.category == "database":
        return _rows(row, asset)
    if publisher.record.category != "integration":
        return UNSOLD
    if publisher.record.document.get("billing_model") == "x402_passthrough":
        # Prices that are stored here do not count: its server names them.
        return PriceTag("foreign", asset.symbol, None, publisher.record.document.get("reserve_max_charge"))
    prices, own = call_prices(publisher.record.document, publisher.pricing), (endpoint or {}).get("price")
    if prices is None:
        return UNSOLD
    fixed = own not in (None, "") or prices.for_method(method) is not None
    if _is_metered(publisher, row) and not fixed:
        most = publisher.record.document.get("reserve_max_charge") or _shown(row.max_charge, asset)
        least = _shown(row.min_display_price, asset)
        return PriceTag("metered", asset.symbol, least, most)
    tiers = limited(publisher.record.document, row.pricing_model, asset, row.min_charge, row.max_charge)
    if tiers and not fixed:
        return _tiered(tiers, publisher.record.document.get("tier_style") or "graduated", prices, asset)
    if not prices.sells(method) and own in (None, ""):
        return UNSOLD
    price = None if own in (None, "") else parse_amount(str(own), asset.decimals)
    amount = per_request.quote(prices, Usage(method=method), price).amount
    return PriceTag("fixed", asset.symbol, _shown(amount, asset)) if amount else PriceTag("free")


def is_mcp(publisher: Publisher) -> bool:
    """Return whether tools of an MCP server are sold."""
    return publisher.record.category == "integration" and publisher.record.document.get("integration_type") == "mcp"


def methods(publisher: Publisher) -> tuple[str, ...]:
    """Return the methods of calls that have a price: a tool is called by POST, over MCP as well."""
    return ("POST",) if is_mcp(publisher) else METHODS


def _is_metered(publisher: Publisher, row: Pricing) -> bool:
    billing = publisher.record.document.get("billing_model") or "prepaid_credits"
    return billing == "pay_per_use" or row.pricing_model not in ("per_request", "per_row", "tiered")


def _tiered(tiers: Sequence[Tier], style: Style, prices: PriceList, asset: Asset) -> PriceTag:
    """Return the tag of tiers, with all of them in words."""
    steps: list[str] = []
    for tier in tiers:
        steps.append(f"{_shown(tier.price, asset)} {asset.symbol}" if tier.price else "free")
        steps[-1] += f" up to {tier.up_to:,}" if tier.up_to else " beyond" if len(steps) > 1 else ""
    words = f"per call, by the month's calls: {', '.join(steps)}"
    if style == "volume":
        words += "; the tier that is reached holds for all"
    charges = [
        per_request.quote(replace(prices, per_call=step.price), Usage()).amount for step in rate_of(tiers, style).steps
    ]
    return PriceTag("tiered", asset.symbol, _shown(min(charges), asset), _shown(max(charges), asset), words)


def _rows(row: Pricing, asset: Asset) -> PriceTag:
    rate = RowRate(
        row.base_price_per_1000_rows, Fraction(row.markup_multiplier), row.min_charge, row.max_charge, fee_ppm=0
    )
    amount = rate.quote(1_000).amount
    return PriceTag("rows", asset.symbol, _shown(amount, asset), _shown(row.max_charge, asset)) if amount else UNSOLD


def _shown(amount: int | None, asset: Asset) -> str | None:
    return None if amount is None else format_amount(amount, asset.decimals)


def summary(publisher: Publisher) -> str:
    """Return the price at a glance: one price, or the cheapest of several."""
    if publisher.record.category == "database":
        return tag(publisher, "POST").words
    found = [tag(publisher, one["method"], one) for one in sold(publisher)]
    if publisher.record.document.get("undocumented_endpoint_policy") != "default_deny" or not found:
        found += [tag(publisher, method) for method in methods(publisher)]
    on_sale = list(dict.fromkeys(one for one in found if one.kind != "unsold"))
    if not on_sale:
        return UNSOLD.words
    if len(on_sale) == 1:
        return on_sale[0].words
    priced = [one for one in on_sale if one.kind == "fixed"]
    if not priced or any(one.kind in ("metered", "tiered") for one in on_sale):
        return next(one.words for one in on_sale if one.kind != "free")
    decimals = publisher.assets[0].decimals
    least = min(priced, key=lambda one: parse_amount(one.amount or "0", decimals))
    return f"from {least.words}" if len(priced) == len(on_sale) else f"free, or from {least.words}"


def sold(publisher: Publisher) -> list[dict[str, Any]]:
    """Return the documented endpoints that are on sale, the default one first: it stands for the publisher."""
    listed: list[dict[str, Any]] = publisher.record.document.get("endpoints") or []
    return sorted(
        (one for one in listed if _is_sold(publisher, one)),
        key=lambda endpoint: not endpoint.get("is_default"),
    )


def _is_sold(publisher: Publisher, endpoint: Mapping[str, Any]) -> bool:
    """Return whether an endpoint can be called: it is not protected and, where others have a price, has one."""
    if endpoint.get("is_protected") or endpoint["method"] not in methods(publisher):
        return False
    return not publisher.pricing or tag(publisher, endpoint["method"], endpoint).kind != "unsold"


def example_body(endpoint: Mapping[str, Any]) -> Any:
    """Return a body that shows what to send: the example, else the template to fill in."""
    example = endpoint.get("example_request")
    return endpoint.get("body_template") if example is None else example


def call(publisher: Publisher, public_url: str, endpoint: Mapping[str, Any] | None) -> str:
    """Return a curl command that calls the publisher: every part is quoted, because people paste it into a shell."""
    url = f"{public_url}/publishers/{publisher.record.slug}"
    parts = ["curl"]
    if publisher.record.category == "database":
        parts += ["-H", "Content-Type: application/json", "-d", '{"query": "SELECT 1"}']
    elif endpoint is None and is_mcp(publisher):
        url += "/_tools"
    elif endpoint is not None:
        url += endpoint["path"]
        if endpoint["method"] != "GET":
            parts += ["-X", endpoint["method"]]
        body = example_body(endpoint)
        if body is not None:
            parts += ["-H", "Content-Type: application/json", "-d", json_text(body).decode()]
    quoted = [part if part in ("curl", "-H", "-X", "-d") else shlex.quote(part) for part in [*parts, url]]
    return " ".join(quoted) + ' -H "Authorization: Bearer $KEY"'
