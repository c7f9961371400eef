"""The door to Stripe: asks its API by the official library, and reads its answers into our own facts.

Every call that changes something there has a key, so that one that is made again, by us or by the library, changes it
once. What does not live here: what the answers mean for money (billing/), events (intake.py).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import stripe

from gateway.errors import RailNotAvailable, Unavailable
from gateway.payments.stripe.facts import (
    ORDERED_BY,
    CheckoutSession,
    Intent,
    MethodFacts,
    PaymentFacts,
    intent_of,
    method_of,
    payment_of,
    session_of,
)
from gateway.settings import StripeSettings

log = logging.getLogger(__name__)

CURRENCY = "usd"
RETRIES = 2  # of what the library may do by itself: a lost connection, a conflict, 5xx
LISTED = 100  # refunds and disputes of one payment
REMEMBERED = 1_000  # payments whose marks are known
NO_CARDS = (
    "Cards are not taken by this gateway. Nothing was started or charged. Its operator opens them with"
    " TOLLWAY_STRIPE_SECRET_KEY and TOLLWAY_STRIPE_WEBHOOK_SECRETS (docs/deposits.md)."
)
_ALL_OF_IT = ["latest_charge.balance_transaction", "latest_charge.failure_balance_transaction"]

stripe.enable_telemetry = False


class StripeRefused(Exception):
    """Stripe has refused what was asked, and will again: `code` is its own, `reason` its words for whoever pays."""

    def __init__(self, code: str | None, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


class NotUnderstood(Unavailable):
    """Stripe has answered with something that is not what was asked for. Another question may get a better answer."""


class StripeDoor:
    """One account at Stripe. `is_open` is false where none is configured; then every call raises RailNotAvailable."""

    def __init__(self, settings: StripeSettings) -> None:
        self._settings = settings
        self._client: stripe.StripeClient | None = None
        self._marks: dict[str, Mapping[str, str]] = {}

    def __repr__(self) -> str:
        return f"StripeDoor({self._settings.api_base})"

    @property
    def is_open(self) -> bool:
        """Return whether an account is configured."""
        return bool(self._settings.secret_key)

    @property
    def livemode(self) -> bool:
        """Return whether the money is real: test keys make payments that are none."""
        return "_live_" in self._settings.secret_key

    def demand(self) -> None:
        """Raise RailNotAvailable where no account is configured."""
        if not self.is_open:
            raise RailNotAvailable(NO_CARDS)

    async def create_session(self, parameters: Mapping[str, Any], key: str) -> CheckoutSession:
        """Open a page to pay at. The same key again gives the same page; the parameters must be the same too."""
        async with self._asking() as client:
            made = await client.v1.checkout.sessions.create_async(_any(parameters), {"idempotency_key": key})
            return session_of(_plain(made))

    async def find_session(self, session_id: str) -> CheckoutSession:
        """Return a page as it stands."""
        async with self._asking() as client:
            found = await client.v1.checkout.sessions.retrieve_async(session_id)
            return session_of(_plain(found))

    async def expire_session(self, session_id: str) -> CheckoutSession:
        """Close a page, so that nobody pays there any more. Raises StripeRefused when it is not open."""
        async with self._asking() as client:
            ended = await client.v1.checkout.sessions.expire_async(session_id)
            return session_of(_plain(ended))

    async def create_intent(
        self,
        cents: int,
        key: str,
        *,
        metadata: Mapping[str, str],
        description: str,
        customer: str | None = None,
        method: str | None = None,
    ) -> Intent:
        """Begin a payment in US cents. With `method`, a stored one of `customer`, it is made at once, off session."""
        given: dict[str, Any] = {
            "amount": cents,
            "currency": CURRENCY,
            "metadata": dict(metadata),
            "description": description,
        }
        if customer is not None:
            given["customer"] = customer
        if method is None:
            given["automatic_payment_methods"] = {"enabled": True}
        else:
            given.update(payment_method=method, confirm=True, off_session=True)
        async with self._asking() as client:
            made = await client.v1.payment_intents.create_async(_any(given), {"idempotency_key": key})
            return intent_of(_plain(made))

    async def find_intent(self, intent_id: str) -> Intent:
        """Return a payment as it stands."""
        async with self._asking() as client:
            found = await client.v1.payment_intents.retrieve_async(intent_id)
            return intent_of(_plain(found))

    async def cancel_intent(self, intent_id: str, key: str) -> Intent:
        """End a payment that was not made. Raises StripeRefused when it was, or is being made."""
        async with self._asking() as client:
            ended = await client.v1.payment_intents.cancel_async(intent_id, options={"idempotency_key": key})
            return intent_of(_plain(ended))

    async def payment(self, intent_id: str) -> tuple[Intent, PaymentFacts | None]:
        """Return a payment, and once it was made its fees, refunds and disputes, all as they stand."""
        async with self._asking() as client:
            found = _plain(await client.v1.payment_intents.retrieve_async(intent_id, {"expand": _ALL_OF_IT}))
            intent = intent_of(found)
            if intent.status != "succeeded":
                return intent, None
            refunds = await client.v1.refunds.list_async(
                {"payment_intent": intent_id, "limit": LISTED, "expand": ["data.balance_transaction"]}
            )
            disputes = await client.v1.disputes.list_async({"payment_intent": intent_id, "limit": LISTED})
            return intent, payment_of(found, _plain(refunds)["data"], _plain(disputes)["data"])

    async def marks(self, intent_id: str) -> Mapping[str, str]:
        """Return what was written on a payment when it began, by which it is somebody's; nothing for one unknown.

        It stays as it was, so that of all events about a payment only the first one asks.
        """
        if intent_id not in self._marks:
            try:
                found = await self.find_intent(intent_id)
            except StripeRefused:
                return {}
            if len(self._marks) >= REMEMBERED:
                del self._marks[next(iter(self._marks))]
            self._marks[intent_id] = found.metadata
        return self._marks[intent_id]

    async def refund(self, intent_id: str, cents: int, key: str, *, order: UUID | None = None) -> str:
        """Give a part of a payment back to its card, and return the refund's id. Raises StripeRefused.

        The refund names the `order` that it carries out.
        """
        given: dict[str, Any] = {"payment_intent": intent_id, "amount": cents}
        if order is not None:
            given["metadata"] = {ORDERED_BY: str(order)}
        async with self._asking() as client:
            made = await client.v1.refunds.create_async(_any(given), {"idempotency_key": key})
            return made.id

    async def create_customer(self, key: str, *, name: str, metadata: Mapping[str, str]) -> str:
        """Return the id of a new customer, or of the one that the same key made before."""
        given = {"name": name, "metadata": dict(metadata)}
        async with self._asking() as client:
            made = await client.v1.customers.create_async(_any(given), {"idempotency_key": key})
            return made.id

    async def find_method(self, method_id: str) -> MethodFacts:
        """Return a payment method as it stands. Raises StripeRefused when there is none."""
        async with self._asking() as client:
            found = await client.v1.payment_methods.retrieve_async(method_id)
            return method_of(_plain(found))

    async def attach_method(self, method_id: str, customer: str, key: str) -> MethodFacts:
        """Give a payment method to a customer. Raises StripeRefused: unknown, declined, or somebody else's."""
        async with self._asking() as client:
            attached = await client.v1.payment_methods.attach_async(
                method_id, {"customer": customer}, {"idempotency_key": key}
            )
            return method_of(_plain(attached))

    async def detach_method(self, method_id: str, key: str) -> None:
        """Take a payment method from its customer, for good. Raises StripeRefused when it has none."""
        async with self._asking() as client:
            await client.v1.payment_methods.detach_async(method_id, options={"idempotency_key": key})

    async def balance_cents(self) -> int:
        """Return what the account has in US cents, both what can be paid out and what cannot yet."""
        async with self._asking() as client:
            balance = _plain(await client.v1.balance.retrieve_async())
            return sum(one["amount"] for part in ("available", "pending") for one in balance[part] if _is_usd(one))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._http.close_async()
            self._client = None

    @asynccontextmanager
    async def _asking(self) -> AsyncGenerator[stripe.StripeClient]:
        """Turn what the library raises into what its caller can act on."""
        self.demand()
        try:
            yield self._opened()
        except (stripe.CardError, stripe.InvalidRequestError, stripe.IdempotencyError) as error:
            raise StripeRefused(error.code, error.user_message or "it was refused") from error
        except (stripe.AuthenticationError, stripe.PermissionError) as error:
            log.error("Stripe does not take TOLLWAY_STRIPE_SECRET_KEY: %s", error.http_status)
            raise Unavailable("Stripe refuses this gateway; its operator is told.", retry_after=60) from error
        except stripe.StripeError as error:
            log.warning("Stripe does not answer: %s %s", type(error).__name__, error.http_status)
            raise Unavailable("Stripe cannot be reached; try again.", retry_after=5) from error
        except (AttributeError, KeyError, TypeError) as error:
            log.exception("Stripe's answer is not understood")
            raise NotUnderstood("Stripe's answer is not understood; try again.", retry_after=60) from error

    def _opened(self) -> stripe.StripeClient:
        # Made when first asked: where no card is used nothing is loaded, and it belongs to the loop that asks.
        if self._client is None:
            self._http = stripe.HTTPXClient(timeout=self._settings.timeout)
            self._client = stripe.StripeClient(
                self._settings.secret_key,
                base_addresses={"api": self._settings.api_base},
                http_client=self._http,
                max_network_retries=RETRIES,
            )
        return self._client


def _plain(made: stripe.StripeObject) -> dict[str, Any]:
    return made.to_dict()


def _any(parameters: Mapping[str, Any]) -> Any:
    """Return parameters past the library's types, of which there is one per call."""
    return dict(parameters)


def _is_usd(amount: Mapping[str, Any]) -> bool:
    return amount["currency"] == CURRENCY
