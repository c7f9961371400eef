"""Which Host fields of requests name a host, and a port where they have one. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address

HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[0-9A-Za-z._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?")
MAX_PORT = 65_535
LONGEST_KNOWN = 255
NO_HOST = "The Host field is not a host and port."


def host_fault(host: bytes) -> str | None:
    """Return what is wrong with a Host field (RFC 9110 section 7.2), None where it names a host.

    A port may be empty (RFC 3986 section 3.2.3). Most requests name the same host, so that short ones are remembered.
    """
    return _known_fault(host) if len(host) <= LONGEST_KNOWN else _fault(host)


@lru_cache(maxsize=4096)
def _known_fault(host: bytes) -> str | None:
    return _fault(host)


def _fault(host: bytes) -> str | None:
    parts = HOST.fullmatch(host)
    if parts is None or (parts[1] and not _is_ipv6(parts[1])):
        return NO_HOST
    if parts[2] and not 0 < int(parts[2]) <= MAX_PORT:
        return f"The port in the Host field is not one of 1 to {MAX_PORT}."
    return None


def _is_ipv6(address: bytes) -> bool:
    try:
        IPv6Address(address.decode())
    except ValueError:
        return False
    return True
