"""Which payments are taken, and every way to pay less, elsewhere, later or never that is refused before the chain is
asked. Signatures are eth-account's: what an attacker's wallet would really produce."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account

from gateway.payments.evm.terms import Terms
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.verify import TimeBounds
from tests.payments.x402.shop import BASE, NOW, PAYEE, PRICE, SEPOLIA, Payer, as_v1, check, offer

OTHER = "0x857b06519E91e3A54538791bDbb0E22373e36b66"
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def refused(document: dict[str, Any], *offers: Any, **options: Any) -> Reason:
    """Verify, and return the reason of the refusal."""
    with pytest.raises(PaymentRefused) as refusal:
        check(document, *offers, **options).decided(False)
    return refusal.value.reason


def test_an_honest_payment_is_taken_with_every_fact_from_our_own_offer() -> None:
    payer, ours = Payer(), offer()
    payment = payer.payment(ours)
    verified = check(payment, offer(BASE), ours)
    assert verified.question is None
    assert (verified.network, verified.offer) == (SEPOLIA, ours)
    assert verified.terms == Terms(
        asset=ours.kind.asset,
        payer=payer.address,
        payee=bytes.fromhex(PAYEE[2:]),
        nonce=bytes.fromhex(payment["payload"]["authorization"]["nonce"][2:]),
        method="eip3009",
        authorized=PRICE,
        valid_after=0,
        valid_before=NOW + 120,
        signature=bytes.fromhex(payment["payload"]["signature"][2:]),
    )


def test_version_1_pays_the_same_offer() -> None:
    payer, ours = Payer(), offer()
    payment = payer.payment(ours)
    assert check(as_v1(payment), ours) == check(payment, ours)


SIGNED_CHANGES = [
    ({"value": str(PRICE - 1)}, Reason.VALUE),
    ({"value": str(PRICE + 1)}, Reason.VALUE),
    ({"value": "0"}, Reason.VALUE),
    ({"value": str(2**256 - 1)}, Reason.VALUE),
    ({"to": OTHER}, Reason.PAYEE),
    ({"validAfter": str(NOW + 1)}, Reason.NOT_YET_VALID),
    ({"validBefore": str(NOW - 1)}, Reason.EXPIRED),
    ({"validBefore": str(NOW + 5)}, Reason.EXPIRED),
    ({"validBefore": str(NOW + 120 + 301)}, Reason.EXPIRED),
    ({"validBefore": str(2**256 - 1)}, Reason.EXPIRED),
]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("changes", "reason"), SIGNED_CHANGES)
def test_other_terms_are_refused_though_they_are_signed(changes: dict[str, str], reason: Reason, version: int) -> None:
    payment = Payer().payment(offer(), **changes)
    assert refused(payment if version == 2 else as_v1(payment), offer()) is reason


@pytest.mark.parametrize("seconds", [6, 120, 120 + 300])
def test_the_bounds_of_an_authorizations_life_are_inclusive(seconds: int) -> None:
    assert check(Payer().payment(offer(), validBefore=str(NOW + seconds)), offer()).question is None


def test_a_later_settlement_needs_a_longer_life() -> None:
    payment = Payer().payment(offer())
    assert check(payment, offer(), bounds=TimeBounds(margin=120)).terms.valid_before == NOW + 120
    assert refused(payment, offer(), bounds=TimeBounds(margin=121)) is Reason.EXPIRED
    assert refused(payment, offer(), now=NOW + 115) is Reason.EXPIRED


def test_a_payment_of_yesterday_is_refused() -> None:
    assert refused(Payer().payment(offer()), offer(), now=NOW + 86_400) is Reason.EXPIRED


UNSIGNED_CHANGES = [
    ("from", OTHER),
    ("nonce", "0x" + "11" * 32),
    ("validAfter", "1"),
    ("validBefore", str(NOW + 60)),
]


@pytest.mark.parametrize(("name", "value"), UNSIGNED_CHANGES)
def test_a_field_changed_after_signing_makes_the_signature_worthless(name: str, value: str) -> None:
    payment = Payer().payment(offer())
    payment["payload"]["authorization"][name] = value
    assert refused(payment, offer()) is Reason.SIGNATURE


@pytest.mark.parametrize(
    "domain",
    [{"name": "USD Coin"}, {"version": "1"}, {"chainId": 8453}, {"chainId": 1}, {"verifyingContract": OTHER}],
)
def test_a_signature_for_another_domain_or_chain_is_worthless(domain: dict[str, Any]) -> None:
    assert refused(Payer().payment(offer(), domain), offer()) is Reason.SIGNATURE


def test_a_signature_of_another_key_is_worthless() -> None:
    payer, thief = Payer(), Payer()
    payment = thief.payment(offer(), **{"from": payer.account.address})
    assert refused(payment, offer()) is Reason.SIGNATURE


def test_a_payment_for_another_chain_is_refused_even_where_both_are_offered() -> None:
    """The payer signs for the test network and says that it is the real one."""
    payment = Payer().payment(offer(SEPOLIA))
    payment["accepted"]["network"] = BASE
    payment["accepted"]["asset"] = offer(BASE).kind.asset_text
    assert refused(payment, offer(SEPOLIA), offer(BASE)) is Reason.SIGNATURE
    assert refused(as_v1(payment, "base"), offer(SEPOLIA), offer(BASE)) is Reason.SIGNATURE


ACCEPTED_CHANGES = [
    ({"amount": "1"}, Reason.VALUE),
    ({"payTo": OTHER}, Reason.PAYEE),
    ({"asset": OTHER}, Reason.REQUIREMENTS),
    ({"network": "eip155:1"}, Reason.NETWORK),
    ({"network": "base-sepolia"}, Reason.NETWORK),
    ({"scheme": "upto"}, Reason.SCHEME),
    ({"scheme": "deferred"}, Reason.SCHEME),
]


@pytest.mark.parametrize(("changes", "reason"), ACCEPTED_CHANGES)
def test_what_is_not_our_offer_is_refused(changes: dict[str, str], reason: Reason) -> None:
    payment = Payer().payment(offer())
    payment["accepted"] |= changes
    assert refused(payment, offer()) is reason


@pytest.mark.parametrize(("network", "scheme"), [("eip155:84532", "exact"), ("polygon", "exact"), ("", "exact")])
def test_a_version_1_payment_names_its_network_as_version_1_does(network: str, scheme: str) -> None:
    assert refused(as_v1(Payer().payment(offer()), network) | {"scheme": scheme}, offer()) is Reason.NETWORK


def test_a_payment_made_for_another_resource_is_refused() -> None:
    payment = Payer().payment(offer())
    payment["resource"]["url"] = "https://gateway.example/publishers/demo/v1/cheap"
    assert refused(payment, offer()) is Reason.REQUIREMENTS
    del payment["resource"]
    assert check(payment, offer()).question is None


def test_a_cheaper_resources_payment_does_not_pay_a_dearer_one() -> None:
    payment = Payer().payment(offer(amount=PRICE))
    assert refused(payment, offer(amount=PRICE * 2)) is Reason.VALUE
    payment["accepted"]["amount"] = str(PRICE * 2)
    assert refused(payment, offer(amount=PRICE * 2)) is Reason.VALUE


def test_extra_and_timeouts_come_from_us() -> None:
    payment = Payer().payment(offer(), {"name": "Fools' Gold"})
    payment["accepted"] |= {"extra": {"name": "Fools' Gold", "version": "2"}, "maxTimeoutSeconds": 10**9}
    assert refused(payment, offer()) is Reason.SIGNATURE
    late = Payer().payment(offer(), validBefore=str(NOW + 10**9))
    late["accepted"]["maxTimeoutSeconds"] = 10**9
    assert refused(late, offer()) is Reason.EXPIRED


def test_a_wallet_cannot_pay_itself() -> None:
    payer = Payer()
    ours = offer(payee=payer.account.address)
    assert refused(payer.payment(ours), ours) is Reason.PAYEE


def test_the_other_form_of_a_signature_is_refused() -> None:
    """Anybody can compute it from the first one (s becomes n - s): taking both would be taking one payment twice."""
    payment = Payer().payment(offer())
    r, s, v = (payment["payload"]["signature"][i:j] for i, j in ((2, 66), (66, 130), (130, 132)))
    high = f"{ORDER - int(s, 16):064x}"
    payment["payload"]["signature"] = f"0x{r}{high}{'1b' if v == '1c' else '1c'}"
    assert refused(payment, offer()) is Reason.SIGNATURE


@pytest.mark.parametrize(("written", "taken"), [(27, True), (28, True), (0, True), (1, True), (2, False), (29, False)])
def test_recovery_ids_are_taken_in_both_spellings_and_stored_in_one(written: int, taken: bool) -> None:
    ours = offer()
    while True:
        payment = Payer().payment(ours)
        signature = bytes.fromhex(payment["payload"]["signature"][2:])
        if not taken or signature[64] == (written if written > 1 else written + 27):
            break
    payment["payload"]["signature"] = "0x" + (signature[:64] + bytes((written,))).hex()
    if taken:
        assert check(payment, ours).terms.signature == signature
    else:
        assert refused(payment, ours) is Reason.SIGNATURE


@pytest.mark.parametrize("spelling", [str.lower, lambda text: "0x" + text[2:].upper()])
def test_every_spelling_of_addresses_and_nonces_is_the_same_payment(spelling: Any) -> None:
    payment = Payer().payment(offer())
    first = check(payment, offer())
    authorization = payment["payload"]["authorization"]
    for name in ("from", "to", "nonce"):
        authorization[name] = spelling(authorization[name])
    for name in ("asset", "payTo"):
        payment["accepted"][name] = spelling(payment["accepted"][name])
    payment["payload"]["signature"] = spelling(payment["payload"]["signature"])
    assert check(payment, offer()) == first


def test_the_same_authorization_always_has_the_same_place_in_the_books() -> None:
    """Replays are the caller's to refuse: verification gives it one key whatever the price or the wrapping says."""
    payer, ours = Payer(), offer()
    payment = payer.payment(ours)
    first = check(payment, ours)
    again = check(as_v1(payment), ours, now=NOW + 60)
    other = check(payer.payment(ours), ours)
    assert (first.network, first.terms) == (again.network, again.terms)
    assert first.terms.nonce != other.terms.nonce


def test_version_1_finds_the_asset_whose_domain_was_signed() -> None:
    """Two assets with one price on one network: the header does not say which, the signature does."""
    usdc = offer()
    euro = replace(usdc, kind=replace(usdc.kind, symbol="EURC", separator=b"\1" * 32, asset=b"\2" * 20))
    dear = replace(euro, amount=PRICE * 2)
    payment = as_v1(Payer().payment(usdc))
    assert check(payment, dear, euro, usdc).offer == usdc
    assert check(payment, usdc, euro, dear).offer == usdc
    assert refused(payment, euro, dear) is Reason.SIGNATURE


def test_nothing_is_taken_where_nothing_is_offered() -> None:
    assert refused(Payer().payment(offer())) is Reason.NETWORK


def test_the_detail_tells_the_payer_what_to_do_and_nothing_about_the_signature() -> None:
    payment = Payer(Account.create()).payment(offer(), value="1")
    with pytest.raises(PaymentRefused) as refusal:
        check(payment, offer())
    assert refusal.value.detail == f"the amount must be exactly {PRICE} atomic units"
    assert payment["payload"]["signature"] not in str(refusal.value)
