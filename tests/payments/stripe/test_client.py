"""The door to Stripe, by the official library against the stand-in: what is asked once is done once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import time

import pytest
import pytest_asyncio

from gateway.errors import RailNotAvailable, Unavailable
from gateway.payments.stripe.client import StripeDoor, StripeRefused
from gateway.payments.stripe.facts import Fee
from gateway.settings import SettingsError, StripeSettings, load
from tests.support.stripe_server import KEY, SIGNING, StripeServer, card_fee


@pytest_asyncio.fixture
async def door(stripe: StripeServer) -> AsyncIterator[StripeDoor]:
    opened = StripeDoor(StripeSettings(secret_key=KEY, webhook_secrets=(SIGNING,), api_base=stripe.url))
    yield opened
    await opened.aclose()


def page(cents: int = 2_000, until: int | None = None) -> dict[str, object]:
    price = {"currency": "usd", "unit_amount": cents, "product_data": {"name": "Balance"}}
    return {
        "mode": "payment",
        "line_items": [{"quantity": 1, "price_data": price}],
        "success_url": "http://tollway.test/",
        "metadata": {"deposit": "d1"},
        "payment_intent_data": {"metadata": {"deposit": "d1"}},
        "expires_at": until or int(time()) + 3_600,
    }


async def test_a_page_is_opened_once_however_often_it_is_asked_for(door: StripeDoor, stripe: StripeServer) -> None:
    until, before = int(time()) + 3_600, len(stripe.made("checkout.session"))
    stripe.lose = 1  # the first answer is lost; the library asks again with the same key
    first = await door.create_session(page(until=until), "page-1")
    second = await door.create_session(page(until=until), "page-1")
    assert first == second
    assert (first.cents, first.currency, first.status, first.metadata) == (2_000, "usd", "open", {"deposit": "d1"})
    assert len(stripe.made("checkout.session")) == before + 1


async def test_the_same_key_for_something_else_is_refused(door: StripeDoor) -> None:
    await door.create_session(page(), "page-2")
    with pytest.raises(StripeRefused):
        await door.create_session(page(9_900), "page-2")


async def test_all_of_a_payment_is_read(door: StripeDoor, stripe: StripeServer) -> None:
    session = await door.create_session(page(10_000), "page-3")
    intent = stripe.pay(session.id)["id"]
    refund = await door.refund(intent, 2_500, "refund-1")
    assert await door.refund(intent, 2_500, "refund-1") == refund
    with pytest.raises(StripeRefused) as refused:
        await door.refund(intent, 9_000, "refund-2")
    assert "greater than unrefunded amount" in refused.value.reason
    dispute = stripe.dispute(intent, 3_000)
    stripe.close(dispute["id"], "lost")
    _, found = await door.payment(intent)
    assert found is not None
    assert (found.cents, found.currency, found.livemode) == (10_000, "usd", False)
    assert [fee.cents for fee in found.fees] == [card_fee(10_000)]
    assert [(one.id, one.cents, one.status) for one in found.refunds] == [(refund, 2_500, "succeeded")]
    assert [(one.cents, one.status) for one in found.disputes] == [(3_000, "lost")]
    assert found.disputes[0].fees == (Fee(dispute["balance_transactions"][0]["id"], 1_500),)
    assert await door.balance_cents() == stripe.balance
    with pytest.raises(StripeRefused) as refused:
        await door.refund(intent, 1_000, "refund-3")
    assert refused.value.code == "charge_disputed"


async def test_an_unpaid_page_has_no_payment(door: StripeDoor, stripe: StripeServer) -> None:
    intent = await door.create_intent(700, "intent-1", metadata={"invoice": "i1"}, description="Invoice")
    assert (intent.status, intent.cents, bool(intent.client_secret)) == ("requires_payment_method", 700, True)
    assert (await door.payment(intent.id))[1] is None
    stripe.confirm(intent.id)
    assert (await door.find_intent(intent.id)).received_cents == 700
    with pytest.raises(StripeRefused):
        await door.cancel_intent(intent.id, "cancel-1")


async def test_cards_are_stored_with_a_customer_and_taken_away(door: StripeDoor, stripe: StripeServer) -> None:
    customer = await door.create_customer("customer-1", name="Acme", metadata={"organization": "o1"})
    assert await door.create_customer("customer-1", name="Acme", metadata={"organization": "o1"}) == customer
    card = await door.attach_method(stripe.method(), customer, "attach-1")
    assert (card.kind, card.brand, card.last4, card.exp_month, card.customer) == ("card", "visa", "4242", 12, customer)
    paid = await door.create_intent(900, "intent-2", metadata={}, description="Plan", customer=customer, method=card.id)
    assert (paid.status, paid.received_cents) == ("succeeded", 900)
    await door.detach_method(card.id, "detach-1")
    with pytest.raises(StripeRefused):
        await door.detach_method(card.id, "detach-2")
    with pytest.raises(StripeRefused) as declined:
        await door.attach_method(stripe.method(declines=True), customer, "attach-2")
    assert declined.value.code == "card_declined"


async def test_a_stripe_that_is_away_is_unavailable(stripe: StripeServer) -> None:
    away = StripeDoor(StripeSettings(secret_key=KEY, webhook_secrets=(SIGNING,), api_base="http://127.0.0.1:9"))
    with pytest.raises(Unavailable):
        await away.find_session("cs_test_1")
    await away.aclose()
    stranger = StripeDoor(StripeSettings(secret_key=f"{KEY}x", webhook_secrets=(SIGNING,), api_base=stripe.url))
    with pytest.raises(Unavailable):
        await stranger.find_session("cs_test_1")
    await stranger.aclose()
    with pytest.raises(RailNotAvailable):
        await StripeDoor(StripeSettings()).find_session("cs_test_1")


@pytest.mark.parametrize(
    ("key", "secrets"), [(KEY, ""), ("", SIGNING), (KEY.replace("sk_", "pk_"), SIGNING), (KEY, f"{SIGNING},we_{KEY}")]
)
def test_settings_that_would_take_no_money_are_refused_and_not_shown(key: str, secrets: str) -> None:
    with pytest.raises(SettingsError, match="TOLLWAY_STRIPE_") as refused:
        load({"TOLLWAY_STRIPE_SECRET_KEY": key, "TOLLWAY_STRIPE_WEBHOOK_SECRETS": secrets})
    assert KEY[3:] not in str(refused.value)
    assert SIGNING not in str(refused.value)


def test_settings_may_have_spaces_where_somebody_has_copied_them() -> None:
    found = load({"TOLLWAY_STRIPE_SECRET_KEY": f"{KEY} ", "TOLLWAY_STRIPE_WEBHOOK_SECRETS": f"{SIGNING}, {SIGNING}2,"})
    assert (found.stripe.secret_key, found.stripe.webhook_secrets) == (KEY, (SIGNING, f"{SIGNING}2"))
