"""Prices of a publisher in one asset: from decimal strings to atomic units and back, and their table.

Amounts are parsed with the asset's own decimals and refused when they do not fit, never rounded. What does not live
here: what a call costs (pricing/).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any
from uuid import UUID

from gateway.catalog.assets import Asset
from gateway.catalog.refusals import refused
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from pricing.money import MoneyError, format_amount, parse_amount, parse_ratio
from pricing.usage import PriceList

NULLABLE_AMOUNTS = (
    "price_per_call",
    "price_per_get",
    "price_per_post",
    "price_per_put",
    "price_per_patch",
    "price_per_delete",
    "price_per_execution",
    "hourly_rate",
    "max_charge",
    "min_display_price",
)
PLAIN_AMOUNTS = ("base_price_per_1000_rows", "min_charge", "minimum_balance", "low_balance_threshold")
AMOUNTS = (*NULLABLE_AMOUNTS, *PLAIN_AMOUNTS)
MAX_MULTIPLIER = 999_999
# What the column has when nobody set it; null in a request goes back to it.
DEFAULTS: Mapping[str, object] = {
    **dict.fromkeys(PLAIN_AMOUNTS, 0),
    "markup_multiplier": "1",
    "pricing_model": "per_request",
    "payment_expiry_minutes": 5,
    "onchain_enabled": True,
    "prepaid_enabled": True,
}


@dataclass(frozen=True, slots=True)
class Pricing:
    """One row of catalog.pricing; amounts are atomic units of the asset, None means "not set"."""

    publisher_id: UUID
    asset_id: UUID
    pricing_model: str = "per_request"
    price_per_call: int | None = None
    price_per_get: int | None = None
    price_per_post: int | None = None
    price_per_put: int | None = None
    price_per_patch: int | None = None
    price_per_delete: int | None = None
    price_per_execution: int | None = None
    base_price_per_1000_rows: int = 0
    hourly_rate: int | None = None
    markup_multiplier: str = "1"
    min_charge: int = 0
    max_charge: int | None = None
    min_display_price: int | None = None
    pricing_display_text: str | None = None
    minimum_balance: int = 0
    low_balance_threshold: int = 0
    grace_period_minutes: int | None = None
    max_queries_per_minute: int | None = None
    payment_expiry_minutes: int = 5
    onchain_enabled: bool = True
    prepaid_enabled: bool = True

    def changed(self, asset: Asset, changes: Mapping[str, Any]) -> Pricing:
        """Return the row with wire values applied. Raises InvalidRequest naming the field."""
        values = {name: _parsed(name, value, asset) for name, value in changes.items()}
        row = replace(self, **values)
        if row.max_charge is not None and row.max_charge < row.min_charge:
            raise refused("max_charge", "must not be below min_charge")
        return row

    def wire(self, asset: Asset) -> dict[str, Any]:
        """Return the contract's PricingConfigResponse."""
        document = asdict(self)
        del document["publisher_id"]
        for name in AMOUNTS:
            if document[name] is not None:
                document[name] = format_amount(document[name], asset.decimals, places=2)
        return {**document, "asset_symbol": asset.symbol}

    def texts(self, asset: Asset, names: Iterable[str]) -> dict[str, Any]:
        """Return some fields as wire values, for carrying them over to an asset with other decimals."""
        wire = self.wire(asset)
        return {name: wire[name] for name in names}

    @property
    def states_price(self) -> bool:
        """Return whether its owner has said any price, 0 included."""
        calls = (getattr(self, name) for name in NULLABLE_AMOUNTS if name.startswith("price_per_"))
        return bool(self.base_price_per_1000_rows) or any(price is not None for price in calls)

    def price_list(self, *, priced_elsewhere: bool = False) -> PriceList:
        """Return what the tariffs read. The fee does not change what a caller pays, so it is left out."""
        methods = ("GET", "POST", "PUT", "PATCH", "DELETE")
        priced = ((method, getattr(self, f"price_per_{method.lower()}")) for method in methods)
        return PriceList(
            per_call=self.price_per_call,
            per_method=tuple((method, price) for method, price in priced if price is not None),
            minimum=self.min_charge,
            maximum=self.max_charge,
            priced_elsewhere=priced_elsewhere,
        )


def document_states_price(document: Mapping[str, Any]) -> bool:
    """Return whether a publisher's document states a price: of an endpoint, of bytes, or in tiers."""
    endpoints: Iterable[Mapping[str, Any]] = document.get("endpoints") or ()
    priced = any(endpoint.get("price") not in (None, "") for endpoint in endpoints)
    return priced or bool(document.get("price_per_mib") or document.get("price_tiers"))


def entry_states_price(entry: Mapping[str, Any]) -> bool:
    """Return whether a publisher states any price in an asset, 0 included: an entry of the snapshot."""
    stated = entry["per_call"] is not None or entry["per_execution"] is not None or bool(entry["per_method"])
    return stated or bool(int(entry["per_1000_rows"]))


def call_prices(document: Mapping[str, Any], pricing: Sequence[Pricing]) -> PriceList | None:
    """Return what the tariffs read of a publisher's primary asset, whose prices stand first; None without any.

    `price_per_execution`, if there is one, is what calling any tool of an MCP server costs.
    """
    if not pricing:
        return None
    row, elsewhere = pricing[0], document_states_price(document) or any(one.states_price for one in pricing)
    prices = row.price_list(priced_elsewhere=elsewhere)
    if document.get("integration_type") != "mcp" or row.price_per_execution is None:
        return prices
    return replace(prices, per_call=row.price_per_execution, per_method=())


def _parsed(name: str, value: Any, asset: Asset) -> Any:
    if value is None:
        return DEFAULTS.get(name)
    try:
        if name in AMOUNTS:
            return parse_amount(value, asset.decimals)
        if name == "markup_multiplier":
            return _multiplier(value)
    except MoneyError as error:
        raise refused(name, str(error)) from None
    return value


def _multiplier(text: str) -> str:
    ratio = parse_ratio(text, places=6, maximum=MAX_MULTIPLIER)
    if not ratio:
        raise MoneyError("must be above 0")
    return _plain(text)


def _plain(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(field: str, text: str) -> str:
    """Return a percentage of at most 4 decimals, 0 to 100, in plain form. Raises InvalidRequest."""
    try:
        parse_ratio(text, places=4, maximum=100)
    except MoneyError as error:
        raise refused(field, str(error)) from None
    return _plain(text)


def check_endpoint_price(text: str, assets: Iterable[Asset], field: str) -> None:
    """Raise InvalidRequest unless an endpoint's price is exact in every accepted asset."""
    for asset in assets:
        try:
            parse_amount(text, asset.decimals)
        except MoneyError as error:
            raise refused(field, str(error)) from None


def _row(**columns: Any) -> Pricing:
    for name in AMOUNTS:
        columns[name] = None if columns[name] is None else int(columns[name])
    columns["markup_multiplier"] = _plain(columns["markup_multiplier"])
    return Pricing(**columns)


# Amounts travel as text: a number above 2^53 does not survive JSON.
LIST_PRICING = Statement(
    """
    SELECT publisher_id, asset_id, pricing_model, price_per_call::text, price_per_get::text, price_per_post::text,
           price_per_put::text, price_per_patch::text, price_per_delete::text, price_per_execution::text,
           base_price_per_1000_rows::text, hourly_rate::text, markup_multiplier::text, min_charge::text,
           max_charge::text, min_display_price::text, pricing_display_text, minimum_balance::text,
           low_balance_threshold::text, grace_period_minutes, max_queries_per_minute, payment_expiry_minutes,
           onchain_enabled, prepaid_enabled
      FROM catalog.pricing WHERE publisher_id = ANY ($1::uuid[])
    """,
    _row,
)
DELETE_PRICING = Command("DELETE FROM catalog.pricing WHERE publisher_id = $1 AND asset_id = ANY ($2::uuid[])")
INSERT_PRICING = Command(
    """
    INSERT INTO catalog.pricing
    SELECT r.* FROM jsonb_populate_record(NULL::catalog.pricing, $1::jsonb || jsonb_build_object('updated_at', now())) r
    """
)


async def list_pricing(connection: Connection, publisher_ids: list[UUID]) -> list[Pricing]:
    """Return the prices of publishers, in no particular order."""
    return await LIST_PRICING.all(connection, publisher_ids)


async def put_pricing(connection: Connection, row: Pricing) -> None:
    """Store one row whole, replacing what was there."""
    await DELETE_PRICING.run(connection, row.publisher_id, [row.asset_id])
    document = {field.name: getattr(row, field.name) for field in fields(row)}
    for name in (*AMOUNTS, "publisher_id", "asset_id"):
        document[name] = None if document[name] is None else str(document[name])
    await INSERT_PRICING.run(connection, document)
