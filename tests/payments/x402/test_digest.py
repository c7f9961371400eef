"""EIP-712 as chains and wallets compute it: separators that contracts publish, and eth-account's digest of anything."""

from __future__ import annotations

from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from gateway.eip55 import checksum, keccak_256
from gateway.payments.evm.encoding import parse_address
from gateway.payments.x402.digest import digest, domain_separator, permit2_separator
from gateway.payments.x402.terms import SignedTerms
from tests.payments.x402.shop import TRANSFER_TYPES, permit_types

ADDRESSES = st.binary(min_size=20, max_size=20)
WORDS = st.integers(min_value=0, max_value=2**256 - 1)
PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"


def test_separators_are_those_that_the_contracts_publish() -> None:
    """DOMAIN_SEPARATOR() of USDC on Ethereum, Base and Base Sepolia, and of Permit2 on Ethereum."""
    for chain, name, contract, expected in (
        (1, "USD Coin", "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "06c37168a7db5138defc7866392bb87a741f9b3d104deb5094588ce041cae335"),
        (8453, "USD Coin", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f"),
        (84532, "USDC", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818"),
    ):  # fmt: skip
        assert domain_separator(name, "2", chain, parse_address(contract)).hex() == expected
    expected = "866a5aba21966af95d6c7ab78eb2b2fc913915c28be3b9aa07cc04ff903e3f28"
    assert permit2_separator(1, parse_address(PERMIT2)).hex() == expected


def theirs(domain: dict[str, object], types: dict[str, list[dict[str, str]]], message: dict[str, object]) -> bytes:
    signable = encode_typed_data(domain, types, message)
    return keccak_256(b"\x19" + signable.version + signable.header + signable.body)


def text(address: bytes) -> str:
    return checksum("0x" + address.hex())


@given(ADDRESSES, ADDRESSES, WORDS, WORDS, WORDS, WORDS, ADDRESSES, st.integers(1, 2**63), st.text(max_size=40))
def test_transfers_hash_as_eth_account_hashes_them(
    payer: bytes, payee: bytes, value: int, after: int, before: int, nonce: int, token: bytes, chain: int, name: str
) -> None:
    terms = SignedTerms("eip3009", payer, payee, value, after, before, nonce.to_bytes(32, "big"), b"")
    domain = {"name": name, "version": "2", "chainId": chain, "verifyingContract": text(token)}
    message = {
        "from": text(payer), "to": text(payee), "value": value, "validAfter": after, "validBefore": before,
        "nonce": terms.nonce,
    }  # fmt: skip
    assert digest(domain_separator(name, "2", chain, token), terms) == theirs(domain, TRANSFER_TYPES, message)


@given(
    st.booleans(),
    ADDRESSES,
    ADDRESSES,
    WORDS,
    WORDS,
    WORDS,
    WORDS,
    ADDRESSES,
    ADDRESSES,
    ADDRESSES,
    st.integers(1, 2**63),
)
def test_permits_hash_as_eth_account_hashes_them(
    upto: bool, payer: bytes, payee: bytes, value: int, after: int, deadline: int, nonce: int, token: bytes,
    spender: bytes, facilitator: bytes, chain: int,
) -> None:  # fmt: skip
    terms = SignedTerms(
        "permit2_upto" if upto else "permit2_exact", payer, payee, value, after, deadline, nonce.to_bytes(32, "big"), b"",
        token, spender, facilitator,
    )  # fmt: skip
    witness = {"to": text(payee), "validAfter": after} | ({"facilitator": text(facilitator)} if upto else {})
    message = {
        "permitted": {"token": text(token), "amount": value}, "spender": text(spender), "nonce": nonce,
        "deadline": deadline, "witness": witness,
    }  # fmt: skip
    domain = {"name": "Permit2", "chainId": chain, "verifyingContract": PERMIT2}
    separator = permit2_separator(chain, parse_address(PERMIT2))
    assert digest(separator, terms) == theirs(domain, permit_types(upto=upto), message)
