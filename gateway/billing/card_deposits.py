"""Deposits by card: begun here, paid at Stripe, and booked as what Stripe says became of them.

A deposit's row is there before Stripe hears of it. Afterwards there is one way in which it changes: what Stripe has of
it is asked for (`Cards.learn`), outside of a transaction, and then booked in one (`_apply`), if nobody has learnt
anything newer meanwhile. Events, the reconciler and the operator's command all take that way, so it does not matter in
which order they come, or how often. How money moves is in the migration (schema card).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.audit.entries import record
from gateway.billing.card_rows import (
    ARRIVE,
    BOOK_FEE,
    BY_INTENT,
    BY_SESSION,
    CLOSE_ORDER,
    COUNT,
    COUNT_OPEN,
    DEBTORS,
    DUE,
    FAIL,
    FAIL_PAID,
    FIND,
    FREEZE,
    GIVE_BACK,
    INSERT,
    LOCK_VERSION,
    LOSE,
    NOTE,
    OPEN,
    PAY,
    RECOVER,
    SET_STATE,
    SUSPEND,
    TAKE_AGAIN,
    WIN,
    Deposit,
    State,
)
from gateway.billing.credits import wallet_of
from gateway.catalog.assets import Asset
from gateway.database.pool import Connection, Database
from gateway.errors import Conflict, Unavailable
from gateway.identity.organizations import default_of
from gateway.ledger.wallets import LOCK_WALLET
from gateway.payments.stripe.client import CURRENCY, StripeDoor, StripeRefused
from gateway.payments.stripe.facts import UNDONE, CheckoutSession, DisputeFacts, Intent, PaymentFacts, RefundFacts
from gateway.payments.stripe.intake import (
    OF_MADE_PAYMENTS,
    Event,
    Intake,
    Outdated,
    Work,
    bring_up_to_date,
    look_after,
)
from gateway.settings import Settings

log = logging.getLogger(__name__)

NAMED = "tollway_deposit"
"""The metadata that names a deposit at Stripe."""
MOST_OPEN = 20
"""Pages of one wallet that nobody has paid at: each costs requests at Stripe, and those are bounded for all wallets."""
ENDED = frozenset({"paid", "suspense"})
EVENTS = (
    *("checkout.session.completed", "checkout.session.expired"),
    *("checkout.session.async_payment_succeeded", "checkout.session.async_payment_failed"),
    *("charge.failed", "payment_intent.payment_failed", "payment_intent.canceled"),
    *OF_MADE_PAYMENTS,
)


@dataclass(frozen=True, slots=True)
class Learnt:
    """What Stripe has of a deposit, asked for when its row had this version."""

    session: CheckoutSession
    intent: Intent | None
    payment: PaymentFacts | None


def bonus_percent(cents: int, tiers: tuple[str, ...]) -> int:
    """Return what the highest tier that a deposit reaches gives, in hundredths of a percent. A tier: cents=percent."""
    reached = [
        (int(least), percent) for least, _, percent in (tier.partition("=") for tier in tiers) if cents >= int(least)
    ]
    if not reached:
        return 0
    whole, _, part = max(reached, key=lambda tier: tier[0])[1].partition(".")
    return int(whole) * 100 + int(part.ljust(2, "0"))


def atomic(cents: int, asset: Asset) -> int:
    """Return US cents in atomic units of a dollar's asset."""
    return cents * 10 ** (asset.decimals - 2)


class Cards:
    """Deposits by card, of one worker."""

    def __init__(self, database: Database, door: StripeDoor, settings: Settings) -> None:
        self._database, self._door, self._settings = database, door, settings

    def listen(self, intake: Intake) -> Cards:
        """Take the events that may be about deposits, and return this."""
        intake.on(EVENTS, self.heard)
        return self

    async def begin(self, deposit_id: UUID, account_id: UUID, cents: int, asset: Asset) -> Deposit:
        """Store a deposit and open a page for it. The same id again is the same deposit.

        Raises Conflict, or Unavailable when Stripe opens no page.
        """
        deposit = await self._stored(deposit_id, account_id, cents, asset)
        opened = deposit if deposit.checkout_url else await self._open(deposit)
        if opened.checkout_url is None:
            raise Unavailable("Stripe opens no page for this deposit; nothing was charged. The operator is told.")
        return opened

    async def _stored(self, deposit_id: UUID, account_id: UUID, cents: int, asset: Asset) -> Deposit:
        now, amount = datetime.now(UTC), atomic(cents, asset)
        bonus = amount * bonus_percent(cents, self._settings.money.deposit_tiers) // 10_000
        until = (now + timedelta(seconds=self._settings.stripe.page_lifetime)).replace(microsecond=0)
        async with self._database.transaction() as connection:
            home = await default_of(connection, account_id)
            wallet = await wallet_of(connection, account_id, asset.id)
            await LOCK_WALLET.run(connection, wallet.id)
            known = await FIND.first(connection, deposit_id)
            if known is not None:
                return known
            if await COUNT_OPEN.one(connection, wallet.id) >= MOST_OPEN:
                raise Conflict(f"{MOST_OPEN} pages are open that nobody has paid at; pay there, or let them close.")
            await INSERT.run(
                connection, deposit_id, wallet.id, home.id if home else None, cents, str(amount), str(bonus), now, until
            )
            details = {"wallet_address": wallet.address, "amount_atomic": str(amount)}
            await record(connection, "deposit.create", home.id if home else None, deposit_id, details=details)
            return await FIND.one(connection, deposit_id)

    async def find(self, deposit_id: UUID) -> Deposit | None:
        """Return a deposit."""
        async with self._database.acquire() as connection:
            return await FIND.first(connection, deposit_id)

    async def heard(self, event: Event) -> Work | None:
        """Return what an event leads to, or None when it is about no deposit of ours."""
        deposit_id = await self._named_by(event)
        return None if deposit_id is None else await self.learn(deposit_id)

    async def learn(self, deposit_id: UUID) -> Work:
        """Ask Stripe what became of a deposit, and return the work that books it. That raises Outdated."""
        deposit = await self.find(deposit_id)
        if deposit is None or deposit.session_id is None:
            return _nothing
        learnt = await self._ask(deposit.session_id)

        async def work(connection: Connection) -> None:
            if await LOCK_VERSION.one(connection, deposit.id) != deposit.version:
                raise Outdated
            await NOTE.run(connection, deposit.id, learnt.session.intent, learnt.payment and learnt.payment.receipt_url)
            if await self._apply(connection, deposit, learnt):
                await COUNT.run(connection, deposit.id)

        return work

    async def check(self, deposit_id: UUID) -> None:
        """Bring one deposit up to date, whatever events have told of it. Raises Unavailable."""

        async def learn() -> Work:
            deposit = await self.find(deposit_id)
            if deposit is not None and deposit.state == "new":
                await self._open(deposit)
            return await self.learn(deposit_id)

        await bring_up_to_date(self._database, learn)

    async def reconcile(self) -> None:
        """Look after debts that can be paid, and deposits that no event has ended. Any number of workers may."""
        async with self._database.acquire() as connection:
            for wallet_id in await DEBTORS.all(connection):
                await RECOVER.one(connection, wallet_id)
            if not self._door.is_open:
                return
            due = await DUE.all(connection, timedelta(seconds=self._settings.stripe.recheck), 50)
        await look_after("deposit", due, self.check)

    async def _open(self, deposit: Deposit) -> Deposit:
        """Open the page of a deposit, or find the one that was opened: the key is the deposit's. Raises Unavailable."""
        try:
            session = await self._door.create_session(self._page(deposit), f"deposit-{deposit.id}")
        except StripeRefused as error:
            log.error("Stripe has refused to open the page of deposit %s: %s", deposit.id, error)
            async with self._database.acquire() as connection:
                await FAIL.run(connection, deposit.id, f"refused: {error.code}")
                return await FIND.one(connection, deposit.id)
        async with self._database.acquire() as connection:
            await OPEN.run(connection, deposit.id, session.id, session.url)
            return await FIND.one(connection, deposit.id)

    def _page(self, deposit: Deposit) -> dict[str, object]:
        """Return what Stripe is asked for: the same for a deposit whenever it is asked, or the key would not fit."""
        back = self._settings.stripe.return_url or self._settings.public_url
        name, named = f"Balance of {deposit.wallet_address}", {NAMED: str(deposit.id)}
        price = {"currency": CURRENCY, "unit_amount": deposit.cents, "product_data": {"name": name}}
        return {
            "mode": "payment",
            "line_items": [{"quantity": 1, "price_data": price}],
            "client_reference_id": str(deposit.id),
            "metadata": named,
            "payment_intent_data": {"metadata": named},
            "success_url": back,
            "cancel_url": back,
            "expires_at": int(deposit.expires_at.timestamp()),
        }

    async def _ask(self, session_id: str) -> Learnt:
        session = await self._door.find_session(session_id)
        if session.intent is None:
            return Learnt(session, None, None)
        return Learnt(session, *await self._door.payment(session.intent))

    async def _named_by(self, event: Event) -> UUID | None:
        """Return the deposit that an event is about: by its page, by its payment, or by what we wrote on either."""
        if event.object.get("object") == "checkout.session":
            async with self._database.acquire() as connection:
                found = await BY_SESSION.first(connection, event.object_id)
            return found or await self._adopt(event.object_id)
        is_intent = event.object.get("object") == "payment_intent"
        intent = event.object_id if is_intent else event.object.get("payment_intent")
        if not isinstance(intent, str):
            return None
        async with self._database.acquire() as connection:
            found = await BY_INTENT.first(connection, intent)
        return found or _uuid((await self._door.marks(intent)).get(NAMED))

    async def _adopt(self, session_id: str) -> UUID | None:
        """Give a page to the deposit that it was opened for, where that has none: the answer to us was lost."""
        try:
            session = await self._door.find_session(session_id)
        except StripeRefused:
            return None
        named = _uuid(session.metadata.get(NAMED))
        deposit = None if named is None else await self.find(named)
        if deposit is None or deposit.session_id not in (None, session_id):
            return None
        async with self._database.acquire() as connection:
            await OPEN.run(connection, deposit.id, session.id, session.url)
        return deposit.id

    async def _apply(self, connection: Connection, deposit: Deposit, learnt: Learnt) -> bool:
        """Book what is new, and return whether anything was. The deposit's row is locked."""
        payment, told, moved = learnt.payment, list[tuple[str, dict[str, object]]](), False
        if deposit.state not in ENDED:
            moved, told = await self._end(connection, deposit, learnt)
        elif learnt.intent is not None and learnt.intent.has_failed:
            told += await _failed(connection, deposit, learnt.intent)
        elif payment is not None and await ARRIVE.one(connection, deposit.id) == "arrived":
            told.append(("deposit.arrive", {}))
        if payment is not None and payment.currency == CURRENCY:
            for fee in payment.all_fees:
                await BOOK_FEE.one(connection, fee.id, deposit.asset_id, fee.cents, deposit.id)
            for refund in payment.refunds:
                if refund.order is not None:
                    await CLOSE_ORDER.run(connection, deposit.id, refund.order, refund.id)
                told += await _refunded(connection, deposit, refund)
            for dispute in payment.disputes:
                told += await _disputed(connection, deposit, dispute)
        for action, details in told:
            details = {"wallet_address": deposit.wallet_address, "network": "stripe", **details}
            await record(connection, action, deposit.organization_id, deposit.id, details=details)
        return moved or bool(told)

    async def _end(
        self, connection: Connection, deposit: Deposit, learnt: Learnt
    ) -> tuple[bool, list[tuple[str, dict[str, object]]]]:
        """Let a deposit stand as its payment does; return whether that is another state, and what is to be told."""
        payment = learnt.payment
        if payment is not None:
            wrong = self._wrong(deposit, learnt.session, payment)
            if wrong is None:
                await PAY.run(connection, deposit.id)
                details: dict[str, object] = {
                    "amount_atomic": str(deposit.amount), "bonus_atomic": str(deposit.bonus), "publisher_id": None,
                }  # fmt: skip
                return True, [("deposit.complete", details)]
            log.error("deposit %s was paid and not as asked for (%s): its money is in suspense", deposit.id, wrong)
            came = payment.cents if payment.currency == CURRENCY else 0
            await SUSPEND.run(connection, deposit.id, came, wrong)
            return True, [("deposit.suspend", {"reason": wrong})]
        state, reason = _unpaid(learnt)
        if state != deposit.state:
            await SET_STATE.run(connection, deposit.id, state, reason)
        return state != deposit.state, []

    def _wrong(self, deposit: Deposit, session: CheckoutSession, payment: PaymentFacts) -> str | None:
        """Return in what a payment is not the one that was asked for."""
        if session.metadata.get(NAMED) != str(deposit.id):
            return "it names another deposit"
        if payment.livemode != self._door.livemode:
            return "it is of the other mode, test or live"
        if payment.currency != CURRENCY:
            return f"it is in {payment.currency}"
        if payment.cents != deposit.cents:
            return f"{payment.cents} cents came"
        return None


async def _nothing(_connection: Connection) -> None:
    """Nothing follows from an event."""


def _unpaid(learnt: Learnt) -> tuple[State, str | None]:
    """Return what a deposit is while nothing was paid for it."""
    if learnt.session.status == "expired":
        return "expired", None
    if learnt.session.status != "complete":
        return "open", None
    if learnt.intent is not None and learnt.intent.has_failed:
        return "failed", "the payment did not come about"
    return "processing", None


def demand_refundable(deposit: Deposit) -> None:
    """Raise Conflict where money of a deposit must not go back to its card: its bank has it, or may get it."""
    if deposit.failed_at is not None:
        raise Conflict("Its payment failed after it was credited: there is nothing to give back.")
    if deposit.dispute == "lost":
        raise Conflict("A dispute of it was lost: its bank has given the money back, and nothing more can be.")
    if deposit.dispute is not None:
        raise Conflict(
            "A dispute of it is open: its bank decides who gets the money. Answer the dispute at Stripe, or accept it"
            " there; once it is won, the deposit can be given back."
        )


async def _failed(connection: Connection, deposit: Deposit, intent: Intent) -> list[tuple[str, dict[str, object]]]:
    """Take back what was credited for a payment that has failed since."""
    for fee in intent.failure_fees:
        await BOOK_FEE.one(connection, fee.id, deposit.asset_id, fee.cents, deposit.id)
    if await FAIL_PAID.one(connection, deposit.id) != "failed":
        return []
    log.error("the payment of deposit %s failed after it was credited: what is left of it was taken back", deposit.id)
    return [("deposit.fail", {"amount_atomic": str(deposit.amount)})]


async def _refunded(
    connection: Connection, deposit: Deposit, refund: RefundFacts
) -> list[tuple[str, dict[str, object]]]:
    amount: dict[str, object] = {"refund": refund.id, "cents": refund.cents}
    if refund.status not in UNDONE:
        booked = await GIVE_BACK.one(connection, deposit.id, refund.id, refund.cents)
        return [("deposit.refund", amount)] if booked == "booked" else []
    returned = await TAKE_AGAIN.one(connection, refund.id)
    return [("deposit.refund_back", amount)] if returned == "returned" else []


async def _disputed(
    connection: Connection, deposit: Deposit, dispute: DisputeFacts
) -> list[tuple[str, dict[str, object]]]:
    told: list[tuple[str, dict[str, object]]] = []
    amount: dict[str, object] = {"dispute": dispute.id, "cents": dispute.cents}
    # A lost one may not have been heard of before: it takes what is there, as if it had been frozen.
    begun = dispute.is_open or dispute.is_lost
    if begun and await FREEZE.one(connection, deposit.id, dispute.id, dispute.cents) == "frozen":
        told.append(("deposit.dispute", amount))
    if dispute.is_lost and await LOSE.one(connection, dispute.id) == "lost":
        told.append(("deposit.dispute_lost", {**amount, "won": False}))
    elif dispute.is_won and await WIN.one(connection, dispute.id) == "won":
        told.append(("deposit.dispute_won", {**amount, "won": True}))
    return told


def _uuid(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:
        return None
