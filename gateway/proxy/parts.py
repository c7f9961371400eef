"""What walks, kinds and purses need of their worker, made once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gateway.errors import Overloaded
from gateway.identity.clients import Network, networks
from gateway.limits.policy import Policy
from gateway.proxy.admission import Admission, Reason, overloaded
from gateway.proxy.buying import Buyer
from gateway.proxy.destination import Destinations
from gateway.proxy.live import Live
from gateway.proxy.loop_lag import LoopLag
from gateway.proxy.mcp.seller import McpSeller
from gateway.proxy.onchain.rail import OnchainRail
from gateway.proxy.purses.wallets import WalletNumbers
from gateway.proxy.sockets import Places
from gateway.proxy.tiers import Usages
from gateway.services import Services


@dataclass(frozen=True, slots=True)
class Parts:
    """`onchain` takes payments that calls bring along, `buyer` pays servers that ask for some, where there are such."""

    services: Services
    wallets: WalletNumbers
    usages: Usages
    per_key: Policy
    per_address: Policy
    guesses: Policy
    looks: Policy
    destinations: Destinations
    trusted: tuple[Network, ...]
    mcp: McpSeller
    live: Live
    admission: Admission
    loop_lag: LoopLag
    places: Places
    onchain: OnchainRail | None = None
    buyer: Buyer | None = None

    @classmethod
    def build(cls, services: Services, onchain: OnchainRail | None = None, buyer: Buyer | None = None) -> Self:
        """Derive limits and bounds from the settings."""
        settings, limits = services.settings, services.settings.limits
        destinations = Destinations(settings, services.metrics, services.authenticate)
        return cls(
            services,
            WalletNumbers(services.database),
            Usages(services.database),
            Policy("key", limits.per_key, 60),
            Policy("address", limits.per_address, 60),
            Policy("guesses", limits.guesses, 60),
            Policy("estimates", limits.estimates, 60),
            destinations,
            tuple(networks(settings.server.trusted_proxies)),
            McpSeller.build(services, destinations),
            Live(),
            Admission(settings.proxy.wait, settings.proxy.calls),
            LoopLag(),
            Places(),
            onchain,
            buyer,
        )

    def too_many(self, reason: Reason) -> Overloaded:
        """Return the refusal of a call for which there is no room, and count it."""
        self.services.metrics.turned_away(reason)
        return overloaded(reason)
