"""`x-payment-info`: what a call costs, beside an operation. A convention, of which both spellings in use are read:

    {"price": {"mode": "fixed", "currency": "USD", "amount": "0.05"}, "protocols": [{"x402": {}}]}
    {"pricingMode": "fixed", "price": "0.05", "protocols": ["x402"]}

A price is a decimal text. A number has lost its digits before anyone can check them, so it is refused, and so is a
price that depends on the call: an endpoint has one price, and a guess would sell for the wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from gateway.catalog.openapi.refused import DocumentRefused
from pricing.money import MoneyError, parse_amount

FIELD = "x-payment-info"
_AMOUNT = re.compile(r"\$?([0-9]{1,40}(?:\.[0-9]{1,40})?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Units:
    """What a publisher's prices are in: the names that they go by, such as USD and USDC, and how many decimals fit."""

    names: frozenset[str]
    decimals: int


def read_price(info: object, units: Units, place: str) -> str:
    """Return the decimal price that an x-payment-info gives. Raises DocumentRefused with its place."""
    if not isinstance(info, dict):
        raise DocumentRefused("must be an object", place)
    whole = cast("dict[str, Any]", info)
    price = whole.get("price")
    inner = cast("dict[str, Any]", price) if isinstance(price, dict) else whole
    mode = inner.get("mode", whole.get("pricingMode", "fixed"))
    if mode == "free":
        return "0"
    if mode != "fixed":
        raise DocumentRefused('has a mode other than "fixed" and "free": an endpoint has one price', place)
    _check_currency(inner.get("currency", whole.get("currency", "USD")), units, place)
    amount = inner.get("amount") if isinstance(price, dict) else price
    if amount is not None and not isinstance(amount, str):
        raise DocumentRefused('has a price that is no text; write it in quotes, such as "0.05"', place)
    found = _AMOUNT.fullmatch(amount or "")
    if found is None:
        raise DocumentRefused('has no price that can be read; write "price": {"amount": "0.05"}', place)
    try:
        parse_amount(found[1], units.decimals)
    except MoneyError as error:
        raise DocumentRefused(f"has a price that {error}", place) from None
    return found[1]


def _check_currency(currency: object, units: Units, place: str) -> None:
    if not isinstance(currency, str) or currency not in units.names:
        names = ", ".join(sorted(units.names))
        raise DocumentRefused(f"has a currency other than what the publisher is paid in ({names})", place)


def fixed(amount: str, currency: str, protocols: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the x-payment-info of a fixed price."""
    price = {"mode": "fixed", "currency": currency, "amount": amount}
    return {"price": price, "protocols": protocols}


def metered(least: str, most: str | None, currency: str, protocols: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the x-payment-info of a price that is known after the call; `most` is the bound, if there is one."""
    price: dict[str, Any] = {"mode": "dynamic", "currency": currency, "min": least}
    if most is not None:
        price["max"] = most
    return {"price": price, "protocols": protocols}
