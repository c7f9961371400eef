"""What Stripe says of things, in our own words: what is read of its objects, and nothing else of them.

Amounts are cents, as Stripe sends them. What does not live here: asking for it (client.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

log = logging.getLogger(__name__)

FROZEN_BY = frozenset({"needs_response", "under_review", "appeal_needs_response", "appeal_under_review"})
"""States of a dispute in which its money is away and a bank still decides. An inquiry (`warning_…`) takes none yet."""
UNDONE = frozenset({"failed", "canceled"})
"""States of a refund whose money came back to us."""
ORDERED_BY = "tollway_refund_order"
"""The metadata of a refund that names the order of an operator of this gateway."""
_WITHOUT_MONEY = frozenset({"requires_payment_method", "canceled"})


@dataclass(frozen=True, slots=True)
class CheckoutSession:
    """A page at Stripe where one payment can be made, once."""

    id: str
    url: str | None
    status: str
    payment_status: str
    cents: int | None
    currency: str | None
    livemode: bool
    intent: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fee:
    """What one movement of our balance at Stripe has cost; below zero when a fee comes back. `id` is the movement's."""

    id: str
    cents: int


@dataclass(frozen=True, slots=True)
class Intent:
    """A payment that a client makes with its secret, or that is made with a stored card.

    `has_failed` says that no money is there or on its way, also when Stripe reported the payment as made before.
    """

    id: str
    client_secret: str | None
    status: str
    cents: int
    received_cents: int
    currency: str
    livemode: bool
    charge: str | None
    metadata: Mapping[str, str]
    has_failed: bool
    failure_fees: tuple[Fee, ...]


@dataclass(frozen=True, slots=True)
class RefundFacts:
    """A refund of a payment, as it stands now; `order` is what it says of who ordered it."""

    id: str
    cents: int
    status: str
    fees: tuple[Fee, ...]
    order: str | None


@dataclass(frozen=True, slots=True)
class DisputeFacts:
    """A dispute of a payment, as it stands now. `taken_cents` are away for it, by the movements of our balance."""

    id: str
    cents: int
    status: str
    taken_cents: int
    fees: tuple[Fee, ...]

    @property
    def is_open(self) -> bool:
        """Return whether its money is away until somebody has decided."""
        return self.status in FROZEN_BY

    @property
    def is_lost(self) -> bool:
        """Return whether its money is gone: the bank has decided, or a rule at Stripe has given it back at once."""
        return self.status == "lost" or (self.status == "prevented" and self.taken_cents > 0)

    @property
    def is_won(self) -> bool:
        """Return whether its money is ours. A status that is none of these leaves what is booked as it is."""
        return self.status in ("won", "warning_closed") or (self.status == "prevented" and self.taken_cents <= 0)


@dataclass(frozen=True, slots=True)
class PaymentFacts:
    """A payment that was made, with all that became of it since."""

    intent: str
    cents: int
    currency: str
    livemode: bool
    receipt_url: str | None
    fees: tuple[Fee, ...]
    refunds: tuple[RefundFacts, ...]
    disputes: tuple[DisputeFacts, ...]

    @property
    def all_fees(self) -> tuple[Fee, ...]:
        """Return what it has cost, with its refunds and disputes."""
        return (*self.fees, *(fee for one in (*self.refunds, *self.disputes) for fee in one.fees))


@dataclass(frozen=True, slots=True)
class MethodFacts:
    """A way to pay that a customer has stored. `fingerprint` is the same for the same card, whoever has it."""

    id: str
    kind: str
    customer: str | None
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None
    fingerprint: str | None


def session_of(it: Mapping[str, Any]) -> CheckoutSession:
    """Read a Checkout Session."""
    return CheckoutSession(
        id=it["id"],
        url=it.get("url"),
        status=it.get("status") or "open",
        payment_status=it["payment_status"],
        cents=it.get("amount_total"),
        currency=it.get("currency"),
        livemode=it["livemode"],
        intent=id_of(it.get("payment_intent")),
        metadata=it.get("metadata") or {},
    )


def intent_of(it: Mapping[str, Any]) -> Intent:
    """Read a PaymentIntent."""
    charge: object = it.get("latest_charge")
    made: Mapping[str, Any] = cast("Mapping[str, Any]", charge) if isinstance(charge, Mapping) else {}
    return Intent(
        id=it["id"],
        client_secret=it.get("client_secret"),
        status=it["status"],
        cents=it["amount"],
        received_cents=it.get("amount_received") or 0,
        currency=it["currency"],
        livemode=it["livemode"],
        charge=id_of(it.get("latest_charge")),
        metadata=it.get("metadata") or {},
        has_failed=it["status"] in _WITHOUT_MONEY or made.get("status") == "failed",
        failure_fees=fees_of([made.get("failure_balance_transaction")]),
    )


def payment_of(
    intent: Mapping[str, Any], refunds: Sequence[Mapping[str, Any]], disputes: Sequence[Mapping[str, Any]]
) -> PaymentFacts | None:
    """Read a payment whose charge has succeeded, from an intent with its charge; None when there is none."""
    charge = intent.get("latest_charge")
    if not isinstance(charge, Mapping):
        return None
    made = cast("Mapping[str, Any]", charge)
    if made["status"] != "succeeded" or not made.get("captured", True):
        return None
    return PaymentFacts(
        intent=intent["id"],
        cents=made["amount_captured"],
        currency=made["currency"],
        livemode=made["livemode"],
        receipt_url=made.get("receipt_url"),
        fees=fees_of([made.get("balance_transaction")]),
        refunds=tuple(_refund(one) for one in refunds),
        disputes=tuple(_dispute(one) for one in disputes if _is_in(made["currency"], one)),
    )


def method_of(it: Mapping[str, Any]) -> MethodFacts:
    """Read a PaymentMethod: a card, or anything else that has its last digits."""
    kind: str = it["type"]
    its: Mapping[str, Any] = it.get(kind) or {}
    return MethodFacts(
        id=it["id"],
        kind=kind,
        customer=id_of(it.get("customer")),
        brand=its.get("brand"),
        last4=its.get("last4"),
        exp_month=its.get("exp_month"),
        exp_year=its.get("exp_year"),
        fingerprint=its.get("fingerprint"),
    )


def fees_of(movements: Sequence[object]) -> tuple[Fee, ...]:
    """Read what movements of the balance have cost; those that are not expanded, or cost nothing, have no fee."""
    known = (cast("Mapping[str, Any]", one) for one in movements if isinstance(one, Mapping))
    return tuple(Fee(one["id"], one["fee"]) for one in known if one.get("fee") and one["currency"] == "usd")


def id_of(reference: object) -> str | None:
    """Return the id of what is named by it, or is there whole."""
    if isinstance(reference, Mapping):
        return cast("Mapping[str, Any]", reference)["id"]
    return reference if isinstance(reference, str) else None


def _is_in(currency: str, dispute: Mapping[str, Any]) -> bool:
    """Return whether a dispute asks for the payment's currency: cents of another one are not cents of ours."""
    if dispute["currency"] == currency:
        return True
    log.error("dispute %s is in %s and not booked: book it by hand", dispute["id"], dispute["currency"])
    return False


def _refund(it: Mapping[str, Any]) -> RefundFacts:
    marks: Mapping[str, str] = it.get("metadata") or {}
    fees = fees_of([it.get("balance_transaction")])
    return RefundFacts(it["id"], it["amount"], it.get("status") or "pending", fees, marks.get(ORDERED_BY))


def _dispute(it: Mapping[str, Any]) -> DisputeFacts:
    moved: Sequence[Mapping[str, Any]] = it.get("balance_transactions") or []
    taken = -sum(one["amount"] for one in moved)
    return DisputeFacts(it["id"], it["amount"], it["status"], taken, fees_of(moved))
