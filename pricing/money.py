"""Amounts of money as integers of an asset's smallest unit, and the one rounding rule.

An atomic amount of USDC (6 decimals) of 1,000,000 is one dollar; an asset with 18 decimals uses the same functions.
Rounding: prices go up to the next atomic unit for the payer, fees go down for the platform, and what remains is the
publisher's, so parts always sum to the whole. Nothing here touches a float; `Decimal` appears only where a multiplier
is exact text.
"""

from __future__ import annotations

import re
from decimal import Decimal, localcontext

MAX_ATOMIC = 10**30
"""The largest single amount: 10^24 USDC, or 10^12 units of an 18-decimals asset. A sum of 10^8 fits the ledger."""

PPM = 1_000_000
"""Fee shares are integers of parts per million: 2.5 % is 25,000."""

_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,30})(?:\.([0-9]{1,30}))?", re.ASCII)


class MoneyError(ValueError):
    """A text is not an amount. The message says why in words for the caller."""


def parse_amount(text: str, decimals: int) -> int:
    """Return the atomic amount of a plain decimal string such as "0.05".

    Raises MoneyError for signs, exponents, separators, more fraction digits than the asset has (never rounded), and
    amounts above MAX_ATOMIC.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise MoneyError('must be a plain decimal number such as "0.05"')
    whole, fraction = match[1], match[2] or ""
    if len(fraction.rstrip("0")) > decimals:
        raise MoneyError(f"has more than {decimals} digits after the point, which is all that the asset has")
    atomic = int(whole) * 10**decimals + int(
        (fraction.rstrip("0") or "0").ljust(decimals, "0")[: decimals or None] or "0"
    )
    if atomic > MAX_ATOMIC:
        raise MoneyError(f"is above the largest supported amount, {format_amount(MAX_ATOMIC, decimals)}")
    return atomic


def format_amount(atomic: int, decimals: int, places: int = 0) -> str:
    """Return the exact decimal text of an atomic amount, with at least `places` and no other trailing zeros."""
    sign = "-" if atomic < 0 else ""
    whole, fraction = divmod(abs(atomic), 10**decimals)
    digits = str(fraction).rjust(decimals, "0").rstrip("0") if decimals and fraction else ""
    digits = digits.ljust(min(places, decimals), "0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def format_usd(atomic: int, decimals: int = 6) -> str:
    """Return an amount as the contract's `*_usd` strings: "$0.05", "-$1.00", "$0.000001"."""
    text = format_amount(abs(atomic), decimals, places=2)
    return f"-${text}" if atomic < 0 else f"${text}"


def parse_ratio(text: str, *, places: int, maximum: int) -> Decimal:
    """Return an exact positive multiplier or percentage such as "1.25". Raises MoneyError."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise MoneyError('must be a plain decimal number such as "1.25"')
    if len((match[2] or "").rstrip("0")) > places:
        raise MoneyError(f"has more than {places} digits after the point")
    value = Decimal(text)
    if value > maximum:
        raise MoneyError(f"must be at most {maximum}")
    return value


def percent_to_ppm(percent: Decimal) -> int:
    """Return a percentage with at most four decimals as parts per million: 2.5 is 25,000. Raises MoneyError."""
    with localcontext() as context:
        context.prec = 50
        ppm = percent * 10_000
    if ppm != int(ppm):
        raise MoneyError("has more than 4 digits after the point")
    return int(ppm)


def fee_of(amount: int, fee_ppm: int) -> int:
    """Return the platform's share of an amount, rounded down. The rest, `amount - fee`, is the publisher's."""
    return amount * fee_ppm // PPM


def round_up(numerator: int, denominator: int) -> int:
    """Return numerator / denominator rounded up to a whole atomic unit. Both are non-negative."""
    return -(-numerator // denominator)
