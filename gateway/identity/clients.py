"""Who is at the other end of the connection, for limits per address.

A peer can claim any X-Forwarded-For; it is believed only when the peer is one of `server.trusted_proxies`, and then
only as far as the chain consists of trusted proxies: the rightmost address that is not one of them is the client.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def networks(items: Sequence[str]) -> list[Network]:
    """Parse CIDRs. Raises ValueError."""
    return [ipaddress.ip_network(item, strict=False) for item in items]


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client's address as limits count it; IPv6 clients count by their /64."""
    address = whole_address(peer, forwarded, trusted)
    return "unknown" if address is None else _counted(address)


def whole_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """Return the client's own address; None where the server does not know its peer."""
    address = _parse(peer or "")
    if address is None:
        return None
    chain = [part.strip() for line in forwarded for part in line.split(",")]
    while chain and is_in(address, trusted):
        claimed = _parse(chain.pop())
        if claimed is None:
            break
        address = claimed
    return address


def is_trusted(peer: str, trusted: Sequence[Network]) -> bool:
    """Return whether the peer is a trusted proxy."""
    address = _parse(peer)
    return address is not None and is_in(address, trusted)


def _parse(text: str) -> Address | None:
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_in(address: Address, nets: Sequence[Network]) -> bool:
    """Return whether an address is in one of the networks."""
    return any(address.version == network.version and address in network for network in nets)


def _counted(address: Address) -> str:
    """One IPv6 subscriber has a whole /64: counting single addresses would count nobody."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network(f"{address}/64", strict=False).network_address)
    return str(address)
