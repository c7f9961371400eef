"""How a publisher wants payments on a chain settled: when, and how much of one payer may be unsettled meanwhile.

Pure: the compiled form of the fields `x402_settlement` (of a publisher, and of single endpoints) and `x402_exposure`.
What follows from a policy is billing/x402_per_request.py's, the operator's defaults are settings.x402's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.catalog.assets import Asset
from gateway.catalog.endpoints import Endpoint
from gateway.catalog.refusals import refused
from gateway.settings import SettlementPolicy, X402Settings
from pricing.money import MoneyError, parse_amount

SETTINGS_DECIMALS = 6
"""Settings give amounts in atomic units of the default asset, a dollar stablecoin with so many decimals."""

# What holds where a request may name several endpoints: the policy under which the least can go wrong.
STRICTEST: tuple[SettlementPolicy, ...] = ("settle_first", "before_response", "deferred")


@dataclass(frozen=True, slots=True)
class OnchainPolicy:
    """What an owner chose; None means the operator's default. `exposure` is a decimal amount of the asset paid in."""

    settlement: SettlementPolicy | None = None
    exposure: str | None = None

    def settlement_for(self, candidates: Iterable[Endpoint | None], default: SettlementPolicy) -> SettlementPolicy:
        """Return the policy for a request that may name any of these endpoints (None: an undocumented path)."""
        own = self.settlement or default
        chosen = {own if endpoint is None else endpoint.settlement or own for endpoint in candidates}
        for policy in STRICTEST:
            if policy in chosen:
                return policy
        return own

    def exposure_in(self, asset: Asset, settings: X402Settings) -> int:
        """Return how much of one payer may be unsettled at most, in atomic units of an asset."""
        if self.exposure is not None:
            return parse_amount(self.exposure, asset.decimals)
        return settings.exposure * 10**asset.decimals // 10**SETTINGS_DECIMALS


def compile_settlement(document: Mapping[str, Any]) -> OnchainPolicy:
    """Return the policy of a stored publisher."""
    return OnchainPolicy(document.get("x402_settlement"), document.get("x402_exposure"))


def check_exposure(text: str | None, assets: Iterable[Asset]) -> None:
    """Raise InvalidRequest unless an exposure cap is exact in every accepted asset."""
    for asset in assets if text is not None else ():
        try:
            parse_amount(str(text), asset.decimals)
        except MoneyError as error:
            raise refused("x402_exposure", str(error)) from None
