"""Single fields of a publisher: the pure checks, and properties that must hold for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import checks
from gateway.eip55 import checksum, keccak_256


def test_keccak_is_ethereums() -> None:
    assert keccak_256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak_256(b"abc").hex() == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"
    # The longest message of one block, and the first of two.
    assert keccak_256(b"a" * 135).hex() == "34367dc248bbd832f4e3e69dfaac2f92638bd0bbd18f2912ba4ef454919cf446"
    assert keccak_256(b"a" * 136).hex() == "a6c4d403279fe3e0af03729caada8374b5ca54d8065329a3ebcaeb4b60aa386e"


# EIP-55's own examples.
@pytest.mark.parametrize(
    "address",
    [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0xde709f2102306220921060314715629080e2fb77",
    ],
)
def test_addresses_are_taken_with_a_right_checksum_or_none(address: str) -> None:
    network = "eip155:8453"
    assert checksum(address.lower()) == address
    for written in (address, "0x" + address[2:].lower(), "0x" + address[2:].upper()):
        assert checks.wallet_address(written, network) == written


@pytest.mark.parametrize(
    "address", ["", "0x", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x" + "0" * 40, "0x" + "g" * 40, "0X" + "a" * 40,
                "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", " 0x" + "a" * 40, "0x" + "a" * 40 + "\n"]
)  # fmt: skip
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"must|checksum"):
        checks.wallet_address(address, "eip155:1")


@given(st.text(max_size=60))
def test_no_accepted_header_can_end_a_header(text: str) -> None:
    for check in (checks.header_name, checks.header_value):
        try:
            accepted = check(text)
        except ValueError:
            continue
        assert not set(accepted) & set("\r\n\x00")
        assert accepted.isascii()
        assert accepted == accepted.strip()


@given(st.text(alphabet="/{}abc.%2eE\\?# ", max_size=24))
def test_no_accepted_path_climbs(text: str) -> None:
    try:
        path = checks.path_template(text)
    except ValueError:
        return
    segments = path.lower().replace("%2e", ".").split("/")
    assert path.startswith("/")
    assert not {".", ".."} & set(segments)
    assert not set(path) & set("?#\\ ")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/items/{id}", "/{a}/{b}", "/a%20b", "/a;b=c", "/@x/~y"])
def test_ordinary_paths_are_taken(path: str) -> None:
    assert checks.path_template(path) == path


@given(
    st.recursive(
        st.none() | st.integers(-5, 5) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    )
)
def test_depth_agrees_with_its_recursive_definition(value: object) -> None:
    def plain(item: object) -> int:
        if isinstance(item, dict):
            return 1 + max((plain(child) for child in item.values()), default=0)
        if isinstance(item, list):
            return 1 + max((plain(child) for child in item), default=0)
        return 0

    assert checks.depth(value) == plain(value)


def test_integers_beyond_64_bits_are_not_stored_as_something_else() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        checks.json_value({"a": 2**70})


def test_passthrough_names_are_kept_once_and_a_star_means_all() -> None:
    assert checks.passthrough(["X-A", "x-a", "*"]) == ["X-A", "*"]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a", True), ("\u65e5\u672c", True), ("\U0001f389", True), ("!", True), ("\u0ba8\u0bbf", True),
        ("\u200b", False), ("\u202e \u200d", False), ("\ufeff", False), ("\u3164", False), ("\u2800\u00a0", False),
        ("\u0301", False), ("\U000e0041", False),
    ],
)  # fmt: skip
def test_a_name_needs_something_to_see(text: str, seen: bool) -> None:
    assert checks.has_something_to_see(text) is seen
