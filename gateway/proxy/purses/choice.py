"""Which purse pays a call: by what its publisher sells and what its caller brings along."""

from __future__ import annotations

from gateway.errors import Unavailable
from gateway.proxy.exchange import Exchange
from gateway.proxy.onchain.presented import presents
from gateway.proxy.parts import Parts
from gateway.proxy.purses.bought import BoughtPurse
from gateway.proxy.purses.charge import ChargePurse
from gateway.proxy.purses.free import FreePurse
from gateway.proxy.purses.hold import HoldPurse
from gateway.proxy.purses.metered import MeteredPurse
from gateway.proxy.purses.onchain import OnchainPurse
from gateway.proxy.purses.purse import Purse
from gateway.proxy.purses.relayed import RELAYED


def pays_onchain(exchange: Exchange, parts: Parts) -> bool:
    """Return whether a payment came along that may be for us: one that a priced call takes."""
    return parts.onchain is not None and presents(exchange) and not exchange.sold.relays


def choose(exchange: Exchange, parts: Parts) -> Purse:
    """Return the purse of a call that has its quote."""
    price = exchange.asset_price
    if exchange.sold.relays:
        if parts.buyer is None or not parts.buyer.takes(exchange):
            return RELAYED
        return BoughtPurse(parts, parts.buyer.price(exchange), parts.buyer)
    if price is None or exchange.quote.amount == 0:
        return FreePurse(parts)
    if parts.onchain is not None and presents(exchange):
        return OnchainPurse(parts, parts.onchain)
    return ChargePurse(parts, price) if exchange.meter is None else HoldPurse(parts, price)


def choose_for_query(exchange: Exchange, parts: Parts) -> MeteredPurse:
    """Return the purse of a query. Its price is known when it has run, so that the most is held or signed."""
    price = exchange.asset_price
    if price is None or price.rows.quote(1_000_000).amount == 0:  # never free by accident
        slug = exchange.slug
        raise Unavailable(f"{slug} has no prices for queries yet, so it cannot be called.", retry_after=60)
    if parts.onchain is not None and presents(exchange):
        return OnchainPurse(parts, parts.onchain)
    return HoldPurse(parts, price)
