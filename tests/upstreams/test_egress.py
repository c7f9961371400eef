"""The guard: strict URLs, every address checked, results cached briefly."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstreams.egress import EgressGuard, EgressRefused, ResolutionFailed, canonical_host
from gateway.upstreams.origin import Origin

from .wire import LOOPBACK


class Names:
    """A resolver that counts and can be changed under way."""

    def __init__(self, **names: list[str]) -> None:
        self.names = names
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        await asyncio.sleep(0)
        name = host.partition(".")[0]
        if name not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.names[name]


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://api.example.com", Origin("https", "api.example.com", 443), ""),
        ("HTTPS://API.Example.COM/", Origin("https", "api.example.com", 443), ""),
        ("http://api.example.com:8080/v1/", Origin("http", "api.example.com", 8080), "/v1"),
        ("https://api.example.com:443/a/b%20c", Origin("https", "api.example.com", 443), "/a/b%20c"),
        ("https://bücher.example/x", Origin("https", "xn--bcher-kva.example", 443), "/x"),
        ("https://1.1.1.1/x", Origin("https", "1.1.1.1", 443), "/x"),
        ("https://0x1010101/", Origin("https", "1.1.1.1", 443), ""),
        ("https://[2606:4700:0::1111]:8443/x", Origin("https", "2606:4700::1111", 8443), "/x"),
        ("https://a_b.example.com", Origin("https", "a_b.example.com", 443), ""),
    ],
)
def test_urls_that_pass(url, origin, path):
    assert EgressGuard().check_url(url) == (origin, path)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "form"),
        ("ftp://a.example", "form"),
        ("//a.example", "form"),
        ("https:/a.example", "form"),
        ("https://", "no host"),
        ("https:///x", "no host"),
        ("https://:80/", "no host"),
        ("https://user@a.example/", "user information"),
        ("https://user:pw@a.example/", "user information"),
        ("https://a.example@127.0.0.1/", "user information"),
        ("https://a.example/#x", "fragment"),
        ("https://a.example/?x", "query"),
        ("https://a.example?x", "query"),
        ("https://a.example/a b", "space"),
        (" https://a.example/", "space"),
        ("https://a.example/\r\nX: y", "control"),
        ("https://a.example\t/", "control"),
        ("https://a.example/\0", "control"),
        ("https://a.example\\@b.example/", "backslash"),
        ("https://a.example:0/", "port"),
        ("https://a.example:65536/", "port"),
        ("https://a.example:/", "port"),
        ("https://a.example:-1/", "port"),
        ("https://a.example:8 0/", "space"),
        ("https://a.example:\u0661/", "port"),
        ("https://a.example./", "label"),
        ("https://a..example/", "label"),
        ("https://.a.example/", "label"),
        ("https://-a.example/", "label"),
        ("https://a%2eexample/", "label"),
        ("https://" + "a" * 64 + ".example/", "label"),
        ("https://" + "a." * 127 + "aa/", "label"),
        ("https://a.example/../x", "dot segment"),
        ("https://a.example/%2E%2e/x", "dot segment"),
        ("https://a.example/./x", "dot segment"),
        ("https://a.example/ü", "percent-encoded"),
        ("https://a.example/%zz", "percent-encoded"),
        ("https://[::1", "form"),
        ("https://[a.example]/", "brackets"),
        ("https://[fe80::1%25eth0]/", "not a valid address"),
        ("https://1.2.3.4.5/", "not a valid address"),
        ("https://192.168.1.10/", "192.168.1.10 is a private address"),
        ("https://2130706433/", "127.0.0.1 is a loopback address"),
        ("https://127.1/", "127.0.0.1 is a loopback address"),
        ("https://0177.0.0.1/", "127.0.0.1 is a loopback address"),
        ("https://0x7f.0.0.1/", "127.0.0.1 is a loopback address"),
        ("https://①②⑦.⓪.⓪.①/", "127.0.0.1 is a loopback address"),
        ("https://127。0。0。1/", "127.0.0.1 is a loopback address"),
        ("https://169.254.169.254/latest", "metadata"),
        ("https://[::ffff:169.254.169.254]/", "IPv4-mapped"),
        ("https://[::1]/", "loopback"),
        ("https://localhost/", "loopback name"),
        ("https://x.LOCALHOST/", "loopback name"),
    ],
)
def test_urls_that_are_refused_say_why(url, reason):
    with pytest.raises(EgressRefused, match=reason):
        EgressGuard().check_url(url)


def test_development_may_allow_loopback():
    guard = EgressGuard(LOOPBACK)
    assert guard.check_url("http://localhost:3000/x").origin == Origin("http", "localhost", 3000)
    assert guard.check_url("http://127.1:3000").origin == Origin("http", "127.0.0.1", 3000)


@given(st.text(max_size=60))
def test_no_text_makes_the_check_fail_otherwise_than_by_refusal(text):
    for url in (text, "https://" + text, "https://a.example/" + text):
        try:
            origin, path = EgressGuard().check_url(url)
        except EgressRefused:
            continue
        assert (origin.host.isascii(), path.isascii()) == (True, True)
        assert not set(origin.host) & set("@/\\#? \r\n\t\0")
        assert not set(path) & set("\\#? \r\n\t\0")


@given(st.ip_addresses(v=4))
def test_a_canonical_host_is_a_fixed_point(address):
    assert canonical_host(str(int(address))) == str(address)
    assert canonical_host(canonical_host(str(address))) == str(address)


async def test_addresses_are_resolved_checked_and_cached_for_a_while():
    now = 100.0
    names = Names(api=["93.184.215.14", "2606:4700::1111", "93.184.215.14"])
    guard = EgressGuard(resolver=names, ttl=10, clock=lambda: now)
    for spelling in ("API.example", "api.example", "aPi.Example"):
        assert await guard.addresses(spelling, 443) == ("93.184.215.14", "2606:4700::1111")
    assert names.asked == 1
    now = 110.5
    names.names["api"] = ["127.0.0.1"]  # rebinding after the check: the next resolution is checked as well
    with pytest.raises(EgressRefused, match=r"^api\.example resolves to a loopback address$"):
        await guard.addresses("api.example", 443)
    assert names.asked == 2


@pytest.mark.parametrize("bad", ["10.0.0.1", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "nonsense"])
async def test_one_bad_address_refuses_the_host(bad):
    guard = EgressGuard(resolver=Names(api=["93.184.215.14", bad]))
    with pytest.raises(EgressRefused):
        await guard.addresses("api.example", 443)
    with pytest.raises(EgressRefused):
        await guard.resolve_url("https://api.example/v1")


async def test_literals_are_not_resolved():
    names = Names()
    guard = EgressGuard(resolver=names)
    assert await guard.addresses("0x8.8.2056", 443) == ("8.8.8.8",)
    assert await guard.addresses("2606:4700::1111", 443) == ("2606:4700::1111",)
    for literal in ("2130706433", "::1", "10.1"):
        with pytest.raises(EgressRefused):
            await guard.addresses(literal, 443)
    assert names.asked == 0


async def test_a_name_without_addresses_is_not_refused_but_failed():
    for names in (Names(), Names(nowhere=[])):
        with pytest.raises(ResolutionFailed, match=r"nowhere\.example"):
            await EgressGuard(resolver=names).addresses("nowhere.example", 443)


async def test_concurrent_callers_share_one_resolution_and_may_leave():
    names = Names(api=["93.184.215.14"])
    guard = EgressGuard(resolver=names)
    calls = [asyncio.ensure_future(guard.addresses("api.example", 443)) for _ in range(5)]
    await asyncio.sleep(0)
    calls[0].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [("93.184.215.14",)] * 4
    assert names.asked == 1


async def test_the_cache_is_bounded():
    names = Names(**{f"h{number}": ["93.184.215.14"] for number in range(20)})
    guard = EgressGuard(resolver=names, cache_size=4)
    for number in range(20):
        await guard.addresses(f"h{number}.example", 443)
    assert len(guard._cache) == 4
    await guard.addresses("h19.example", 443)
    assert names.asked == 20


async def test_the_system_resolver_is_the_default():
    assert set(await EgressGuard(LOOPBACK).addresses("localhost", 80)) <= {"127.0.0.1", "::1"}
    with pytest.raises(EgressRefused):
        await EgressGuard().addresses("localhost", 80)


async def test_an_allowed_range_is_allowed_for_names_too():
    guard = EgressGuard([ipaddress.ip_network("10.1.0.0/16")], resolver=Names(api=["10.1.2.3"], other=["10.2.2.3"]))
    assert await guard.addresses("api.example", 80) == ("10.1.2.3",)
    with pytest.raises(EgressRefused):
        await guard.addresses("other.example", 80)
