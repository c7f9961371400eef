"""Which of an upstream's offers may be taken: whatever it writes, only what every part of the allowance says."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.networks import load_networks
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.keystore import Signer
from gateway.payments.x402 import v1, v2
from gateway.payments.x402.digest import digest
from gateway.payments.x402.offer import compile_kinds
from gateway.payments.x402.purchase import (
    Allowed,
    Chosen,
    NotChosen,
    choose,
    payment_field,
    read_required,
    read_settlement,
    terms_of,
)
from gateway.payments.x402.signatures import recover

KINDS = compile_kinds(load_networks({}), {"eip155:84532": b"", "eip155:8453": b""})
KIND = KINDS.find("eip155:84532", "USDC")
assert KIND is not None
PAYEE, WALLET = b"\x07" * 20, Signer(b"\x01" * 32)
ALLOWED = Allowed((KIND,), frozenset({PAYEE}), "shop.example", 50_000, 300)
OFFER: dict[str, Any] = {
    "scheme": "exact", "network": "eip155:84532", "amount": "10000", "asset": KIND.asset_text,
    "payTo": show_address(PAYEE), "maxTimeoutSeconds": 60, "extra": {"name": "USDC", "version": "2"},
}  # fmt: skip
OLD = {**OFFER, "network": "base-sepolia", "maxAmountRequired": "10000", "resource": "http://shop.example/x"}


def header(*offers: Any, url: Any = "https://shop.example/x") -> bytes:
    return base64.b64encode(orjson.dumps({"x402Version": 2, "resource": {"url": url}, "accepts": offers}))


def chosen(*offers: Any, allowed: Allowed = ALLOWED, url: Any = "https://shop.example/x") -> Chosen | NotChosen:
    return choose(read_required(header(*offers, url=url), None), allowed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8) | st.sampled_from(list(OFFER.values())[:6]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*OFFER, *OLD]), inner, max_size=8),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.sampled_from([*OFFER, "maxAmountRequired", "resource"]), JSON), max_size=4), JSON)
def test_whatever_is_written_only_what_is_allowed_is_taken(entries: list[dict[str, Any]], resource: Any) -> None:
    offers = [{**OFFER, **entry} for entry in entries]
    for version, document in ((2, offers), (1, [{**OLD, **entry} for entry in entries])):
        text = orjson.dumps({"x402Version": version, "accepts": document, "resource": resource})
        found = choose(read_required(None, text), ALLOWED)
        if isinstance(found, Chosen):
            assert (found.kind, found.payee) == (KIND, PAYEE)
            assert 0 < found.amount <= ALLOWED.most
            assert 5 <= found.seconds <= 300
            terms = terms_of(found, WALLET.address, bytes(32), 1_000)
            assert (terms.payee, terms.value, terms.valid_before) == (PAYEE, found.amount, 1_000 + found.seconds)


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=8), st.integers(1, 100_000))
def test_the_cheapest_that_fits_is_taken(prices: list[int], most: int) -> None:
    found = chosen(*({**OFFER, "amount": str(price)} for price in prices), allowed=replace(ALLOWED, most=most))
    fitting = [price for price in prices if price <= most]
    if fitting:
        assert isinstance(found, Chosen)
        assert found.amount == min(fitting)
    else:
        assert found == NotChosen("price", min(prices))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_readers(data: bytes) -> None:
    for found in (read_required(data, data), read_required(base64.b64encode(data), None)):
        assert choose(found, ALLOWED) is not None
    read_settlement(data)
    read_settlement(base64.b64encode(data))


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/x",
        "//elsewhere.example/x",
        "https://shop.example@elsewhere.example/",
        7,
        "http://[",
        "",
    ],
)
def test_a_resource_of_another_host_is_not_bought(url: Any) -> None:
    assert chosen(OFFER, url=url) == NotChosen("resource")


@pytest.mark.parametrize("url", ["http://SHOP.example:8080/y", "/x", None, "https://shop.example./"])
def test_a_resource_of_the_server_that_was_asked_is(url: Any) -> None:
    assert isinstance(chosen(OFFER, url=url), Chosen)


def test_an_authorization_lives_no_longer_than_allowed() -> None:
    found = chosen({**OFFER, "maxTimeoutSeconds": 10**9})
    assert isinstance(found, Chosen)
    assert found.seconds == 300


@pytest.mark.parametrize(("version", "read"), [(2, v2.read_payment), (1, v1.read_payment)])
def test_what_is_signed_is_what_a_seller_reads_and_verifies(version: int, read: Any) -> None:
    text = orjson.dumps({"x402Version": version, "accepts": [OLD if version == 1 else OFFER], "resource": {"url": "/"}})
    found = choose(read_required(None, text), ALLOWED)
    assert isinstance(found, Chosen)
    unsigned = terms_of(found, WALLET.address, b"\x05" * 32, 1_000)
    raw = WALLET.sign(digest(found.kind.separator, unsigned))
    signed = replace(unsigned, signature=raw[:64] + bytes((27 + raw[64],)))
    name, value = payment_field(found, signed)
    taken, terms = read(value)
    assert name == (b"payment-signature" if version == 2 else b"x-payment")
    assert (taken.version, terms) == (version, signed)
    assert recover(digest(found.kind.separator, terms), terms.signature) == WALLET.address


def test_what_an_upstream_says_of_its_payment() -> None:
    said = read_settlement(base64.b64encode(b'{"success": true, "transaction": "0xabc"}'))
    assert (said.success, said.transaction) == (True, "0xabc")
    assert read_settlement(base64.b64encode(b'{"success": "yes", "transaction": 7}')).success is None
    assert read_settlement(None).success is None
