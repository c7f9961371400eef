"""Events that Stripe sends: proven by their signature, taken once, in the transaction of what follows from them.

An event is a hint that something has happened, and never believed for how much: whoever handles it asks Stripe first,
outside of a transaction, and returns the work that is then done together with the note that the event was taken. So the
same event twice, at once, or after a later one changes nothing twice, and one whose work failed is sent again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, cast

import orjson
import stripe

from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import InvalidRequest, RailNotAvailable, Unavailable
from gateway.payments.stripe.client import NO_CARDS, NotUnderstood, StripeRefused
from gateway.settings import StripeSettings

Id = TypeVar("Id")
log = logging.getLogger(__name__)

TRIES = 5
OF_MADE_PAYMENTS = (
    *("charge.refunded", "charge.refund.updated", "refund.created", "refund.updated", "refund.failed"),
    *("charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed"),
    *("charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated"),
    "charge.updated",  # a payment's fee is known some time after the payment
)
"""Types of events that tell of a payment after it was made."""
Taken = Literal["done", "repeated", "ignored"]


class Outdated(Exception):
    """What Stripe was asked has changed meanwhile, by another event: ask again."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `object` is what it is about, as it was then."""

    id: str
    type: str
    created_at: datetime
    livemode: bool
    object: Mapping[str, Any]

    @property
    def object_id(self) -> str:
        """Return the id of what the event is about."""
        return str(self.object.get("id", ""))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Return what we wrote on the object, if we did."""
        found = self.object.get("metadata")
        return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


Work = Callable[[Connection], Awaitable[None]]
"""What follows from an event, in the transaction that takes it. May raise Outdated."""
Handler = Callable[[Event], Awaitable[Work | None]]
"""Asks Stripe what is true now and returns what to do, or None when the event is about nothing of its own."""

IS_TAKEN = Statement("SELECT EXISTS (SELECT FROM card.event WHERE id = $1)", bool, scalar=True)
# Whoever takes the same event at the same time waits here, and then finds it taken or takes it.
TAKE = Command(
    "INSERT INTO card.event (id, type, object_id, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
)
# Stripe sends an event again for three days, and on demand for thirty.
FORGET = Command("DELETE FROM card.event WHERE taken_at < now() - interval '90 days'")


class Intake:
    """Where events come in. `on` says who handles which; those that nobody handles are answered and forgotten."""

    def __init__(self, database: Database, settings: StripeSettings) -> None:
        self._database, self._settings = database, settings
        self._handlers: dict[str, list[Handler]] = {}

    def on(self, types: Iterable[str], handler: Handler) -> None:
        """Let a handler have events of these types. Of several the first that returns work has it."""
        for event_type in types:
            self._handlers.setdefault(event_type, []).append(handler)

    async def take(self, raw: bytes, signature: str | None) -> Taken:
        """Take an event from its body as it was sent. Raises InvalidRequest for one that Stripe has not signed."""
        event = read(raw, signature, self._settings)
        if event.livemode != ("_live_" in self._settings.secret_key):
            log.warning("event %s is of the other mode (test or live) than the key; ignored", event.id)
            return "ignored"
        if event.type not in self._handlers:
            return "ignored"
        for _ in range(TRIES):
            try:
                return await self._take(event)
            except Outdated:
                continue
            except StripeRefused as error:
                log.error("event %s is about something that cannot be looked up at Stripe: %s", event.id, error)
                raise Unavailable("What this event is about cannot be looked up; send it again.") from error
        raise Unavailable("This event meets others of the same payment; send it again.")

    async def forget(self) -> None:
        """Forget events that cannot come again."""
        async with self._database.acquire() as connection:
            await FORGET.run(connection)

    async def _take(self, event: Event) -> Taken:
        async with self._database.acquire() as connection:
            if await IS_TAKEN.one(connection, event.id):
                return "repeated"
        for handler in self._handlers[event.type]:
            work = await handler(event)
            if work is None:
                continue
            async with self._database.transaction() as connection:
                if not await TAKE.run(connection, event.id, event.type, event.object_id, event.created_at):
                    return "repeated"
                await work(connection)
            return "done"
        return "ignored"


async def bring_up_to_date(database: Database, learn: Callable[[], Awaitable[Work | None]]) -> None:
    """Let `learn` ask Stripe, and do the work that follows, again if somebody has learnt something newer meanwhile."""
    for _ in range(TRIES):
        work = await learn()
        if work is None:
            return
        try:
            async with database.transaction() as connection:
                await work(connection)
        except Outdated:
            continue
        return


async def look_after(what: str, ids: Iterable[Id], check: Callable[[Id], Awaitable[None]]) -> None:
    """Check each of these, as long as Stripe answers; what is wrong with one of them is logged."""
    for one in ids:
        try:
            await check(one)
        except (StripeRefused, NotUnderstood) as error:
            log.error("%s %s cannot be looked up at Stripe: %s", what, one, error)
        except Unavailable:
            return


def read(raw: bytes, signature: str | None, settings: StripeSettings) -> Event:
    """Return the event that a body is, if one of the secrets has signed it lately. Raises InvalidRequest."""
    if not settings.webhook_secrets:
        raise RailNotAvailable(NO_CARDS)
    if not any(_signed(raw, signature, secret, settings.tolerance) for secret in settings.webhook_secrets):
        raise InvalidRequest("Stripe-Signature is missing, old, or not of this body and one of this gateway's secrets.")
    try:
        it = orjson.loads(raw)
        event = Event(
            id=_text(it["id"]),
            type=_text(it["type"]),
            created_at=datetime.fromtimestamp(it["created"], UTC),
            livemode=it["livemode"] is True,
            object=dict(it["data"]["object"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        raise InvalidRequest("The body is signed, and is no event of Stripe's.") from None
    return event


def _signed(raw: bytes, signature: str | None, secret: str, tolerance_seconds: float) -> bool:
    # The library compares text, which it cannot where that is not ASCII.
    if signature is None or not signature.isascii():
        return False
    try:
        stripe.WebhookSignature.verify_header(raw, signature, secret, tolerance_seconds)  # pyright: ignore[reportUnknownMemberType]
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False
    # It looks for old ones only: one from the future would be good for longer than it should.
    return _moment(signature) <= time.time() + tolerance_seconds


def _moment(signature: str) -> int:
    """Return the moment that was signed: the first, as the library reads it. Others may have been put beside it."""
    return next(int(part.split("=")[1]) for part in signature.split(",") if part.startswith("t="))


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 255 or "\0" in value:
        raise ValueError
    return value
