"""What an answer tells of the balance that paid it."""

from __future__ import annotations

from gateway.catalog.snapshot import AssetPrice
from gateway.proxy.exchange import HeaderPairs
from pricing.money import format_amount


def balance_fields(price: AssetPrice, left: int) -> HeaderPairs:
    """Return what is left to spend, and the publisher's threshold where it is below that (atomic units)."""
    decimals = price.asset.decimals
    fields = [(b"x-balance", format_amount(left, decimals).encode())]
    if price.balances is not None and left < price.balances.low:
        fields.append((b"x-balance-low", format_amount(price.balances.low, decimals).encode()))
    return fields
