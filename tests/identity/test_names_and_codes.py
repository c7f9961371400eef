"""Names, codes, permissions and client addresses: the pure parts of identity."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import codes, names
from gateway.identity.clients import client_address, networks
from gateway.identity.permissions import ROLES, Permission


def test_invented_names_have_the_contracts_form_and_differ() -> None:
    made = {names.invent() for _ in range(500)}
    assert len(made) > 490
    assert all(re.fullmatch(r"[a-z]+-[a-z]+-[0-9a-f]{4}", name) for name in made)
    assert all(names.check(name) == name for name in made)


def test_a_name_is_brought_into_one_form() -> None:
    assert names.check("  Zoe\u0308   B ") == "Zo\u00eb B"


@pytest.mark.parametrize("text", ["", " ", "\u00a0", "a\x00b", "a\tb", "a\u202eb", "\ufeffa", "a\ud800", "x" * 65])
def test_names_that_deceive_or_do_not_fit_are_refused(text: str) -> None:
    with pytest.raises(names.NameRefused):
        names.check(text)


@given(st.text(max_size=100))
def test_a_checked_name_is_stable_and_clean(text: str) -> None:
    try:
        name = names.check(text)
    except names.NameRefused:
        return
    assert names.check(name) == name
    assert "\x00" not in name
    assert 1 <= len(name) <= 64
    assert re.fullmatch(r"(?:[a-z0-9]+(?:-[a-z0-9]+)*)?", names.slug_of(name))


def test_a_recovery_code_comes_back_however_it_is_written() -> None:
    code = codes.new_recovery_code()
    plain = code.replace("-", "")
    assert len(plain) == 24
    for written in (code, plain, code.lower(), f"  {code.replace('-', ' – ')}\n"):
        assert codes.recovery_hash(written) == codes.recovery_hash(code)
    assert len({codes.new_recovery_code() for _ in range(100)}) == 100


@pytest.mark.parametrize("text", ["", "A" * 23, "A" * 25, "O" * 24, "1" * 24, "é" * 24])
def test_what_cannot_be_a_code_is_told_apart(text: str) -> None:
    with pytest.raises(codes.CodeRefused):
        codes.recovery_hash(text)


def test_roles_hold_what_was_decided() -> None:
    assert ROLES["owner"] == frozenset(Permission)
    assert ROLES["owner"] - ROLES["admin"] == {Permission.ORG_DELETE, Permission.ORG_CHANGE_OWNER}
    assert ROLES["viewer"] < ROLES["editor"] < ROLES["admin"]
    # Who has keys of its own there, from a time with a larger role, can still end them.
    assert [one for one in ROLES["viewer"] if not one.value.endswith(".read")] == [Permission.API_KEYS_UPDATE]


TRUSTED = networks(["10.0.0.0/8", "2001:db8:ffff::/48"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5, 198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5", "198.51.100.9, 10.0.0.2"], "198.51.100.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.9:4711"], "198.51.100.9"),
        ("10.0.0.1", ["[2001:db8:1:2:3::4]:443"], "2001:db8:1:2::"),
        ("::ffff:10.0.0.1", ["198.51.100.9"], "198.51.100.9"),
        ("2001:db8:1:2:3::4", [], "2001:db8:1:2::"),
        (None, ["198.51.100.9"], "unknown"),
        ("testclient", [], "unknown"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_not_trusted(
    peer: str | None, forwarded: list[str], expected: str
) -> None:
    assert client_address(peer, forwarded, TRUSTED) == expected


@given(st.lists(st.text(max_size=40), max_size=4))
def test_no_forwarded_text_makes_an_address_up(forwarded: list[str]) -> None:
    found = client_address("10.0.0.1", forwarded, TRUSTED)
    assert ipaddress.ip_address(found)
    assert client_address("192.0.2.1", forwarded, TRUSTED) == "192.0.2.1"
