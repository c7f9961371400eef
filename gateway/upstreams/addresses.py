"""Which IP addresses a publisher's host name may mean, and how numeric host names are read: pure.

Prevents server-side request forgery by spelling: 2130706433, 0x7f.1, 127.1 and ::ffff:127.0.0.1 are all 127.0.0.1, and
some connector below us will read them so. Not here: resolution and caching (egress.py).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# First match decides, so the narrow and telling reason stands before the wide one. IANA special-purpose registries.
_REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(text), reason)
    for text, reason in (
        ("0.0.0.0/32", "the unspecified address"),
        ("0.0.0.0/8", "a reserved address"),
        ("10.0.0.0/8", "a private address"),
        ("100.100.100.200/32", "a cloud metadata address"),
        ("100.64.0.0/10", "a carrier-grade NAT address"),
        ("127.0.0.0/8", "a loopback address"),
        ("168.63.129.16/32", "a cloud metadata address"),
        ("169.254.169.254/32", "a cloud metadata address"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "a documentation address"),
        ("192.88.99.0/24", "a 6to4 relay address"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "a benchmarking address"),
        ("198.51.100.0/24", "a documentation address"),
        ("203.0.113.0/24", "a documentation address"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::/128", "the unspecified address"),
        ("::1/128", "a loopback address"),
        ("::/96", "an IPv4-compatible address"),
        ("::ffff:0:0/96", "an IPv4-mapped address"),
        ("::ffff:0:0:0/96", "an IPv4-translated address"),
        ("64:ff9b::/96", "a NAT64 address"),
        ("64:ff9b:1::/48", "a NAT64 address"),
        ("2001::/32", "a Teredo address"),
        ("2001::/23", "a reserved address"),
        ("2001:db8::/32", "a documentation address"),
        ("2002::/16", "a 6to4 address"),
        ("3fff::/20", "a documentation address"),
        ("fd00:ec2::254/128", "a cloud metadata address"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a site-local address"),
        ("ff00::/8", "a multicast address"),
    )
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+", re.ASCII)


def refusal(address: Address, allow: Sequence[Network] = ()) -> str | None:
    """Return why `address` must not be contacted ("a private address"), or None if it may be."""
    if any(address in network for network in allow):
        return None
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        # The system connects a mapped address to the IPv4 one: only then does an allowed IPv4 range cover it.
        if mapped is not None and any(mapped in network for network in allow):
            return None
    for network, reason in _REFUSED:
        if address in network:
            return reason
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return "not a global unicast address"
    # What a newer registry than ours knows. (Multicast counts as global there; it is refused above.)
    return None if address.is_global else "not a public address"


def numeric_host(host: str) -> Address | None:
    """Return the address that `host` spells, None if it is a name. Raises ValueError for a malformed number.

    IPv6 without brackets; IPv4 as inet_aton reads it (1 to 4 parts, decimal, octal or hexadecimal). As in the WHATWG
    URL standard a host whose last label is a number is never a name, so that no resolver gets to interpret it.
    """
    if ":" in host:
        if "%" in host:
            raise ValueError("IPv6 zone identifiers are not allowed")
        return ipaddress.IPv6Address(host)
    parts = host.lower().split(".")
    if _NUMBER.fullmatch(parts[-1]) is None:
        return None
    if len(parts) > 4:
        raise ValueError("an IPv4 address has at most four parts")
    numbers = [_number(part) for part in parts]
    last_limit = 256 ** (5 - len(parts))
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= last_limit:
        raise ValueError("a part of the IPv4 address is too large")
    value = numbers[-1]
    for position, number in enumerate(numbers[:-1]):
        value += number << (8 * (3 - position))
    return ipaddress.IPv4Address(value)


def _number(part: str) -> int:
    if len(part) > 16 or _NUMBER.fullmatch(part) is None or part == "0x":
        raise ValueError("a part of the IPv4 address is not a number")
    if part.startswith("0x"):
        return int(part[2:], 16)
    if len(part) > 1 and part[0] == "0":
        if not set(part) <= set("01234567"):
            raise ValueError("a part of the IPv4 address is not an octal number")
        return int(part, 8)
    return int(part)
