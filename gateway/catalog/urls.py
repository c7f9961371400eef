"""Where a publisher's URLs may lead: asked when they are stored, so that a seller learns it before a buyer does.

The egress guard judges addresses again at every connection; this check is the polite one, not the fence. Plain http
is for development: only to addresses that `proxy.allow_addresses` lists.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

RESOLVE_SECONDS = 2.0


class Guard(Protocol):
    """The part of the egress guard that is needed here; its refusals are ValueErrors fit for the publisher."""

    def check_url(self, url: str) -> Any:
        """Raise ValueError when the URL must not be contacted."""
        ...

    async def resolve_url(self, url: str) -> Any:
        """As check_url, with every address that the name has now."""
        ...


class UrlPolicy:
    """Checks URLs that the gateway will call on a publisher's behalf."""

    def __init__(self, guard: Guard, allow_addresses: Sequence[str]) -> None:
        self._guard = guard
        self._allowed = [ipaddress.ip_network(item, strict=False) for item in allow_addresses]

    async def check(self, url: str) -> None:
        """Raise ValueError when the gateway would not call this URL. A name without an address now is accepted."""
        self._guard.check_url(url)
        self.check_scheme(url)
        try:
            await asyncio.wait_for(self._guard.resolve_url(url), RESOLVE_SECONDS)
        except ValueError:
            raise
        except Exception:  # noqa: BLE001 - the name may get its address later; the guard asks again at each connection
            return

    def check_scheme(self, url: str) -> None:
        """Raise ValueError for plain http to an address that is not listed for development."""
        parts = urlsplit(url)
        if parts.scheme == "http" and not self._is_allowed(parts.hostname or ""):
            raise ValueError("must be https; plain http is for addresses that proxy.allow_addresses lists")

    def _is_allowed(self, host: str) -> bool:
        name = "127.0.0.1" if host == "localhost" else host
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return any(address.version == network.version and address in network for network in self._allowed)
