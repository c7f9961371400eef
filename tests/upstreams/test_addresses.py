"""Which addresses are refused, and that numeric spellings are read as the system reads them."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstreams.addresses import numeric_host, refusal


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "reserved"),
        ("10.0.0.1", "private"),
        ("100.64.0.1", "carrier-grade"),
        ("100.127.255.255", "carrier-grade"),
        ("100.100.100.200", "metadata"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("168.63.129.16", "metadata"),
        ("169.254.169.254", "metadata"),
        ("169.254.1.1", "link-local"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.8", "reserved"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "6to4"),
        ("192.168.1.10", "private"),
        ("198.18.0.1", "benchmarking"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::7f00:1", "IPv4-compatible"),
        ("::ffff:127.0.0.1", "IPv4-mapped"),
        ("::ffff:8.8.8.8", "IPv4-mapped"),
        ("::ffff:0:7f00:1", "IPv4-translated"),
        ("64:ff9b::7f00:1", "NAT64"),
        ("64:ff9b::808:808", "NAT64"),
        ("64:ff9b:1::1", "NAT64"),
        ("100::1", "not a global"),
        ("2001::1", "Teredo"),
        ("2001:10::1", "reserved"),
        ("2001:db8::1", "documentation"),
        ("2002:7f00:1::", "6to4"),
        ("2002:808:808::1", "6to4"),
        ("3fff::1", "documentation"),
        ("5f00::1", "not a global"),
        ("fc00::1", "private"),
        ("fd00:ec2::254", "metadata"),
        ("fe80::1", "link-local"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
        ("4000::1", "not a global"),
    ],
)
def test_refused(address, word):
    assert word in (refusal(ipaddress.ip_address(address)) or "allowed")


PUBLIC = """
    1.1.1.1 8.8.8.8 93.184.215.14 100.63.255.255 100.128.0.1 172.15.255.255 172.32.0.1 169.253.255.255 192.167.1.1
    198.17.1.1 198.20.0.1 223.255.255.254 126.1.1.1 128.0.0.1
    2606:4700::1111 2a00:1450:4001::200e 2001:4860:4860::8888 2003::1 2620:fe::fe
"""


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public_addresses_pass(address):
    assert refusal(ipaddress.ip_address(address)) is None


def test_an_allowed_network_is_exempt_and_nothing_else():
    allow = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd00::/16")]
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "fd00::1"):
        assert refusal(ipaddress.ip_address(address), allow) is None
    for address in ("10.0.0.1", "::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::7f00:1", "fd01::1"):
        assert refusal(ipaddress.ip_address(address), allow) is not None


@given(st.ip_addresses())
def test_what_passes_is_global_unicast_by_the_standard_library_too(address):
    if refusal(address) is None:
        assert address.is_global
        assert not any((address.is_multicast, address.is_private, address.is_link_local, address.is_loopback))


def spelling(number: int, base: str) -> str:
    return {"decimal": str(number), "octal": f"0{number:o}", "hex": f"0x{number:x}", "HEX": f"0X{number:X}"}[base]


BASES = st.sampled_from(["decimal", "octal", "hex", "HEX"])


@given(st.ip_addresses(v=4), st.integers(1, 4), st.lists(BASES, min_size=4, max_size=4))
def test_every_spelling_of_an_address_is_that_address(address, parts, bases):
    packed = address.packed
    numbers = [*packed[: parts - 1], int.from_bytes(packed[parts - 1 :], "big")]
    text = ".".join(spelling(number, base) for number, base in zip(numbers, bases, strict=False))
    assert numeric_host(text) == address
    assert ipaddress.IPv4Address(socket.inet_aton(text)) == address


@given(st.from_regex(r"\A[0-9a-fxX.]{1,20}\Z"))
def test_whatever_the_system_reads_as_a_number_never_counts_as_a_name(text):
    try:
        system = ipaddress.IPv4Address(socket.inet_aton(text))
    except OSError:
        return
    with contextlib.suppress(ValueError):  # refused is safe
        assert numeric_host(text) == system


@pytest.mark.parametrize(
    "text", ["256.1.1.1", "1.2.3.4.5", "1..1", "0x", "08", "1.2.3.256", "4294967296", "1.16777216"]
)
def test_malformed_numbers_are_refused(text):
    with pytest.raises(ValueError, match=r"."):
        numeric_host(text)


@pytest.mark.parametrize("text", ["::1%lo", "fe80::1%eth0", "1::2::3", ":", "12345::"])
def test_malformed_ipv6_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        numeric_host(text)


@pytest.mark.parametrize("text", ["example.com", "1.example", "127.0.0.1.nip.io", "a", "x0x1", "0x7f.com"])
def test_names_are_names(text):
    assert numeric_host(text) is None
