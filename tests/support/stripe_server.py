"""Stripe, as its documentation says that it speaks: the part that we use, with a balance that can be asked for.

Bodies are forms (`a[b][0]=c`), answers JSON, errors `{"error": {"type", "code", "message", "param"}}`. A POST with an
Idempotency-Key that was used answers as it did then. What people do at Stripe's pages is a method here: `pay`,
`expire`, `refund`, `dispute`, `close`. Each leaves its events in `events`; `deliver` signs one and sends it, so that a
test decides in which order they arrive, and how often. `lose` answers are worked on and then not sent.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import hmac
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from tests.support.forms import tree
from tests.support.stripe_objects import each, shown
from tests.support.upstream import Recorded, RecordingUpstream

# Put together, so that nobody who looks for keys finds one.
KEY, SIGNING = "_".join(("sk", "test", "seeded51NotARealKeyOfAnybody")), "_".join(("whsec", "seededNotARealSecret99"))
Object = dict[str, Any]
# What a test card is, by the name that Stripe's test methods have.
CARDS = {"pm_card_visa": ("visa", "4242"), "pm_card_mastercard": ("mastercard", "4444")}
DECLINED = "pm_card_chargeDeclined"
DISPUTE_FEE = 1_500
FAILURE_FEE = 400


class Refusal(Exception):
    """An error as Stripe sends it."""

    def __init__(self, status: int, kind: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.document = {"error": {"type": kind, "message": message, **more}}


def missing(kind: str, name: str) -> Refusal:
    return Refusal(404, "invalid_request_error", f"No such {kind}: '{name}'", code="resource_missing", param="id")


def card_fee(cents: int) -> int:
    """Return what a payment by card costs: 2.9 % and 30 cents."""
    return (cents * 29 + 500) // 1000 + 30


@dataclass
class StripeServer(RecordingUpstream):
    """One account in test mode."""

    store: dict[str, Object] = field(default_factory=dict)
    events: list[Object] = field(default_factory=list)
    movements: list[Object] = field(default_factory=list)
    lose: int = 0
    down: bool = False
    late: bool = False  # fees of payments are known later, by `charged`
    _kept: dict[str, tuple[str, int, Object]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    # What tests ask.

    @property
    def balance(self) -> int:
        """Return what the account has, in cents."""
        return sum(one["net"] for one in self.movements)

    @property
    def held(self) -> int:
        """Return what was withdrawn for disputes that are not decided, in cents."""
        return sum(one["amount"] for one in self.made("dispute") if one["status"] == "needs_response")

    def made(self, kind: str) -> list[Object]:
        """Return every object of a kind (`checkout.session`, `refund` …), oldest first."""
        return [one for one in self.store.values() if one["object"] == kind]

    # What people do at Stripe's pages, and banks behind them.

    def pay(self, session_id: str, *, cents: int | None = None, waits: bool = False) -> Object:
        """Let somebody pay at a page; `waits`: by a method whose money comes later. Returns the intent."""
        session = self.store[session_id]
        assert session["status"] == "open"
        paid = session["amount_total"] if cents is None else cents
        session["amount_total"] = paid
        intent = self._intent(paid, session["currency"], session["_intent_metadata"], None)
        session.update(status="complete", payment_intent=intent["id"], payment_status="unpaid")
        if waits:
            intent["status"] = "processing"
        else:
            session["payment_status"] = "paid"
            self._charge(intent)
        self._event("checkout.session.completed", session)
        return intent

    def arrive(self, session_id: str, *, good: bool = True) -> None:
        """End a payment that has waited."""
        session = self.store[session_id]
        intent = self.store[session["payment_intent"]]
        if good:
            session["payment_status"] = "paid"
            self._charge(intent)
            self._event("checkout.session.async_payment_succeeded", session)
        else:
            intent["status"] = "requires_payment_method"
            self._event("payment_intent.payment_failed", intent)
            self._event("checkout.session.async_payment_failed", session)

    def confirm(self, intent_id: str) -> None:
        """Let a client pay an intent with its secret."""
        self._charge(self.store[intent_id])

    def expire(self, session_id: str) -> None:
        """Let a page's time be over."""
        session = self.store[session_id]
        if session["status"] != "open":
            raise Refusal(
                400, "invalid_request_error", "Only Checkout Sessions with a status in ['open'] can be expired."
            )
        session.update(status="expired", url=None)
        self._event("checkout.session.expired", session)

    def charged(self, intent_id: str) -> None:
        """Let a payment whose fee was late come to the balance."""
        charge = self._charge_of(intent_id)
        self._enter(charge)
        self._event("charge.updated", charge)

    def refund(self, intent_id: str, cents: int, metadata: Object | None = None) -> Object:
        """Give money back, from the dashboard or by the API."""
        charge = self._charge_of(intent_id)
        left = charge["amount_captured"] - charge["amount_refunded"]
        if not 0 < cents <= left:
            raise Refusal(
                400, "invalid_request_error",
                f"Refund amount (${cents / 100:.2f}) is greater than unrefunded amount on charge (${left / 100:.2f})",
                code="charge_already_refunded" if left == 0 else None, param="amount",
            )  # fmt: skip
        refund = self._new("re", "refund", amount=cents, currency="usd", status="succeeded", charge=charge["id"],
                           payment_intent=intent_id, metadata=metadata or {})  # fmt: skip
        refund["balance_transaction"] = self._moves("refund", -cents, 0, refund["id"])
        charge["amount_refunded"] += cents
        charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
        self._event("charge.refunded", charge)
        self._event("refund.created", refund)
        return refund

    def fail_refund(self, refund_id: str) -> None:
        """Let a bank send a refund back."""
        refund = self.store[refund_id]
        refund["status"] = "failed"
        self._moves("refund_failure", refund["amount"], 0, refund_id)
        self.store[refund["charge"]]["amount_refunded"] -= refund["amount"]
        self._event("refund.failed", refund)

    def fail_later(self, intent_id: str, *, intent_status: str | None = "requires_payment_method") -> None:
        """Let a bank return a payment that was made; `intent_status`: what becomes of the intent, if anything does."""
        intent, charge = self.store[intent_id], self._charge_of(intent_id)
        left = charge["amount_captured"] - charge["amount_refunded"]
        for dispute in self.made("dispute"):
            if dispute["payment_intent"] == intent_id and dispute["status"] in ("needs_response", "lost"):
                dispute["status"] = "lost"
                left -= dispute["amount"]
        moved = self._moves("payment_failure_refund", -left, FAILURE_FEE, charge["id"])
        charge.update(status="failed", paid=False, failure_balance_transaction=moved, failure_code="insufficient_funds")
        self._event("charge.failed", charge)
        if intent_status is not None:
            intent["status"] = intent_status
            self._event(
                "payment_intent.canceled" if intent_status == "canceled" else "payment_intent.payment_failed", intent
            )

    def dispute(self, intent_id: str, cents: int | None = None, *, inquiry: bool = False) -> Object:
        """Let a card holder's bank ask for its money back."""
        charge = self._charge_of(intent_id)
        amount = charge["amount_captured"] - charge["amount_refunded"] if cents is None else cents
        dispute = self._new(
            "dp", "dispute", amount=amount, currency=charge["currency"], charge=charge["id"], payment_intent=intent_id,
            status="warning_needs_response" if inquiry else "needs_response", balance_transactions=[],
            is_charge_refundable=inquiry, reason="fraudulent", metadata={},
        )  # fmt: skip
        charge["disputed"] = True
        self._event("charge.dispute.created", dispute)
        if not inquiry:
            self._withdraw(dispute)
        return dispute

    def escalate(self, dispute_id: str) -> None:
        """Let an inquiry become a dispute."""
        dispute = self.store[dispute_id]
        dispute["status"] = "needs_response"
        self._withdraw(dispute)
        self._event("charge.dispute.updated", dispute)

    def close(self, dispute_id: str, status: str) -> None:
        """End a dispute: won, lost, warning_closed or prevented. Any other status moves no money either."""
        dispute = self.store[dispute_id]
        dispute["status"] = status
        if status == "won":
            back = self._moves("adjustment", dispute["amount"], 0, dispute_id)
            dispute["balance_transactions"].append(self.store[back])
            self._event("charge.dispute.funds_reinstated", dispute)
        self._event("charge.dispute.closed", dispute)

    # Events.

    async def deliver(
        self, event: Object, url: str, *, secret: str = SIGNING, at: float | None = None, raw: bytes | None = None
    ) -> httpx.Response:
        """Send an event to a webhook as Stripe does, and return the answer."""
        body = orjson.dumps(event) if raw is None else raw
        async with httpx.AsyncClient(timeout=60) as client:
            return await client.post(
                f"{url}/webhooks/stripe",
                content=body,
                headers={"Stripe-Signature": signature(body, secret, at), "Content-Type": "application/json"},
            )

    def _event(self, kind: str, about: Object) -> None:
        now = int(time.time())
        event = {
            "id": f"evt_{next(self._numbers):06}", "object": "event", "type": kind, "created": now, "livemode": False,
            "api_version": "2026-01-01", "pending_webhooks": 1, "request": {"id": None, "idempotency_key": None},
            "data": {"object": copy.deepcopy(shown(about))},
        }  # fmt: skip
        self.events.append(event)

    # The API.

    async def _answer(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        replayed = False
        if self.down:
            status, document = 500, {"error": {"type": "api_error", "message": "An unknown error occurred"}}
        else:
            status, document, replayed = self._once(request)
        if self.lose and request.method == "POST":
            self.lose -= 1
            writer.transport.abort()
            return False
        body = orjson.dumps(document)
        head = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        head += [
            "Request-Id: req_1",
            "Stripe-Should-Retry: false",
            *(["Idempotent-Replayed: true"] if replayed else []),
        ]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        return True

    def _once(self, request: Recorded) -> tuple[int, Object, bool]:
        """Do what a request asks, or answer as when its key was used first."""
        key = (request.all("idempotency-key") or [""])[0] if request.method == "POST" else ""
        asked = f"{request.target}\n{request.body.decode()}"
        if key in self._kept:
            earlier, status, document = self._kept[key]
            if earlier != asked:
                refusal = Refusal(
                    400, "idempotency_error", "Keys for idempotent requests can only be used with the same parameters"
                )
                return refusal.status, refusal.document, False
            return status, document, True
        try:
            status, document = 200, copy.deepcopy(shown(self._do(request)))
        except Refusal as refusal:
            status, document = refusal.status, refusal.document
        if key and (status == 200 or status == 402):
            self._kept[key] = (asked, status, document)
        return status, document, False

    def _do(self, request: Recorded) -> Object:
        if request.all("authorization") != [f"Bearer {KEY}"]:
            raise Refusal(401, "invalid_request_error", "Invalid API Key provided")
        url = urlsplit(request.target)
        given = tree(request.body.decode() if request.method == "POST" else url.query)
        parts = url.path.strip("/").split("/")[1:]
        return self._expanded(self._routed(request.method, parts, given), given.get("expand"))

    def _routed(self, method: str, parts: list[str], given: Object) -> Object:
        match (method, *parts):
            case ("GET", "balance"):
                return {"object": "balance", "livemode": False, "pending": [{"amount": 0, "currency": "usd"}],
                        "available": [{"amount": self.balance, "currency": "usd"}]}  # fmt: skip
            case ("POST", "checkout", "sessions"):
                return self._open_session(given)
            case ("POST", "checkout", "sessions", name, "expire"):
                self._find("checkout.session", name)
                self.expire(name)
                return self.store[name]
            case ("GET", "checkout", "sessions", name):
                return self._find("checkout.session", name)
            case ("GET", "refunds" | "disputes" as plural):
                found = [one for one in self.made(plural[:-1]) if one["payment_intent"] == given["payment_intent"]]
                return {"object": "list", "url": f"/v1/{plural}", "has_more": False, "data": found[::-1]}
            case ("POST", "refunds"):
                self._demand_undisputed(given["payment_intent"])
                return self.refund(given["payment_intent"], int(given["amount"]), given.get("metadata"))
            case _:
                return self._of_people(method, parts, given)

    def _of_people(self, method: str, parts: list[str], given: Object) -> Object:
        match (method, *parts):
            case ("POST", "payment_intents"):
                return self._open_intent(given)
            case ("GET", "payment_intents", name):
                return self._find("payment_intent", name)
            case ("POST", "payment_intents", name, "cancel"):
                return self._cancel(name)
            case ("POST", "customers"):
                return self._new("cus", "customer", name=given.get("name"), metadata=given.get("metadata", {}))
            case ("GET", "payment_methods", name):
                return self._find("payment_method", name)
            case ("POST", "payment_methods", name, "attach"):
                return self._attach(name, given["customer"])
            case ("POST", "payment_methods", name, "detach"):
                return self._detach(name)
            case _:
                raise Refusal(
                    404, "invalid_request_error", f"Unrecognized request URL ({method}: /v1/{'/'.join(parts)})."
                )

    def _demand_undisputed(self, intent_id: str) -> None:
        for dispute in self.made("dispute"):
            if dispute["payment_intent"] == intent_id and dispute["status"] in ("needs_response", "lost"):
                message = f"Charge {dispute['charge']} has been charged back; cannot issue a refund."
                raise Refusal(400, "invalid_request_error", message, code="charge_disputed")

    def _open_session(self, given: Object) -> Object:
        items = [one["price_data"] | {"quantity": int(one["quantity"])} for one in given["line_items"]]
        total = sum(int(one["unit_amount"]) * one["quantity"] for one in items)
        if total < 50:
            raise Refusal(
                400, "invalid_request_error", "The Checkout Session's total amount must convert to at least 50 cents."
            )
        until = int(given.get("expires_at", time.time() + 86_400))
        if not time.time() + 1_700 < until < time.time() + 86_500:
            raise Refusal(
                400,
                "invalid_request_error",
                "The `expires_at` timestamp must be at least 30 minutes and less than 24 hours from now.",
                param="expires_at",
            )
        session = self._new(
            "cs_test", "checkout.session", amount_total=total, currency=items[0]["currency"], mode=given["mode"],
            status="open", payment_status="unpaid", payment_intent=None, metadata=given.get("metadata", {}),
            client_reference_id=given.get("client_reference_id"), success_url=given["success_url"], expires_at=until,
        )  # fmt: skip
        session["url"] = f"https://checkout.stripe.com/c/pay/{session['id']}"
        session["_intent_metadata"] = given.get("payment_intent_data", {}).get("metadata", {})
        return session

    def _open_intent(self, given: Object) -> Object:
        made = self._intent(int(given["amount"]), given["currency"], given.get("metadata", {}), given.get("customer"))
        if given.get("confirm") == "true":
            if given["payment_method"] == DECLINED or self.store.get(given["payment_method"], {}).get("_declines"):
                raise Refusal(
                    402, "card_error", "Your card was declined.", code="card_declined", decline_code="generic_decline"
                )
            self._charge(made)
        return made

    def _cancel(self, name: str) -> Object:
        intent = self._find("payment_intent", name)
        if intent["status"] in ("succeeded", "processing"):
            raise Refusal(
                400,
                "invalid_request_error",
                f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}.",
                code="payment_intent_unexpected_state",
            )
        intent["status"] = "canceled"
        self._event("payment_intent.canceled", intent)
        return intent

    def method(self, name: str = "pm_card_visa", *, number: str = "1", declines: bool = False) -> str:
        """Make a payment method, as a client does with Stripe's own script, and return its id."""
        brand, last4 = CARDS[name]
        made = self._new("pm", "payment_method", type="card", customer=None, metadata={},
                         card={"brand": brand, "last4": last4, "exp_month": 12, "exp_year": 2034, "fingerprint": f"{brand}-{number}", "country": "US"},
                         _declines=declines)  # fmt: skip
        return made["id"]

    def _attach(self, name: str, customer: str) -> Object:
        self._find("customer", customer)
        found = self._find("payment_method", name)
        if found["customer"] not in (None, customer):
            raise Refusal(
                400,
                "invalid_request_error",
                "The payment method you provided has already been attached to a customer.",
                code="payment_method_unexpected_state",
            )
        if found.get("_detached"):
            raise Refusal(
                400,
                "invalid_request_error",
                "This PaymentMethod was previously used without being attached to a Customer or was detached from a Customer, and may not be used again.",
            )
        if found["_declines"]:
            raise Refusal(
                402, "card_error", "Your card was declined.", code="card_declined", decline_code="generic_decline"
            )
        found["customer"] = customer
        return found

    def _detach(self, name: str) -> Object:
        found = self._find("payment_method", name)
        if found["customer"] is None:
            raise Refusal(
                400,
                "invalid_request_error",
                "The payment method you provided is not attached to a customer so detachment is impossible.",
            )
        found.update(customer=None, _detached=True)
        self._event("payment_method.detached", found)
        return found

    # Money.

    def _intent(self, cents: int, currency: str, metadata: Object, customer: str | None) -> Object:
        made = self._new(
            "pi", "payment_intent", amount=cents, amount_received=0, currency=currency, metadata=metadata,
            customer=customer, status="requires_payment_method", latest_charge=None,
        )  # fmt: skip
        made["client_secret"] = f"{made['id']}_secret_seeded"
        return made

    def _charge(self, intent: Object) -> None:
        charge = self._new(
            "ch", "charge", amount=intent["amount"], amount_captured=intent["amount"], amount_refunded=0,
            currency=intent["currency"], captured=True, paid=True, status="succeeded", refunded=False, disputed=False,
            payment_intent=intent["id"], metadata=intent["metadata"],
        )  # fmt: skip
        charge["receipt_url"] = f"https://pay.stripe.com/receipts/{charge['id']}"
        charge["balance_transaction"] = None
        if not self.late:
            self._enter(charge)
        intent.update(status="succeeded", amount_received=intent["amount"], latest_charge=charge["id"])
        self._event("charge.succeeded", charge)
        self._event("payment_intent.succeeded", intent)

    def _enter(self, charge: Object) -> None:
        charge["balance_transaction"] = self._moves(
            "charge", charge["amount"], card_fee(charge["amount"]), charge["id"]
        )

    def _withdraw(self, dispute: Object) -> None:
        taken = self._moves("adjustment", -dispute["amount"], DISPUTE_FEE, dispute["id"])
        dispute["balance_transactions"].append(self.store[taken])
        self._event("charge.dispute.funds_withdrawn", dispute)

    def _moves(self, kind: str, cents: int, fee: int, source: str) -> str:
        moved = self._new("txn", "balance_transaction", type=kind, amount=cents, fee=fee, net=cents - fee,
                          currency="usd", source=source)  # fmt: skip
        self.movements.append(moved)
        return moved["id"]

    def _charge_of(self, intent_id: str) -> Object:
        return self.store[self._find("payment_intent", intent_id)["latest_charge"]]

    # Objects.

    def _new(self, prefix: str, kind: str, **members: Any) -> Object:
        name = f"{prefix}_{next(self._numbers):06}"
        made = {"id": name, "object": kind, "created": int(time.time()), "livemode": False, **members}
        self.store[name] = made
        return made

    def _find(self, kind: str, name: str) -> Object:
        if name in CARDS and kind == "payment_method":
            name = self.method(name)
        found = self.store.get(name)
        if found is None or found["object"] != kind:
            raise missing(kind, name)
        return found

    def _expanded(self, found: Object, wanted: list[str] | None) -> Object:
        found = copy.deepcopy(found)
        for path in wanted or ():
            each(found, path.split("."), self._whole)
        return found

    def _whole(self, name: Any) -> Any:
        return copy.deepcopy(self.store[name]) if isinstance(name, str) else name


def signature(body: bytes, secret: str, at: float | None = None) -> str:
    """Return what Stripe-Signature says of a body."""
    moment = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), b"%d.%b" % (moment, body), hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest},v0={'0' * 64}"
