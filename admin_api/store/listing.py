"""What every publisher's calls cost, in a line each and from memory: for documents that whoever asks gets for nothing.

No text of a publisher's is in it but the slug: programs that read these lines take them for the gateway's own words.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.catalog.endpoints import Endpoint
from gateway.catalog.snapshot import AssetPrice, Publisher
from pricing.money import format_amount
from pricing.tariffs import per_request
from pricing.usage import Usage

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def line_of(publisher: Publisher, base: str) -> str:
    """Return the line of a publisher that is served."""
    kind = "database" if publisher.sale is not None else "MCP tools" if publisher.mcp else "API"
    refunds = [publisher.delivery.refunds, *(one.refunds for one in publisher.endpoints.listed)]
    promised = "; promises refunds" if any(one is not None and one.rules is not None for one in refunds) else ""
    return f"- [{publisher.slug}]({base}/publishers/{publisher.slug}): {kind}, {price_words(publisher)}{promised}"


def price_words(publisher: Publisher) -> str:
    """Return what a call costs in the primary asset; where that depends on the call, the most."""
    if not publisher.prices:
        return "without a price"
    price = publisher.prices[0]
    if publisher.sale is not None:
        return f"{_shown(price.rows.quote(1_000).amount, price)} per 1,000 rows{_at_most(price.rows.maximum, price)}"
    if publisher.relays:
        return "at its own server's prices" + _at_most(price.bought.most.amount if price.bought else None, price)
    if price.metered is not None:
        return "by use" + _at_most(price.metered.most.amount, price)
    amounts = sorted(set(_amounts(publisher, price)))
    if price.tiers is not None:
        return "by the month's calls" + _at_most(max(amounts, default=0), price)
    return _range(amounts, price)


def _amounts(publisher: Publisher, price: AssetPrice) -> Iterator[int]:
    methods = ("POST",) if publisher.mcp else METHODS
    known: list[tuple[str, Endpoint | None]] = [
        (endpoint.method, endpoint)
        for endpoint in publisher.endpoints.listed
        if not endpoint.is_protected and endpoint.method in methods
    ]
    if not publisher.default_deny:
        known += [(method, None) for method in methods]
    for method, endpoint in known:
        own = endpoint.price if endpoint is not None else None
        if own is not None or price.prices.sells(method):
            yield per_request.quote(price.prices, Usage(method=method), own).amount


def _range(amounts: list[int], price: AssetPrice) -> str:
    if not amounts:
        return "nothing on sale"
    if not amounts[-1]:
        return "free"
    words = f"{_shown(amounts[-1], price)} per call"
    if len(amounts) == 1:
        return words
    return f"{format_amount(amounts[0], price.asset.decimals) if amounts[0] else 'free'} to {words}"


def _at_most(amount: int | None, price: AssetPrice) -> str:
    return "" if amount is None else f", at most {_shown(amount, price)} per call"


def _shown(amount: int, price: AssetPrice) -> str:
    return f"{format_amount(amount, price.asset.decimals)} {price.asset.symbol}"
