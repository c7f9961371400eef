"""What we ask an external facilitator is what a payer has signed, in every form; what it says is believed or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from gateway.payments.evm.rpc import NoAnswer
from gateway.payments.remote.facilitator import FacilitatorClient, Outcome
from gateway.payments.remote.wire import request_of
from gateway.payments.x402.facilitator import read_request
from gateway.payments.x402.offer import Offer, compile_kinds
from gateway.payments.x402.reasons import PaymentRefused
from gateway.payments.x402.verify import Verified, verify
from gateway.payments.x402.wire import parse
from tests.payments.x402.shop import (
    FACILITATOR,
    NOW,
    SEPOLIA,
    Payer,
    check,
    kinds,
    offer,
    permit2_networks,
    permit2_offer,
)  # fmt: skip

PAYMENT = UUID(int=7)
HASH = "0x" + "ab" * 32


def again(ours: Offer, paid: Verified) -> Verified:
    """Have the facilitator's side read and verify what we ask it."""
    body = json.dumps(request_of(ours.kind, paid.terms)).encode()
    known = kinds() if ours.kind.method == "eip3009" else compile_kinds(permit2_networks(), {SEPOLIA: FACILITATOR})
    asked = read_request(parse(body), known, settling=True)
    return verify(asked.taken, asked.terms, [asked.offer], None, NOW)


def test_a_transfer_is_asked_for_as_it_was_signed() -> None:
    ours = offer()
    paid = check(Payer().payment(ours), ours)
    assert again(ours, paid).terms == paid.terms


def test_a_permit_is_asked_for_as_it_was_signed() -> None:
    ours = permit2_offer()
    paid = check(Payer().permit(ours), ours)
    assert again(ours, paid).terms == paid.terms


def test_a_wallet_that_is_not_deployed_keeps_its_wrapping() -> None:
    from dataclasses import replace

    from eth_abi import encode

    factory = bytes.fromhex("4e59b44847b379578588920ca78fbf26c0b4956c")
    ours = offer()
    trusting = replace(ours, kind=replace(ours.kind, factories=frozenset((factory,))))
    payment = Payer().payment(ours)
    frame = encode(["address", "bytes", "bytes"], [factory, b"make it" * 9, b"\7" * 70]) + bytes.fromhex("6492" * 16)
    payment["payload"]["signature"] = "0x" + frame.hex()
    paid = check(payment, trusting)
    assert paid.terms.deploy_target == factory
    asked = request_of(ours.kind, paid.terms)
    assert asked["paymentPayload"]["payload"]["signature"] == "0x" + frame.hex()


def client(answer: bytes, status: int = 200) -> tuple[FacilitatorClient, list[Mapping[str, str]]]:
    seen: list[Mapping[str, str]] = []

    async def post(url: str, fields: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        assert url in ("https://facilitator.example/x402/verify", "https://facilitator.example/x402/settle")
        assert json.loads(body)["x402Version"] == 2
        seen.append(fields)
        return status, answer

    return FacilitatorClient(SEPOLIA, "https://facilitator.example/x402/", "t0ken", kinds(), post), seen


def terms() -> Any:
    ours = offer()
    return check(Payer().payment(ours), ours).terms


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ({"success": True, "transaction": HASH, "network": SEPOLIA}, Outcome("settled", bytes.fromhex(HASH[2:]))),
        ({"success": False, "errorReason": "settlement_pending"}, Outcome("pending", None, "settlement_pending")),
        ({"success": False, "errorReason": "insufficient_funds"}, Outcome("refused", None, "insufficient_funds")),
    ],
)
async def test_its_answers_are_read(answer: dict[str, Any], outcome: Outcome) -> None:
    asking, seen = client(json.dumps(answer).encode())
    assert await asking.settle(PAYMENT, terms()) == outcome
    assert seen == [
        {"Content-Type": "application/json", "Authorization": "Bearer t0ken", "Idempotency-Key": str(PAYMENT)}
    ]
    assert "t0ken" not in repr(asking)


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"[]", b"null", b"{}", b'{"success":"true"}', b'{"success":false}', b'{"success":true}',
        json.dumps({"success": True, "transaction": "0xab", "network": SEPOLIA}).encode(),
        json.dumps({"success": True, "transaction": HASH, "network": "eip155:8453"}).encode(),
        json.dumps({"success": True, "transaction": HASH}).encode(),
        json.dumps({"success": False, "errorReason": ""}).encode(),
    ],
)  # fmt: skip
async def test_what_says_nothing_is_no_answer(answer: bytes) -> None:
    with pytest.raises(NoAnswer):
        await client(answer)[0].settle(PAYMENT, terms())


@pytest.mark.parametrize("status", [201, 204, 302, 400, 401, 403, 404, 429, 500, 502, 503])
async def test_a_status_that_is_no_success_is_no_answer(status: int) -> None:
    said = json.dumps({"success": True, "transaction": HASH, "network": SEPOLIA, "isValid": True}).encode()
    asking = client(said, status)[0]
    for ask in (asking.settle(PAYMENT, terms()), asking.verify(terms())):
        with pytest.raises(NoAnswer):
            await ask


async def test_a_payment_that_it_would_not_settle_is_refused_by_its_code() -> None:
    await client(b'{"isValid":true}')[0].verify(terms())
    with pytest.raises(PaymentRefused, match="insufficient_funds"):
        await client(b'{"isValid":false,"invalidReason":"insufficient_funds"}')[0].verify(terms())
    with pytest.raises(PaymentRefused, match="transaction_failed"):
        await client(b'{"isValid":false,"invalidReason":"a word of its own"}')[0].verify(terms())
    with pytest.raises(NoAnswer):
        await client(b'{"isValid":"yes"}')[0].verify(terms())
