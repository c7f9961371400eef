"""Payments by Permit2, `exact` and `upto`: what may be signed, and what is refused before the chain is asked."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.payments.evm.encoding import show_address
from gateway.payments.x402.offer import Offer
from gateway.payments.x402.reasons import PaymentRefused, Reason
from tests.payments.x402.shop import BASE, FACILITATOR, NOW, PRICE, Payer, as_v1, check, offer, permit2_offer

OTHER = "0x857b06519E91e3A54538791bDbb0E22373e36b66"
EXACT, UPTO = permit2_offer(), offer(scheme="upto")


def refused(document: dict[str, Any], *offers: Offer) -> Reason:
    with pytest.raises(PaymentRefused) as refusal:
        check(document, *offers).decided(False)
    return refusal.value.reason


@pytest.mark.parametrize("ours", [EXACT, UPTO], ids=["exact", "upto"])
def test_an_honest_permit_is_taken(ours: Offer) -> None:
    payer = Payer()
    payment = payer.permit(ours)
    verified = check(payment, ours)
    assert verified.question is None
    assert verified.terms.method == ("permit2_upto" if ours is UPTO else "permit2_exact")
    assert (verified.terms.authorized, verified.offer.amount, verified.terms.valid_before) == (PRICE, PRICE, NOW + 120)
    assert (verified.terms.payer, verified.terms.asset) == (payer.address, ours.kind.asset)
    assert show_address(verified.offer.kind.verifier) == "0x000000000022D473030F116dDEE9F6B43aC78BA3"
    assert int.from_bytes(verified.terms.nonce) == int(payment["payload"]["permit2Authorization"]["nonce"])


CHANGES: list[tuple[dict[str, Any], Reason]] = [
    ({"amount": PRICE - 1}, Reason.PERMIT2_AMOUNT),
    ({"amount": PRICE + 1}, Reason.PERMIT2_AMOUNT),
    ({"to": OTHER}, Reason.PERMIT2_PAYEE),
    ({"token": OTHER}, Reason.PERMIT2_TOKEN),
    ({"spender": OTHER}, Reason.PERMIT2_SPENDER),
    ({"spender": show_address(FACILITATOR)}, Reason.PERMIT2_SPENDER),
    ({"validAfter": NOW + 1}, Reason.PERMIT2_NOT_YET_VALID),
    ({"deadline": NOW}, Reason.PERMIT2_EXPIRED),
    ({"deadline": NOW + 121 + 300}, Reason.PERMIT2_EXPIRED),
    ({"domain": {"chainId": 8453}}, Reason.PERMIT2_SIGNATURE),
    ({"domain": {"name": "Permit1"}}, Reason.PERMIT2_SIGNATURE),
    ({"domain": {"verifyingContract": OTHER}}, Reason.PERMIT2_SIGNATURE),
]


@pytest.mark.parametrize("ours", [EXACT, UPTO], ids=["exact", "upto"])
@pytest.mark.parametrize(("changes", "reason"), CHANGES)
def test_other_terms_are_refused_though_they_are_signed(ours: Offer, changes: dict[str, Any], reason: Reason) -> None:
    assert refused(Payer().permit(ours, **changes), ours) is reason


def test_the_proxy_of_the_other_scheme_is_no_spender() -> None:
    assert refused(Payer().permit(EXACT, spender=show_address(UPTO.kind.spender)), EXACT) is Reason.PERMIT2_SPENDER
    assert refused(Payer().permit(UPTO, spender=show_address(EXACT.kind.spender)), UPTO) is Reason.PERMIT2_SPENDER


def test_upto_for_another_facilitator_is_refused() -> None:
    """The proxy would revert for us, and pay nobody."""
    assert refused(Payer().permit(UPTO, facilitator=OTHER), UPTO) is Reason.UPTO_FACILITATOR


@pytest.mark.parametrize(("signed", "claimed"), [(EXACT, UPTO), (UPTO, EXACT)], ids=["exact as upto", "upto as exact"])
def test_one_scheme_does_not_pass_for_the_other(signed: Offer, claimed: Offer) -> None:
    payment = Payer().permit(signed)
    payment["accepted"]["scheme"] = claimed.kind.scheme
    assert refused(payment, EXACT, UPTO) is Reason.REQUIREMENTS


def test_a_witness_changed_after_signing_makes_the_signature_worthless() -> None:
    payment = Payer().permit(UPTO, facilitator=OTHER)
    payment["payload"]["permit2Authorization"]["witness"]["facilitator"] = show_address(FACILITATOR)
    assert refused(payment, UPTO) is Reason.PERMIT2_SIGNATURE


def test_a_permit_for_an_asset_that_is_offered_by_eip_3009_only_is_refused() -> None:
    assert refused(Payer().permit(EXACT), offer()) is Reason.REQUIREMENTS
    assert refused(Payer().payment(offer()), EXACT) is Reason.REQUIREMENTS


def test_a_permit_for_the_test_network_does_not_pay_on_the_real_one() -> None:
    real = offer(BASE, scheme="upto")
    payment = Payer().permit(UPTO, token=real.kind.asset_text)
    payment["accepted"] |= {"network": BASE, "asset": real.kind.asset_text}
    assert refused(payment, UPTO, real) is Reason.PERMIT2_SIGNATURE


def test_version_1_knows_no_permits() -> None:
    """Its header names no asset; only a token's own domain says which one was meant."""
    with pytest.raises(PaymentRefused, match="EIP-3009 only") as refusal:
        check(as_v1(Payer().permit(EXACT)), EXACT)
    assert refusal.value.reason is Reason.PAYLOAD


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("nonce",), "0x" + "11" * 32),
        (("nonce",), "007"),
        (("nonce",), str(2**256)),
        (("deadline",), "-1"),
        (("permitted", "amount"), "1e4"),
        (("permitted", "extra"), "1"),
        (("witness", "extra"), "1"),
        (("witness", "to"), "0x"),
        (("witness",), None),
        (("permitted",), []),
        (("extra",), "1"),
    ],
)
def test_a_permit_that_is_not_canonical_is_refused_by_field(path: tuple[str, ...], value: Any) -> None:
    payment = Payer().permit(EXACT)
    place = payment["payload"]["permit2Authorization"]
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(PaymentRefused, match=path[-1]) as refusal:
        check(payment, EXACT)
    assert refusal.value.reason is Reason.PAYLOAD
