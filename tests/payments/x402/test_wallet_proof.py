"""Proof of a wallet without a payment: only a fresh signature for this very gateway opens anything."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given
from hypothesis import strategies as st
from x402.extensions.sign_in_with_x import SIWxPayload, encode_siwx_header

from gateway.payments.x402 import signatures
from gateway.payments.x402.reasons import PaymentRefused
from gateway.payments.x402.siwe import Claims, read_claims, signed_text, text_digest
from gateway.payments.x402.wallet_proof import LIFETIME, ProofRefused, WalletProof, challenge, make_nonce, verify_proof
from tests.payments.x402.shop import BASE, NOW, SEPOLIA, header

SECRET = b"s" * 32
ORIGIN, DOMAIN = "https://gateway.example:8402", "gateway.example:8402"
NETWORKS = (BASE, SEPOLIA)

# As the reference library of EIP-4361 (siwe) writes them.
HEAD = "localhost:8402 wants you to sign in with your Ethereum account:\n0x857b06519E91e3A54538791bDbb0E22373e36b66\n\n"
BODY = (
    "URI: http://localhost:8402/wallet\nVersion: 1\nChain ID: 8453\nNonce: a1b2c3d4e5f67890a1b2c3d4e5f67890\n"
    "Issued At: 2026-01-15T10:30:00.000Z"
)
REST = (
    "\nExpiration Time: 2026-01-15T10:35:00Z\nNot Before: 2026-01-15T10:29:00Z\nRequest ID: r1\nResources:\n"
    "- https://a.example/x\n- ipfs://b"
)
PLAIN = Claims(
    domain="localhost:8402", address="0x857b06519E91e3A54538791bDbb0E22373e36b66", wallet=b"", uri="http://localhost:8402/wallet",
    version="1", network="eip155:8453", type="eip191", nonce="a1b2c3d4e5f67890a1b2c3d4e5f67890",
    issued_at="2026-01-15T10:30:00.000Z", statement=None, expiration_time=None, not_before=None, request_id=None,
    resources=None, signature=b"",
)  # fmt: skip


def test_the_text_is_the_reference_librarys() -> None:
    assert signed_text(PLAIN) == HEAD + "\n" + BODY
    assert signed_text(replace(PLAIN, resources=())) == HEAD + "\n" + BODY + "\nResources:"
    full = replace(
        PLAIN, statement="Hi there", expiration_time="2026-01-15T10:35:00Z", not_before="2026-01-15T10:29:00Z",
        request_id="r1", resources=("https://a.example/x", "ipfs://b"),
    )  # fmt: skip
    assert signed_text(full) == HEAD + "Hi there\n\n" + BODY + REST


def answer(account: Any, at: int = NOW, origin: str = ORIGIN, **changes: Any) -> dict[str, Any]:
    """A proof by an honest client for our challenge, with changes that are signed."""
    domain = origin.partition("://")[2]
    info = challenge(domain, origin + "/wallet", NETWORKS, make_nonce(SECRET, domain, at, secrets.token_bytes(4)), at)[
        "info"
    ]
    return sign(account, info | {"address": account.address, "chainId": BASE, "type": "eip191"} | changes)


def sign(account: Any, fields: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in fields.items() if value is not None}
    text = signed_text(read_claims(header(fields | {"signature": "0x"})))
    return fields | {"signature": "0x" + account.sign_message(encode_defunct(text=text)).signature.hex()}


def proof(fields: dict[str, Any], now: int = NOW, origin: str = ORIGIN) -> WalletProof:
    return verify_proof(header(fields), SECRET, origin, NETWORKS, now)


def refused(fields: dict[str, Any], **options: Any) -> str:
    with pytest.raises(ProofRefused) as refusal:
        proof(fields, **options)
    return str(refusal.value)


def test_a_fresh_answer_to_our_challenge_proves_the_wallet() -> None:
    account = Account.create()
    fields = answer(account)
    found = proof(fields, now=NOW + LIFETIME - 1)
    assert found == WalletProof(bytes.fromhex(account.address[2:]), BASE, fields["nonce"], NOW + LIFETIME, None)


def test_the_official_clients_header_is_read() -> None:
    account = Account.create()
    payload = SIWxPayload.model_validate(answer(account, resources=["https://a.example/x"], requestId="7"))
    found = verify_proof(encode_siwx_header(payload).encode(), SECRET, ORIGIN, NETWORKS, NOW)
    assert found.question is None
    assert found.wallet.hex() == account.address[2:].lower()


def test_the_digest_is_what_eth_account_signs() -> None:
    account = Account.create()
    for text in ("", "a", "é\n" * 100):
        signature = bytes(account.sign_message(encode_defunct(text=text)).signature)
        assert signatures.recover(text_digest(text), signature) == bytes.fromhex(account.address[2:])


SIGNED = [
    ({"domain": "evil.example"}, "another place"),
    ({"domain": "gateway.example"}, "another place"),
    ({"uri": "https://evil.example/wallet"}, "another place"),
    ({"uri": "http://gateway.example:8402/wallet"}, "another place"),
    ({"uri": "https://gateway.example:8402.evil.example/"}, "another place"),
    ({"uri": "https://gateway.example:8402@evil.example/"}, "another place"),
    ({"version": "2"}, "version must be"),
    ({"type": "ed25519"}, "type"),
    ({"chainId": "eip155:1"}, "chainId must be one of eip155:8453, eip155:84532"),
    ({"chainId": "8453"}, "chainId must be one of"),
    ({"chainId": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"}, "chainId must be one of"),
    ({"nonce": "a" * 32}, "not one of this gateway's"),
    ({"nonce": "abcdefgh"}, "not one of this gateway's"),
    ({"nonce": make_nonce(b"t" * 32, DOMAIN, NOW, b"1234")}, "not one of this gateway's"),
    ({"nonce": make_nonce(SECRET, "evil.example", NOW, b"1234")}, "not one of this gateway's"),
    ({"nonce": make_nonce(SECRET, DOMAIN, NOW - LIFETIME, b"1234")}, "too old"),
    ({"nonce": make_nonce(SECRET, DOMAIN, NOW + 61, b"1234")}, "too old"),
    ({"nonce": make_nonce(SECRET, DOMAIN, NOW, b"1234").upper() + ""}, "not one of this gateway's"),
    ({"issuedAt": "2099-01-01T00:00:00Z"}, "issuedAt is in the future"),
    ({"issuedAt": "yesterday"}, "issuedAt must be a moment"),
    ({"issuedAt": "2026-02-30T00:00:00Z"}, "not a moment that exists"),
    ({"issuedAt": "2026-01-15T10:30:00"}, "issuedAt must be a moment"),
    ({"notBefore": "2099-01-01T00:00:00Z"}, "not valid before"),
    ({"expirationTime": "2020-01-01T00:00:00+00:00"}, "has expired"),
    ({"expirationTime": "0001-01-01T00:00:00+14:00"}, "not a moment|has expired"),
]


@pytest.mark.parametrize(
    ("changes", "words"), SIGNED, ids=[f"{n}-{next(iter(row[0]))}" for n, row in enumerate(SIGNED)]
)
def test_other_claims_are_refused_though_they_are_signed(changes: dict[str, Any], words: str) -> None:
    said = refused(answer(Account.create(), **changes))
    assert any(word in said for word in words.split("|")), said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uri", ORIGIN + "/other"),
        ("nonce", make_nonce(SECRET, DOMAIN, NOW, b"1234")),
        ("issuedAt", "2020-01-01T00:00:00Z"),
        ("expirationTime", "2099-01-01T00:00:00Z"),
        ("statement", "Other"),
        ("chainId", SEPOLIA),
        ("address", "0x857b06519E91e3A54538791bDbb0E22373e36b66"),
        ("resources", []),
    ],
)
def test_a_claim_changed_after_signing_leaves_it_to_a_contract_to_agree(name: str, value: Any) -> None:
    """The key's signature no longer fits; only a smart wallet at that address could still say yes, and is asked."""
    fields = answer(Account.create())
    assert proof(fields).question is None
    assert proof(fields | {name: value}).question is not None


def test_a_smart_wallet_is_asked_by_erc_1271() -> None:
    fields = answer(Account.create()) | {"signature": "0x" + "07" * 96}
    found = proof(fields)
    digest = text_digest(signed_text(read_claims(header(fields))))
    assert found.question == signatures.question(digest, b"\7" * 96)


def test_a_broken_erc_6492_frame_is_refused() -> None:
    assert "ERC-6492" in refused(answer(Account.create()) | {"signature": "0x" + "01" * 65 + "6492" * 16})


def test_a_line_break_cannot_forge_a_claim() -> None:
    fields = answer(Account.create())
    for name in ("statement", "domain", "uri", "nonce", "issuedAt", "requestId", "address", "notBefore"):
        for text in ("x\nURI: https://evil.example", "x\ry", "x\u2028y", "é", "", "x" * 513):
            assert name in refused(fields | {name: text})
    assert "resources" in refused(fields | {"resources": ["a\nb"]})
    assert "resources" in refused(fields | {"resources": ["a"] * 17})
    assert "resources" in refused(fields | {"resources": "a"})


@pytest.mark.parametrize(
    "name", ["domain", "address", "uri", "version", "chainId", "type", "nonce", "issuedAt", "signature"]
)
def test_a_missing_claim_is_named(name: str) -> None:
    fields = answer(Account.create())
    del fields[name]
    assert name in refused(fields)
    assert "unknown field 'extra'" in refused(answer(Account.create()) | {"extra": 1})


def test_nonces_differ_and_end_by_themselves() -> None:
    nonces = {make_nonce(SECRET, DOMAIN, NOW, secrets.token_bytes(4)) for _ in range(100)}
    assert len(nonces) == 100
    assert "too old" in refused(answer(Account.create()), now=NOW + LIFETIME)


@given(
    st.binary(max_size=200)
    | st.dictionaries(st.text(max_size=10), st.text(max_size=20)).map(lambda d: json.dumps(d).encode())
)
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    for written in (data, header(data)):
        with pytest.raises(ProofRefused):
            verify_proof(written, SECRET, ORIGIN, NETWORKS, NOW)


@given(
    st.sampled_from(sorted(answer(Account.create(), resources=["a"], requestId="1", notBefore="2020-01-01T00:00:00Z"))),
    st.none() | st.integers() | st.text(max_size=60) | st.lists(st.text(max_size=9), max_size=3),
)
def test_no_claim_raises_anything_but_a_refusal(name: str, value: Any) -> None:
    fields = answer(Account.create()) | {name: value}
    try:
        read_claims(header(fields))
        proof(fields)
    except (ProofRefused, PaymentRefused) as refusal:
        str(refusal).encode()
