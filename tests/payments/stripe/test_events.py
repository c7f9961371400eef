"""What comes to POST /webhooks/stripe: only what Stripe has signed, lately, and of bytes that nobody touched."""

from __future__ import annotations

import time
from typing import Any

import httpx
import orjson
import pytest

from tests.payments.stripe.conftest import OLD_SIGNING
from tests.support.gateway import RunningGateway
from tests.support.stripe_server import SIGNING, StripeServer, signature

EVENT: dict[str, Any] = {
    "id": "evt_x", "object": "event", "type": "product.created", "created": 1_700_000_000, "livemode": False,
    "data": {"object": {"id": "prod_1", "object": "product"}},
}  # fmt: skip


async def send(gateway: RunningGateway, raw: bytes, header: str | bytes | None) -> httpx.Response:
    fields = [] if header is None else [(b"Stripe-Signature", header if isinstance(header, bytes) else header.encode())]
    return await gateway.client.post("/webhooks/stripe", content=raw, headers=fields)


@pytest.mark.parametrize("secret", [SIGNING, OLD_SIGNING])
async def test_an_event_that_nobody_needs_is_taken_from_either_secret(
    gateway: RunningGateway, stripe: StripeServer, secret: str
) -> None:
    assert (await stripe.deliver(EVENT, gateway.url, secret=secret)).status_code == 200


@pytest.mark.parametrize(
    "forge",
    [
        lambda raw: None,
        lambda raw: "",
        lambda raw: "t=1,v1=00",
        lambda raw: f"t={int(time.time())},v0=" + signature(raw, SIGNING)[-64:],
        lambda raw: signature(raw, "whsec_another"),
        lambda raw: signature(raw + b" ", SIGNING),
        lambda raw: signature(raw, SIGNING, time.time() - 3_600),
        lambda raw: signature(raw, SIGNING, time.time() + 3_600),
        lambda raw: f"t={int(time.time())},v1=\u00e9".encode("latin-1"),
        lambda raw: f"{signature(raw, SIGNING)},t=\u00b2".encode("latin-1"),
    ],
    ids=[
        *("none", "empty", "made up", "older scheme", "another secret", "another body", "old", "from the future"),
        *("not ASCII", "another moment that is none"),
    ],
)
async def test_what_stripe_has_not_signed_is_refused(gateway: RunningGateway, forge: Any) -> None:
    raw = orjson.dumps(EVENT)
    answer = await send(gateway, raw, forge(raw))
    assert answer.status_code == 400
    assert "Stripe-Signature" in answer.json()["detail"]


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"\xff", b'{"id": 1}', orjson.dumps({**EVENT, "data": 7}), orjson.dumps({**EVENT, "id": ""}),
            orjson.dumps({**EVENT, "created": 1e300})]
)  # fmt: skip
async def test_what_is_signed_and_no_event_is_refused(gateway: RunningGateway, raw: bytes) -> None:
    assert (await send(gateway, raw, signature(raw, SIGNING))).status_code == 400


async def test_an_event_of_the_other_mode_changes_nothing(gateway: RunningGateway, stripe: StripeServer) -> None:
    event = {**EVENT, "type": "checkout.session.completed", "livemode": True}
    assert (await stripe.deliver(event, gateway.url)).status_code == 200


async def test_a_payment_of_others_at_the_same_account_is_looked_up_once(
    gateway: RunningGateway, stripe: StripeServer
) -> None:
    """It is no deposit and no invoice, whatever is told of it."""
    intent = stripe._intent(1_000, "usd", {"shop": "another"}, None)
    stripe.confirm(intent["id"])
    stripe.refund(intent["id"], 400)
    stripe.close(stripe.dispute(intent["id"])["id"], "won")
    events, stripe.events[:] = list(stripe.events), []
    before = len(stripe.requests)
    for event in events:
        assert (await stripe.deliver(event, gateway.url)).status_code == 200
    asked = [request.target for request in stripe.requests[before:] if intent["id"] in request.target]
    assert asked == [f"/v1/payment_intents/{intent['id']}"]
