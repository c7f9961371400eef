"""Opening a connection to an origin: checked addresses only, then TCP and TLS, within one timeout.

Prevents DNS rebinding: the guard resolves and checks, and the socket goes to the very address that was checked. Not
here: which addresses are allowed (egress.py).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import Callable, Sequence
from itertools import zip_longest

from gateway.upstreams.egress import EgressGuard, EgressRefused, ResolutionFailed
from gateway.upstreams.http.connection import Connection
from gateway.upstreams.http.errors import AddressRefused, ConnectError, ConnectTimeout, NameUnresolved, TlsFailed
from gateway.upstreams.origin import Origin


def default_tls() -> ssl.SSLContext:
    """Return a context that verifies certificates and names, for HTTP/1.1 only."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Opens connections for one client."""

    def __init__(self, guard: EgressGuard, tls: ssl.SSLContext | None = None) -> None:
        self._guard = guard
        self._tls = tls

    async def open(self, origin: Origin, make: Callable[[], Connection], timeout: float) -> Connection:
        """Return a connection to the first address that answers. Raises ConnectError or a subclass."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._guard.addresses(origin.host, origin.port)
                return await self._first(origin, alternating(addresses), make, timeout)
        except TimeoutError:
            raise ConnectTimeout(f"no connection to {origin} within {timeout:g} s") from None
        except EgressRefused as refusal:
            raise AddressRefused(f"{origin} is refused: {refusal}") from None
        except ResolutionFailed as failure:
            raise NameUnresolved(f"{origin}: {failure}") from None

    async def _first(
        self, origin: Origin, addresses: tuple[str, ...], make: Callable[[], Connection], timeout: float
    ) -> Connection:
        """Try the addresses in turn; a silent one may use up only its share of the time."""
        ends = asyncio.get_running_loop().time() + timeout
        failure: ConnectError | None = None
        for left in range(len(addresses), 0, -1):
            share = (ends - asyncio.get_running_loop().time()) / left
            try:
                async with asyncio.timeout(share if left > 1 else None):
                    return await self._connect(origin, addresses[-left], make)
            except TimeoutError:
                if left == 1:  # the operating system's own timeout
                    raise
                failure = ConnectTimeout(f"no connection to {origin}: an address did not answer")
            except ssl.SSLError as error:
                reason = _tls_reason(error)
                failure = TlsFailed(f"TLS with {origin} failed: {reason}", reason)
            except OSError as error:
                # The system's words for the number: asyncio's own name the address.
                reason = os.strerror(error.errno) if error.errno else type(error).__name__
                failure = ConnectError(f"{origin} cannot be connected: {reason}")
        raise failure or ConnectError(f"{origin} has no address")

    async def _connect(self, origin: Origin, address: str, make: Callable[[], Connection]) -> Connection:
        loop = asyncio.get_running_loop()
        if origin.scheme == "http":
            transport, connection = await loop.create_connection(make, address, origin.port)
        else:
            if self._tls is None:
                self._tls = default_tls()
            transport, connection = await loop.create_connection(
                make, address, origin.port, ssl=self._tls, server_hostname=origin.host
            )
        # asyncio and uvloop set TCP_NODELAY on every TCP transport themselves (a wire test checks that).
        peer = transport.get_extra_info("peername")
        if peer is None or ipaddress.ip_address(peer[0]) != ipaddress.ip_address(address):
            connection.dispose(keep_slot=True)
            raise ConnectError(f"{origin} was not reached at the checked address")
        return connection


def alternating(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses with the families in turn, the resolver's first one first (RFC 8305 section 4).

    A host whose IPv6 is broken is then reached after one share of the time, however many such addresses it has.
    """
    families: dict[bool, list[str]] = {}
    for address in addresses:
        families.setdefault(":" in address, []).append(address)
    turns = zip_longest(*families.values())
    return tuple(address for turn in turns for address in turn if address is not None)


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused ({error.verify_message})"
    return error.reason or type(error).__name__
