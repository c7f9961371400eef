"""What a publisher asks of the balances that pay its calls: the least to call at all, and where to warn.

Pure. Asked before a paid call (proxy/purses/wallets.py) and told after it (proxy/balances.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BalanceRule:
    """Atomic units of an asset: a balance below `least` pays for nothing, one below `low` is told to be low."""

    least: int
    low: int


def compile_balances(entry: Mapping[str, Any]) -> BalanceRule | None:
    """Return the rule of a price, None where nothing is asked."""
    least, low = int(entry["least_balance"]), int(entry["low_balance"])
    return BalanceRule(least, low) if least or low else None
