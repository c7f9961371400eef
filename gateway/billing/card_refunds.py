"""Refunds of card deposits that operators order: stored first, then sent to Stripe, booked as any refund there.

An order is a row before Stripe hears of it. Its id is Stripe's idempotency key, and stands in the refund's metadata.
Whoever sends it again after a crash first learns what Stripe has of the deposit, which closes an order that arrived; so
it is done once, also after Stripe has forgotten the key. A deposit has one open order at a time. What does not live
here: who may order (operators/deposit_refunds.py), and how a refund is booked (card_deposits.py).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from gateway.billing.card_deposits import Cards, demand_refundable
from gateway.billing.card_rows import FIND, LOCK_VERSION, REFUNDABLE, Deposit
from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import NotFound
from gateway.faults import ARMED, act
from gateway.ids import uuid7
from gateway.payments.stripe.client import StripeDoor, StripeRefused
from gateway.payments.stripe.intake import look_after

log = logging.getLogger(__name__)

PATIENCE = timedelta(minutes=2)
"""How long a gateway leaves an order to whoever sends it: longer than all tries of one request to Stripe."""
AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """A part of a deposit that goes back to its card."""

    id: UUID
    deposit_id: UUID
    cents: int
    intent_id: str | None


_ORDERS = """
    SELECT o.id, o.deposit_id, o.cents, d.intent_id FROM card.refund_order o JOIN card.deposit d ON d.id = o.deposit_id
     WHERE o.refund_id IS NULL AND o.refused IS NULL
"""
FIND_ORDER = Statement(f"{_ORDERS} AND o.id = $1", RefundOrder)
FIND_OPEN = Statement(f"{_ORDERS} AND o.deposit_id = $1", RefundOrder)
ORDER = Command(
    "INSERT INTO card.refund_order (id, deposit_id, cents, send_at) VALUES ($1, $2, $3, now() + $4::interval)"
)
REFUSE = Command("UPDATE card.refund_order SET refused = $2 WHERE id = $1 AND refund_id IS NULL")
DUE = Statement(
    """
    UPDATE card.refund_order SET send_at = now() + $1::interval WHERE id IN (
        SELECT id FROM card.refund_order WHERE refund_id IS NULL AND refused IS NULL AND send_at <= now()
         ORDER BY send_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING id::text
    """,
    UUID,
    scalar=True,
)


async def lock_refundable(connection: Connection, deposit_id: UUID) -> Deposit:
    """Return a deposit whose money may go back, locked until the transaction ends. Raises NotFound, Conflict.

    Whoever books a dispute or a failure holds this lock. A dispute that nobody has heard of yet, Stripe refuses.
    """
    await LOCK_VERSION.first(connection, deposit_id)
    deposit = await FIND.first(connection, deposit_id)
    if deposit is None or deposit.paid_cents is None:
        raise NotFound("No deposit that was paid has this id.")
    demand_refundable(deposit)
    return deposit


async def most_refundable(connection: Connection, deposit: Deposit, *, spent_too: bool) -> int:
    """Return how many cents of a deposit can go back: without `spent_too` no more than leaves nothing owed."""
    return deposit.left_cents if spent_too else await REFUNDABLE.one(connection, deposit.id)


async def order(connection: Connection, deposit: Deposit, cents: int, *, sends_itself: bool) -> RefundOrder:
    """Store an order for a locked deposit without an open one.

    The caller sends it after the transaction where it `sends_itself`; otherwise, or should that fail, a gateway does.
    """
    patience = PATIENCE if sends_itself else timedelta(0)
    new = RefundOrder(uuid7(), deposit.id, cents, deposit.intent_id)
    await ORDER.run(connection, new.id, deposit.id, cents, patience)
    return new


class CardRefunds:
    """Sends orders to Stripe."""

    def __init__(self, database: Database, door: StripeDoor, cards: Cards) -> None:
        self._database, self._door, self._cards = database, door, cards

    async def send(self, ordered: RefundOrder) -> str:
        """Send an order, and return the refund's id. Raises StripeRefused, which ends the order, or Unavailable.

        Its booking, which closes the order, is the deposit's `check`.
        """
        if ARMED == "deposit_refund.ordered":
            await act()
        try:
            refund = await self._door.refund(
                _intent_of(ordered), ordered.cents, f"deposit-refund-{ordered.id}", order=ordered.id
            )
        except StripeRefused as error:
            async with self._database.acquire() as connection:
                await REFUSE.run(connection, ordered.id, f"{error.code or 'refused'}: {error.reason}")
            raise
        if ARMED == "deposit_refund.sent":
            await act()
        return refund

    async def send_due(self) -> None:
        """Send what is due. Any number of workers may."""
        if not self._door.is_open:
            return
        async with self._database.acquire() as connection:
            due = await DUE.all(connection, PATIENCE, AT_ONCE)
        await look_after("refund order", due, self._send_again)

    async def _send_again(self, order_id: UUID) -> None:
        """Send an order that Stripe does not have yet, and book it."""
        ordered = await self._open(order_id)
        if ordered is not None:
            await self._cards.check(ordered.deposit_id)
            ordered = await self._open(order_id)
        if ordered is not None:
            await self.send(ordered)
            await self._cards.check(ordered.deposit_id)

    async def _open(self, order_id: UUID) -> RefundOrder | None:
        async with self._database.acquire() as connection:
            return await FIND_ORDER.first(connection, order_id)


def _intent_of(ordered: RefundOrder) -> str:
    if ordered.intent_id is None:
        raise StripeRefused(None, "nothing was paid")
    return ordered.intent_id
