"""The official client takes up our offers, and what it signs pays for them: the same wire seen from the other side."""

from __future__ import annotations

import time
from typing import Any

import pytest
from eth_account import Account
from x402 import x402ClientSync
from x402.http.utils import (
    decode_payment_required_header,
    decode_payment_response_header,
    decode_payment_signature_header,
    encode_payment_signature_header,
)
from x402.mechanisms.evm.constants import PERMIT2_ADDRESS, X402_EXACT_PERMIT2_PROXY_ADDRESS
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.exact.v1.client import ExactEvmSchemeV1
from x402.mechanisms.evm.upto import UptoEvmScheme
from x402.schemas import PaymentPayload, PaymentRequired
from x402.schemas.helpers import parse_payment_required
from x402.schemas.v1 import PaymentPayloadV1, PaymentRequiredV1

from gateway.payments.x402 import v1, v2
from gateway.payments.x402.answers import Settlement
from gateway.payments.x402.offer import Offer
from gateway.payments.x402.required import required_body
from gateway.payments.x402.verify import Verified, verify
from tests.payments.x402.shop import BASE, FACILITATOR, PRICE, SEPOLIA, SHOP, networks, offer, permit2_offer


def pay(account: Any, *offers: Offer) -> tuple[PaymentPayload, bytes]:
    """Let the official client choose and sign from our PAYMENT-REQUIRED; return its payment and the header."""
    client = x402ClientSync()
    client.register("eip155:*", ExactEvmScheme(account))
    client.register("eip155:*", UptoEvmScheme(account))
    required = decode_payment_required_header(v2.required_header(offers, SHOP, "Payment required").decode())
    assert isinstance(required, PaymentRequired)
    payment = client.create_payment_payload(required)
    assert isinstance(payment, PaymentPayload)
    return payment, encode_payment_signature_header(payment).encode()


def taken(header: bytes, *offers: Offer) -> Verified:
    """Verify the client's header now."""
    payment, terms = v2.read_payment(header)
    verified = verify(payment, terms, offers, SHOP.url, int(time.time()))
    assert verified.question is None, "the client's key signed, so nobody need be asked"
    return verified


def test_the_client_reads_every_field_of_our_offer() -> None:
    required = decode_payment_required_header(v2.required_header([offer(), offer(BASE)], SHOP, "why").decode())
    assert isinstance(required, PaymentRequired)
    assert (required.x402_version, required.error) == (2, "why")
    assert required.resource is not None
    assert (required.resource.url, required.resource.description) == (SHOP.url, SHOP.description)
    assert [requirement.model_dump(by_alias=True) for requirement in required.accepts] == [
        {
            "scheme": "exact", "network": network, "asset": asset, "amount": str(PRICE),
            "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "maxTimeoutSeconds": 120,
            "extra": {"name": name, "version": "2"},
        }
        for network, asset, name in (
            (SEPOLIA, "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC"),
            (BASE, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin"),
        )
    ]  # fmt: skip


@pytest.mark.parametrize("network", [SEPOLIA, BASE])
def test_its_exact_payment_pays(network: str) -> None:
    account, ours = Account.create(), offer(network)
    payment, header = pay(account, ours)
    verified = taken(header, offer(SEPOLIA), offer(BASE))
    assert (verified.offer, verified.terms.payer.hex()) == (ours, account.address[2:].lower())
    signed = payment.payload["authorization"]
    assert (verified.terms.nonce.hex(), str(verified.terms.valid_before)) == (
        signed["nonce"][2:],
        signed["validBefore"],
    )


def test_its_payment_by_permit2_pays() -> None:
    account, ours = Account.create(), permit2_offer()
    payment, header = pay(account, ours)
    verified = taken(header, offer(), ours)
    signed = payment.payload["permit2Authorization"]
    assert signed["spender"] == X402_EXACT_PERMIT2_PROXY_ADDRESS
    assert (verified.terms.method, verified.offer) == ("permit2_exact", ours)
    assert verified.offer.kind.verifier.hex() == PERMIT2_ADDRESS[2:].lower()
    assert (int.from_bytes(verified.terms.nonce), verified.terms.payer.hex()) == (
        int(signed["nonce"]),
        account.address[2:].lower(),
    )


def test_its_upto_payment_authorizes_the_most_and_our_facilitator_alone() -> None:
    account, ours = Account.create(), offer(scheme="upto", amount=500_000)
    payment, header = pay(account, ours)
    verified = taken(header, ours)
    assert (verified.terms.method, verified.terms.authorized) == ("permit2_upto", 500_000)
    assert bytes.fromhex(payment.payload["permit2Authorization"]["witness"]["facilitator"][2:]) == FACILITATOR


def test_its_version_1_payment_for_our_version_1_body_pays() -> None:
    account, ours = Account.create(), offer()
    body = required_body([ours, permit2_offer()], SHOP, "Payment required", seren={}, prepaid=None, bearer=False)
    required = parse_payment_required(body)
    assert isinstance(required, PaymentRequiredV1)
    client = x402ClientSync()
    client.register_v1("base-sepolia", ExactEvmSchemeV1(account))
    payment = client.create_payment_payload(required)
    assert isinstance(payment, PaymentPayloadV1)
    said, terms = v1.read_payment(encode_payment_signature_header(payment).encode())
    verified = verify(said, terms, [ours, permit2_offer()], SHOP.url, int(time.time()))
    assert verified.question is None
    assert (verified.offer, verified.terms.payer.hex()) == (ours, account.address[2:].lower())


def test_its_reading_of_a_payment_is_ours() -> None:
    _, header = pay(Account.create(), offer())
    theirs = decode_payment_signature_header(header.decode())
    assert isinstance(theirs, PaymentPayload)
    said, terms = v2.read_payment(header)
    assert said.resource == SHOP.url
    assert (said.scheme, said.network) == (theirs.get_scheme(), theirs.get_network())
    assert "0x" + terms.signature.hex() == theirs.payload["signature"]


@pytest.mark.parametrize("write", [v1.response_header, v2.response_header])
@pytest.mark.parametrize("reason", [None, "insufficient_funds"])
def test_it_reads_how_a_payment_ended(write: Any, reason: str | None) -> None:
    network = networks().find(SEPOLIA)
    assert network is not None
    transaction = b"\xab" * 32 if reason is None else None
    payer = bytes.fromhex("857b06519E91e3A54538791bDbb0E22373e36b66")
    header = write(Settlement(network, payer, transaction, 7 if reason is None else None, reason))
    response = decode_payment_response_header(header.decode())
    assert response.success is (reason is None)
    assert response.transaction == ("0x" + "ab" * 32 if reason is None else "")
    assert response.network == (SEPOLIA if write is v2.response_header else "base-sepolia")
    assert (response.payer, response.error_reason) == ("0x857b06519E91e3A54538791bDbb0E22373e36b66", reason)
    assert response.amount == ("7" if reason is None and write is v2.response_header else None)
