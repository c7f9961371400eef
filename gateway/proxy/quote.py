"""Step 5, quote: what the call costs, before anything is paid or sent. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.catalog.endpoints import Endpoint
from gateway.catalog.readings import read_path
from gateway.catalog.snapshot import AssetPrice, Publisher
from gateway.errors import MethodNotAllowed, NotPriced, Problem, Unavailable
from gateway.proxy.exchange import Exchange
from gateway.proxy.meter import Meter, Rate
from pricing.quote import FREE, Quote
from pricing.tariffs import per_request
from pricing.tariffs.tiered import Step
from pricing.usage import PriceList, Usage

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def quote(exchange: Exchange, candidates: Sequence[Endpoint | None]) -> None:
    """Set the quote in the publisher's primary asset: the dearest of what the request may name.

    Of a call whose price is known afterwards it is the most that it may cost, and of a tiered one the dearest step's:
    what it costs its caller is looked up when it is paid from a balance (tiers.py).
    """
    publisher = exchange.sold
    if publisher.relays:
        exchange.candidates, exchange.quote = candidates, FREE
        return
    price = prepaid_price(publisher)
    if price is None:  # never free by accident
        raise Unavailable(f"{publisher.slug} has no prices yet, so it cannot be called.", retry_after=60)
    exchange.candidates, exchange.asset_price = candidates, price
    rate = rate_of(price, exchange.method, [endpoint.price if endpoint else None for endpoint in candidates])
    if rate is not None:
        exchange.meter, exchange.quote = Meter(rate, publisher.watch), rate.most
        return
    if not price.prices.sells(exchange.method) and any(item is None or item.price is None for item in candidates):
        raise not_sold(exchange)
    exchange.quote = _fixed(exchange, price.prices)
    if price.tiers is not None and price.prices.for_method(exchange.method) is None:
        own = all(one is not None and one.price is not None for one in candidates)
        exchange.tiers = None if own else price.tiers


def quote_step(exchange: Exchange, step: Step) -> Quote:
    """Return what a call costs in a step of its caller's month."""
    price = exchange.asset_price
    if price is None:
        raise RuntimeError("quote has not run")
    return _fixed(exchange, replace(price.prices, per_call=step.price))


def _fixed(exchange: Exchange, prices: PriceList) -> Quote:
    usage = Usage(method=exchange.method)
    return dearest([per_request.quote(prices, usage, one.price if one else None) for one in exchange.candidates])


def rate_of(price: AssetPrice, method: str, own: Sequence[int | None]) -> Rate | None:
    """Return what a call's use costs; None where that is fixed: an endpoint's `own` price, or its method's.

    A request that may name either costs no less than the fixed price.
    """
    rate = price.metered
    if rate is None:
        return None
    by_method = price.prices.for_method(method)
    fixed = [by_method if one is None else one for one in own]
    if all(one is not None for one in fixed):
        return None
    least = max((one for one in fixed if one), default=0)
    return replace(rate, minimum=max(rate.minimum, least), reserve=max(rate.reserve, least)) if least else rate


def dearest(quotes: Sequence[Quote]) -> Quote:
    """Return the highest quote; one entry is the common case."""
    return quotes[0] if len(quotes) == 1 else max(quotes, key=lambda offer: offer.amount, default=FREE)


def not_sold(exchange: Exchange) -> Problem:
    """Return the refusal of what has no price where something else has: it is not to be had for nothing."""
    publisher = exchange.sold
    if publisher.mcp:
        return NotPriced(f"{publisher.slug} has no price for this tool, so it is not for sale.")
    allowed = _methods_sold(exchange)
    if not allowed:
        return NotPriced(
            f"{publisher.slug} has no price for this path, so it is not for sale;"
            f" GET /publishers/{publisher.slug} lists what is."
        )
    names = [*allowed, "HEAD"] if "GET" in allowed else allowed
    return MethodNotAllowed("The publisher sells other methods only; see Allow.", headers={"Allow": ", ".join(names)})


def _methods_sold(exchange: Exchange) -> list[str]:
    """Return the methods with which the path of a call is for sale."""
    publisher, price, reading = exchange.sold, prepaid_price(exchange.sold), read_path(exchange.path)
    found: list[str] = []
    for method in METHODS if price is not None else ():
        candidates = publisher.endpoints.match(method, reading)
        protected = any(one is not None and one.is_protected for one in candidates)
        if not protected and not (publisher.default_deny and None in candidates):
            sells = price is not None and price.prices.sells(method)
            if sells or all(one is not None and one.price is not None for one in candidates):
                found.append(method)
    return found


def prepaid_price(publisher: Publisher) -> AssetPrice | None:
    """Return the prices that a prepaid call pays: those of the primary asset, which stands first."""
    return publisher.prices[0] if publisher.prices else None
