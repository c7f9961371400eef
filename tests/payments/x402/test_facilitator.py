"""The facilitator's wire, held against the official resource server's client: its requests are read, our answers too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from x402.http.facilitator_client_base import HTTPFacilitatorClientBase
from x402.schemas import PaymentPayload, PaymentRequirements, SettleResponse, SupportedResponse, VerifyResponse
from x402.schemas.v1 import PaymentPayloadV1, PaymentRequirementsV1

from gateway.payments.evm.encoding import show_address
from gateway.payments.x402 import v1, v2
from gateway.payments.x402.answers import Settlement
from gateway.payments.x402.facilitator import Asked, read_request, settle_answer, supported, verify_answer
from gateway.payments.x402.offer import Offer
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.verify import Verified, verify
from gateway.payments.x402.wire import parse
from tests.payments.x402.shop import BASE, FACILITATOR, NOW, PRICE, SEPOLIA, SHOP, Payer, as_v1, kinds, offer

OTHER = "0x857b06519E91e3A54538791bDbb0E22373e36b66"
BODY = HTTPFacilitatorClientBase()._build_request_body


def official(payment: dict[str, Any], requirements: dict[str, Any]) -> dict[str, Any]:
    """The body that the official client sends for a payment and requirements."""
    if payment["x402Version"] == 1:
        models: tuple[Any, Any] = (PaymentPayloadV1, PaymentRequirementsV1)
    else:
        models = (PaymentPayload, PaymentRequirements)
    parts = [model.model_validate(part) for model, part in zip(models, (payment, requirements), strict=True)]
    return BODY(payment["x402Version"], *(part.model_dump(by_alias=True, exclude_none=True) for part in parts))


def read(body: dict[str, Any], *, settling: bool = False) -> Asked:
    return read_request(parse(json.dumps(body).encode()), kinds(), settling=settling)


def verified(asked: Asked) -> Verified:
    return verify(asked.taken, asked.terms, [asked.offer], None, NOW).decided(False)


def refused(body: dict[str, Any], *, settling: bool = False) -> Reason:
    with pytest.raises(PaymentRefused) as refusal:
        verified(read(body, settling=settling))
    return refusal.value.reason


def requirements(of: Offer, version: int = 2, **changes: Any) -> dict[str, Any]:
    return (v1.requirements(of, SHOP) if version == 1 else v2.requirements(of)) | changes


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("settling", [False, True])
def test_an_official_servers_request_is_read_and_verified(version: int, settling: bool) -> None:
    payer, ours = Payer(), offer(payee=OTHER)
    payment = payer.payment(ours)
    payment["resource"]["url"] = "https://another.example/seller"
    body = official(as_v1(payment) if version == 1 else payment, requirements(ours, version))
    asked = read(body, settling=settling)
    assert (asked.version, asked.offer, asked.amount) == (version, ours, PRICE)
    assert verified(asked).terms.payer == payer.address


def test_upto_is_verified_for_the_most_and_settled_for_what_was_used() -> None:
    ours = offer(scheme="upto", amount=500)
    payment = Payer().permit(ours)
    assert verified(read(official(payment, requirements(ours)))).terms.authorized == 500
    for used in (0, 1, 500):
        asked = read(official(payment, requirements(ours, amount=str(used))), settling=True)
        assert (asked.amount, verified(asked).terms.authorized) == (used, 500)
    too_much = official(payment, requirements(ours, amount="501"))
    assert refused(too_much, settling=True) is Reason.UPTO_EXCEEDED
    assert refused(too_much) is Reason.PERMIT2_AMOUNT


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount": str(PRICE + 1)}, Reason.VALUE),
        ({"payTo": OTHER}, Reason.PAYEE),
        ({"asset": OTHER}, Reason.REQUIREMENTS),
        ({"network": "eip155:1"}, Reason.NETWORK),
        ({"network": "base-sepolia"}, Reason.NETWORK),
        ({"network": BASE}, Reason.REQUIREMENTS),
        ({"scheme": "upto"}, Reason.SCHEME),
        ({"extra": {"name": "Fools' Gold", "version": "2"}}, Reason.REQUIREMENTS),
        ({"maxTimeoutSeconds": 3_601}, Reason.REQUIREMENTS),
        ({"maxTimeoutSeconds": 0}, Reason.REQUIREMENTS),
        ({"amount": "1.5"}, Reason.REQUIREMENTS),
        ({"amount": "0x10"}, Reason.REQUIREMENTS),
        ({"payTo": "merchant"}, Reason.REQUIREMENTS),
    ],
)
def test_requirements_that_cannot_be_met_are_refused(changes: dict[str, Any], reason: Reason) -> None:
    assert refused(official(Payer().payment(offer()), requirements(offer(), **changes))) is reason


@pytest.mark.parametrize("name", ["scheme", "network", "asset", "amount", "payTo", "maxTimeoutSeconds"])
def test_incomplete_requirements_are_refused(name: str) -> None:
    body = official(Payer().payment(offer()), requirements(offer()))
    del body["paymentRequirements"][name]
    assert refused(body) in (Reason.REQUIREMENTS, Reason.SCHEME)


@pytest.mark.parametrize("version", [0, 3, True, "2", None])
def test_another_version_is_refused(version: Any) -> None:
    body = official(Payer().payment(offer()), requirements(offer()))
    assert refused(body | {"x402Version": version}) is Reason.VERSION


def test_a_payment_of_the_other_version_is_refused() -> None:
    body = official(Payer().payment(offer()), requirements(offer()))
    assert refused(body | {"x402Version": 1}) is Reason.VERSION
    assert refused(body | {"more": 1}) is Reason.PAYLOAD
    assert refused({name: body[name] for name in ("x402Version", "paymentPayload")}) is Reason.PAYLOAD


def test_what_is_supported_is_read_by_the_official_model() -> None:
    said = SupportedResponse.model_validate(supported(kinds(), {SEPOLIA: FACILITATOR, BASE: FACILITATOR}))
    listed = [(kind.x402_version, kind.scheme, kind.network, kind.extra) for kind in said.kinds]
    address = show_address(FACILITATOR)
    assert listed == [
        (2, "exact", BASE, None), (1, "exact", "base", None), (2, "upto", BASE, {"facilitatorAddress": address}),
        (2, "exact", SEPOLIA, None), (1, "exact", "base-sepolia", None),
        (2, "upto", SEPOLIA, {"facilitatorAddress": address}),
    ]  # fmt: skip
    assert (said.signers, said.extensions) == ({"eip155:*": [address]}, [])


def test_our_answers_are_read_by_the_official_models() -> None:
    payer = bytes.fromhex(OTHER[2:])
    yes = VerifyResponse.model_validate(verify_answer(payer, None))
    assert (yes.is_valid, yes.payer, yes.invalid_reason) == (True, OTHER, None)
    no = VerifyResponse.model_validate(verify_answer(None, PaymentRefused(Reason.EXPIRED, "too late")))
    assert (no.is_valid, no.invalid_message, no.payer) == (False, "too late", None)
    assert no.invalid_reason == "invalid_exact_evm_payload_authorization_valid_before"
    ours = offer()
    for version, network in ((1, "base-sepolia"), (2, SEPOLIA)):
        payment = Payer().payment(ours)
        body = official(as_v1(payment) if version == 1 else payment, requirements(ours, version))
        answer = settle_answer(read(body), Settlement(ours.kind.network, payer, b"\xab" * 32))
        settled = SettleResponse.model_validate(answer)
        assert (settled.success, settled.transaction, settled.network, settled.payer) == (
            True, "0x" + "ab" * 32, network, OTHER,
        )  # fmt: skip
