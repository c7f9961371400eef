"""`per_request`: a fixed price per call.

    price = the endpoint's own price, else price_per_<method>, else price_per_call, else 0
    charge = price limited to [min_charge, max_charge]

A price that is set to zero means free and is exempt from the minimum: a publisher who writes "0" beside an endpoint
gives it away. The charge never depends on what the call returns, so it is known before the call.
"""

from __future__ import annotations

from pricing.quote import FREE, Quote, quote_of
from pricing.usage import PriceList, Usage


def quote(prices: PriceList, usage: Usage, endpoint_price: int | None = None) -> Quote:
    """Return the quote for `usage.requests` calls. Amounts are atomic units of the price list's asset."""
    price, basis = _price(prices, usage.method, endpoint_price)
    if price == 0 and basis != "unpriced":
        return FREE
    amount = max(price * usage.requests, prices.minimum)
    if prices.maximum is not None:
        amount = min(amount, prices.maximum)
    return quote_of(amount, prices.fee_ppm, basis) if amount else FREE


def _price(prices: PriceList, method: str, endpoint_price: int | None) -> tuple[int, str]:
    if endpoint_price is not None:
        return endpoint_price, "endpoint"
    by_method = prices.for_method(method)
    if by_method is not None:
        return by_method, "method"
    if prices.per_call is not None:
        return prices.per_call, "call"
    return 0, "unpriced"
