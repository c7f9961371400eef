"""Signatures by keys and by smart wallets: what is proven here, what the chain is asked, what is no signature at all."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import pytest
from eth_abi import encode
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from gateway.payments.evm.encoding import show_address
from gateway.payments.x402 import signatures
from gateway.payments.x402.offer import Offer
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.verify import Verified
from tests.payments.x402.shop import Payer, check, offer

SUFFIX = bytes.fromhex("6492" * 16)
FACTORY = b"\xfa" * 20
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def wrapped(factory: bytes, calldata: bytes, inner: bytes) -> bytes:
    """An ERC-6492 signature as eth-abi encodes it."""
    return encode(["address", "bytes", "bytes"], [factory, calldata, inner]) + SUFFIX


@given(st.binary(min_size=32, max_size=32), st.integers(1, ORDER - 1))
def test_the_signer_is_recovered_as_eth_account_signs(digest: bytes, secret: int) -> None:
    account = Account.from_key(secret.to_bytes(32, "big"))
    signature = bytes(account.unsafe_sign_hash(digest).signature)
    assert signatures.recover(digest, signature) == bytes.fromhex(account.address[2:])
    other = bytes((signature[0] ^ 1,)) + signature[1:]
    assert signatures.recover(digest, other) != signatures.recover(digest, signature)


@given(st.binary(max_size=100), st.binary(min_size=32, max_size=32))
def test_no_bytes_are_more_than_a_refusal(data: bytes, digest: bytes) -> None:
    found = signatures.recover(digest, data)
    assert found is None or len(found) == 20
    read = signatures.read_signature(data)
    assert read is None or read.deployment is None


@pytest.mark.parametrize(
    ("r", "s"), [(0, 1), (1, 0), (ORDER, 1), (1, ORDER), (1, ORDER // 2 + 1), (2**256 - 1, 1), (0, 0)]
)
@pytest.mark.parametrize("v", [27, 28])
def test_numbers_outside_the_curve_are_no_signature(r: int, s: int, v: int) -> None:
    data = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes((v,))
    assert signatures.recover(secrets.token_bytes(32), data) is None


@given(st.binary(min_size=20, max_size=20), st.binary(max_size=200), st.binary(max_size=200))
def test_erc_6492_is_read_as_eth_abi_writes_it(factory: bytes, calldata: bytes, inner: bytes) -> None:
    read = signatures.read_signature(wrapped(factory, calldata, inner))
    assert read is not None
    assert read.deployment == signatures.Deployment(factory, calldata)
    assert read.data == inner


@given(st.binary(max_size=96), st.integers(0, 400), st.integers(1, 255))
def test_a_changed_layout_is_no_erc_6492(inner: bytes, place: int, change: int) -> None:
    """Every byte of the frame counts: one reading only, as what is simulated must be what is stored."""
    data = bytearray(wrapped(FACTORY, b"\xca\x11", inner))
    place %= len(data) - 32
    data[place] ^= change
    read = signatures.read_signature(bytes(data))
    if read is not None:
        assert read.deployment is not None
        assert wrapped(read.deployment.factory, read.deployment.data, read.data) == bytes(data)


@pytest.mark.parametrize("cut", [1, 31, 32, 64, 96, 160])
def test_a_truncated_erc_6492_is_refused(cut: int) -> None:
    data = wrapped(FACTORY, b"\xca\x11", b"\1" * 65)[:-32]
    assert signatures.read_signature(data[:-cut] + SUFFIX) is None
    assert signatures.read_signature(data + bytes(32) + SUFFIX) is None
    assert signatures.read_signature(SUFFIX) is None


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_the_question_is_erc_1271s(digest: bytes, signature: bytes) -> None:
    expected = bytes.fromhex("1626ba7e") + encode(["bytes32", "bytes"], [digest, signature])
    assert signatures.question(digest, signature) == expected


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        (bytes.fromhex("1626ba7e") + bytes(28), True),
        (b"", False),  # an account without code
        (bytes(32), False),
        (bytes.fromhex("1626ba7e"), False),
        (bytes.fromhex("1626ba7e") + b"\1" * 28, False),
        (bytes(28) + bytes.fromhex("1626ba7e"), False),
        ((1).to_bytes(32, "big"), False),
        (bytes.fromhex("ffffffff") + bytes(28), False),
    ],
)
def test_only_the_magic_value_is_a_yes(answer: bytes, yes: bool) -> None:
    assert signatures.affirms(answer) is yes


def with_factories(ours: Offer, *factories: bytes) -> Offer:
    return replace(ours, kind=replace(ours.kind, factories=frozenset(factories)))


def wallet_payment(ours: Offer, signature: bytes) -> dict[str, Any]:
    payment = Payer().payment(ours) if ours.kind.scheme == "exact" else Payer().permit(ours)
    payment["payload"]["signature"] = "0x" + signature.hex()
    return payment


def refused(verified: Verified) -> Reason:
    with pytest.raises(PaymentRefused) as refusal:
        verified.decided(False)
    return refusal.value.reason


@pytest.mark.parametrize("signature", [b"\1" * 64, b"\1" * 66, b"\0" * 65, b"\1" * 65, b"\1" * 2000, b"\x1b"])
def test_a_smart_wallet_is_asked_whether_it_signed(signature: bytes) -> None:
    ours = offer()
    verified = check(wallet_payment(ours, signature), ours)
    assert verified.question is not None
    assert verified.question.data == signatures.question(verified.digest, signature)
    assert verified.decided(True).question is None
    assert verified.decided(True).terms.signature == signature, "what the last byte means is the wallet's business"
    assert refused(verified) is Reason.SIGNATURE


def test_an_undeployed_wallet_is_made_by_a_factory_that_we_call() -> None:
    ours = with_factories(offer(), FACTORY)
    verified = check(wallet_payment(ours, wrapped(FACTORY, b"\xca\x11", b"\7" * 96)), ours)
    assert (verified.terms.deploy_target, verified.terms.deploy_data, verified.terms.signature) == (
        FACTORY,
        b"\xca\x11",
        b"\7" * 96,
    )
    made = verified.decided(False)
    assert (made.question, made.terms.deploy_target) == (None, FACTORY)
    there = verified.decided(True)
    assert (there.question, there.terms.deploy_target, there.terms.deploy_data) == (None, None, None)


def test_no_other_factory_is_ever_called_with_our_gas() -> None:
    ours = with_factories(offer(), b"\xfb" * 20)
    verified = check(wallet_payment(ours, wrapped(FACTORY, b"\xca\x11", b"\7" * 96)), ours)
    assert (verified.terms.deploy_target, verified.terms.deploy_data) == (None, None)
    assert refused(verified) is Reason.FACTORY
    assert verified.decided(True).terms.signature == b"\7" * 96  # deployed already: its own word counts


def test_upto_takes_no_wallet_that_is_not_deployed() -> None:
    ours = with_factories(offer(scheme="upto"), FACTORY)
    verified = check(wallet_payment(ours, wrapped(FACTORY, b"\xca\x11", b"\7" * 96)), ours)
    assert verified.terms.deploy_target is None
    assert refused(verified) is Reason.WALLET


def test_a_broken_wrapping_is_refused_at_once() -> None:
    with pytest.raises(PaymentRefused) as refusal:
        check(wallet_payment(offer(), b"\1" * 65 + SUFFIX), offer())
    assert refusal.value.reason is Reason.SIGNATURE


def test_a_keys_signature_in_a_wrapping_is_the_wallets_to_judge() -> None:
    """The frame says that the payer is a contract; a key that happens to fit it proves nothing for a contract."""
    payer, ours = Payer(), offer()
    payment = payer.payment(ours)
    inner = bytes.fromhex(payment["payload"]["signature"][2:])
    payment["payload"]["signature"] = "0x" + wrapped(FACTORY, b"", inner).hex()
    verified = check(payment, ours)
    assert verified.question is not None
    assert show_address(verified.terms.payer) == payer.account.address
