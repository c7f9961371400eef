"""Who holds how many WebSocket connections of this worker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from gateway.errors import RateLimited, Unavailable
from gateway.proxy.relay import Relay
from gateway.settings import WebSocketSettings


@dataclass(slots=True)
class Places:
    """Who holds how many connections of this worker, and the connections themselves."""

    held: Counter[str] = field(default_factory=Counter[str])
    relays: set[Relay] = field(default_factory=set[Relay])
    closed: bool = False  # the worker stops
    changes: tuple[int, int, int] = (-1, -1, -1)  # of keys, publishers and wallets at the last look for suspended ones

    def take(self, who: str, settings: WebSocketSettings) -> None:
        """Hold one more place. Raises Unavailable or RateLimited."""
        if self.closed or self.held.total() >= settings.connections:
            raise Unavailable("This gateway takes no further WebSocket connection now; you were not charged.")
        if self.held[who] >= settings.per_key:
            raise RateLimited(
                f"{settings.per_key} WebSocket connections are open with this API key or from this address.",
                headers={"Retry-After": "5"},
                policy="websockets",
                retry_after=5,
            )
        self.held[who] += 1

    def leave(self, who: str) -> None:
        """Give a place back."""
        self.held[who] -= 1
        if not self.held[who]:
            del self.held[who]
