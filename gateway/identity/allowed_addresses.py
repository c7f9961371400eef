"""Which addresses an API key may be used from: networks in CIDR notation, IPv4 and IPv6.

Projects have such lists by the same rules (gateway/projects/allow_list.py). Whose address a request has is for
clients.py to say. What does not live here: storing a key's list (api_keys.py).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from gateway.errors import AddressNotAllowed
from gateway.identity.clients import Address, Network, is_in
from gateway.identity.principals import Principal

MOST = 64
"""Networks in one list: each call of the key looks through them."""
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def read(items: Sequence[str]) -> list[Network]:
    """Return networks in one form, without those that others contain. Raises ValueError, which says what is wrong."""
    if not 1 <= len(items) <= MOST:
        raise ValueError(f"must name between 1 and {MOST} networks; null allows every address")
    return collapsed(network(item) for item in items)


def collapsed(networks: Iterable[Network]) -> list[Network]:
    """Return the fewest networks with the same addresses, IPv4 first."""
    every = list(networks)
    four = [one for one in every if isinstance(one, ipaddress.IPv4Network)]
    six = [one for one in every if isinstance(one, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]


def within(inner: Sequence[Network], outer: Sequence[Network]) -> bool:
    """Return whether every address of one list is in another one."""
    return collapsed([*inner, *outer]) == collapsed(outer)


def demand_address(caller: Principal, address: Address | None) -> None:
    """Raise AddressNotAllowed for a key that may not be used from an address, or from one that nobody knows."""
    if caller.addresses is not None and (address is None or not is_in(address, caller.addresses)):
        seen = address or "an unknown address"
        raise AddressNotAllowed(f"This API key may not be used from {seen}. Its owner can change its ip_allow_list.")


def network(text: str) -> Network:
    """Return an address or network in its one form. Raises ValueError, which says what is wrong."""
    text = text.strip()
    meant = _parsed(text, strict=False)
    if meant is None or "%" in text:
        raise ValueError(f"{text!r} is no network, such as 203.0.113.0/24, 2001:db8::/32 or one address")
    found = _parsed(text, strict=True)
    if found is None:
        raise ValueError(f"{text} has bits beyond the length of its network: is it {meant}?")
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        # What servers of both families make of an IPv4 client; addresses are compared as IPv4.
        return ipaddress.IPv4Network((int(found.network_address) & 0xFFFFFFFF, found.prefixlen - 96))
    return found


def _parsed(text: str, *, strict: bool) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=strict)
    except ValueError:
        return None
