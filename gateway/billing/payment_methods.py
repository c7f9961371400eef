"""Ways to pay that an organization has stored: cards at Stripe, of which only what is shown is known here.

The first one is the default. `default_method` is for whoever charges it. What does not live here: charging.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.audit.entries import record
from gateway.billing.credits import HOLD_ACCOUNT, grant_once, wallet_of
from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, NotFound, Unavailable
from gateway.identity.organization_plans import PlanBook
from gateway.identity.organizations import Organization, default_of, load_organization
from gateway.ids import uuid7
from gateway.ledger.wallets import LOCK_WALLET
from gateway.payments.stripe.client import StripeDoor, StripeRefused
from gateway.payments.stripe.facts import MethodFacts
from gateway.settings import MoneySettings

log = logging.getLogger(__name__)

MOST = 20
BONUS = "payment_method_bonus"


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """A stored way to pay. `stripe_id` is what it is called there."""

    id: UUID
    stripe_id: str
    kind: str
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None
    is_default: bool


@dataclass(frozen=True, slots=True)
class DefaultMethod:
    """What to charge, by its names at Stripe."""

    customer: str
    method: str


LIST = Statement(
    """
    SELECT id, stripe_id, kind, brand, last4, exp_month, exp_year, is_default FROM card.payment_method
     WHERE organization_id = $1 AND removed_at IS NULL ORDER BY is_default DESC, added_at, id
    """,
    PaymentMethod,
)
DEFAULT = Statement(
    """
    SELECT o.stripe_customer_id AS customer, m.stripe_id AS method
      FROM card.payment_method m JOIN identity.organization o ON o.id = m.organization_id
     WHERE m.organization_id = $1 AND m.is_default
    """,
    DefaultMethod,
)
# Whoever stores and removes at the same time waits: one of them is the default.
LOCK_ORGANIZATION = Command("SELECT FROM identity.organization WHERE id = $1 FOR NO KEY UPDATE")
SET_CUSTOMER = Command(
    "UPDATE identity.organization SET stripe_customer_id = $2 WHERE id = $1 AND stripe_customer_id IS NULL"
)
INSERT = Command(
    """
    INSERT INTO card.payment_method (id, organization_id, stripe_id, kind, brand, last4, exp_month, exp_year,
                                     fingerprint, is_default, added_by)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, false, $10)
    """
)
NO_DEFAULT = Command("UPDATE card.payment_method SET is_default = false WHERE organization_id = $1 AND is_default")
MAKE_DEFAULT = Command("UPDATE card.payment_method SET is_default = true WHERE id = $1")
IS_REMOVED = Statement(
    "SELECT EXISTS (SELECT FROM card.payment_method WHERE stripe_id = $1 AND removed_at IS NOT NULL)", bool, scalar=True
)
REMOVE = Command("UPDATE card.payment_method SET removed_at = now(), is_default = false WHERE id = $1")
TO_DETACH = Statement(
    """
    SELECT stripe_id FROM card.payment_method
     WHERE removed_at IS NOT NULL AND detached_at IS NULL ORDER BY removed_at LIMIT 20
    """,
    str,
    scalar=True,
)
DETACHED = Command("UPDATE card.payment_method SET detached_at = now() WHERE stripe_id = $1")
FRESH_CARDS = Statement(
    """
    SELECT m.fingerprint FROM card.payment_method m
     WHERE m.organization_id = $1 AND m.removed_at IS NULL AND m.fingerprint IS NOT NULL
       AND NOT EXISTS (SELECT FROM card.bonus b WHERE b.fingerprint = m.fingerprint)
     ORDER BY m.added_at
    """,
    str,
    scalar=True,
)
CLAIM_CARD = Command("INSERT INTO card.bonus (fingerprint, account_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
HAS_CLAIMED = Statement("SELECT EXISTS (SELECT FROM card.bonus WHERE account_id = $1)", bool, scalar=True)


async def default_method(connection: Connection, organization_id: UUID) -> DefaultMethod | None:
    """Return what an organization is charged by, if it has stored anything."""
    return await DEFAULT.first(connection, organization_id)


async def methods_of(connection: Connection, organization_id: UUID) -> list[PaymentMethod]:
    """Return what an organization has stored, its default first."""
    return await LIST.all(connection, organization_id)


class PaymentMethods:
    """Stored ways to pay, of one worker."""

    def __init__(self, database: Database, door: StripeDoor, plans: PlanBook) -> None:
        self._database, self._door, self._plans = database, door, plans

    async def add(self, organization_id: UUID, account_id: UUID, stripe_id: str, *, as_default: bool) -> UUID:
        """Store a payment method and return its id here; the same again is the same. Raises StripeRefused, Conflict."""
        self._door.demand()
        async with self._database.acquire() as connection:
            organization = await load_organization(connection, organization_id)
        customer = organization.stripe_customer_id or await self._customer(organization)
        facts = await self._attached(stripe_id, customer, organization_id)
        async with self._database.transaction() as connection:
            return await _store(connection, organization_id, account_id, facts, as_default=as_default)

    async def remove(self, organization_id: UUID, method_id: UUID) -> None:
        """Forget a payment method; the oldest other one becomes the default. Stripe hears of it after the commit.

        Raises Conflict for the last one of who has chosen a plan that costs something.
        """
        async with self._database.transaction() as connection:
            await LOCK_ORGANIZATION.run(connection, organization_id)
            stored = await LIST.all(connection, organization_id)
            found = next((one for one in stored if one.id == method_id), None)
            if found is None:
                raise NotFound("There is no such payment method.")
            others = [one for one in stored if one.id != method_id]
            if not others:
                await self._demand_nothing_to_pay(connection, organization_id)
            await REMOVE.run(connection, method_id)
            if found.is_default and others:
                await MAKE_DEFAULT.run(connection, others[0].id)
            await record(connection, "payment_method.remove", organization_id, method_id, before=found)
        await self.detach()

    async def detach(self) -> None:
        """Take from Stripe's customers what was removed here. A silent Stripe is asked again."""
        if not self._door.is_open:
            return
        async with self._database.acquire() as connection:
            removed = await TO_DETACH.all(connection)
        for stripe_id in removed:
            try:
                await self._door.detach_method(stripe_id, f"detach-{stripe_id}")
            except StripeRefused as error:
                log.info("payment method %s is no customer's any more: %s", stripe_id, error)
            except Unavailable:
                return
            async with self._database.acquire() as connection:
                await DETACHED.run(connection, stripe_id)

    async def _demand_nothing_to_pay(self, connection: Connection, organization_id: UUID) -> None:
        """Raise Conflict where a plan runs, or is chosen, that is paid by what is stored. The organization is locked.

        Plans by contract are paid as their contract says.
        """
        held = await self._plans.held(connection, organization_id)
        for plan in filter(None, (held.plan, held.next_plan)):
            if plan.price and plan.self_service:
                raise Conflict(
                    f"The plan {plan.display_name} costs ${plan.price_monthly} a month, and this is the last payment"
                    " method. Store another one first (POST /billing/payment-methods), or choose a plan that costs"
                    " nothing (POST /organizations/{organization_id}/plan) and remove this one when that has begun.",
                    plan=plan.name,
                )

    async def _customer(self, organization: Organization) -> str:
        """Make the organization a customer at Stripe, once."""
        named = {"tollway_organization": str(organization.id)}
        made = await self._door.create_customer(f"customer-{organization.id}", name=organization.name, metadata=named)
        async with self._database.acquire() as connection:
            await SET_CUSTOMER.run(connection, organization.id, made)
            return (await load_organization(connection, organization.id)).stripe_customer_id or made

    async def _attached(self, stripe_id: str, customer: str, organization_id: UUID) -> MethodFacts:
        known = await self._door.find_method(stripe_id)
        if known.customer == customer:
            return known
        return await self._door.attach_method(stripe_id, customer, f"attach-{organization_id}-{stripe_id}")


async def claim_bonus(database: Database, account_id: UUID, asset_id: UUID, money: MoneySettings) -> int:
    """Grant the bonus for a stored card: once per account, and once per card, whoever stores it. Raises Conflict."""
    expires_at = datetime.now(UTC) + timedelta(days=money.bonus_expiry_days)
    async with database.transaction() as connection:
        await HOLD_ACCOUNT.run(connection, account_id)
        if await HAS_CLAIMED.one(connection, account_id):
            raise Conflict("This bonus has been claimed before.")
        home = await default_of(connection, account_id)
        if home is None or not await LIST.all(connection, home.id):
            raise Conflict("No payment method is stored: POST /billing/payment-methods.", missing="payment_method")
        for fingerprint in await FRESH_CARDS.all(connection, home.id):
            if await CLAIM_CARD.run(connection, fingerprint, account_id):
                break
        else:
            raise Conflict("What is stored has earned this bonus before, here or elsewhere, or is no card.")
        wallet = await wallet_of(connection, account_id, asset_id)
        await LOCK_WALLET.run(connection, wallet.id)
        await grant_once(connection, wallet, BONUS, "payment_method", money.payment_method_bonus, expires_at)
        details = {"wallet": wallet.address}
        await record(connection, "wallet.claim_payment_method_bonus", home.id, account_id, details=details)
    return money.payment_method_bonus


async def _store(
    connection: Connection, organization_id: UUID, account_id: UUID, facts: MethodFacts, *, as_default: bool
) -> UUID:
    await LOCK_ORGANIZATION.run(connection, organization_id)
    stored = await LIST.all(connection, organization_id)
    same = next((one.id for one in stored if one.stripe_id == facts.id), None)
    if same is None and await IS_REMOVED.one(connection, facts.id):
        raise Conflict("This payment method was removed, and Stripe takes none again. Make a new one of the same card.")
    if same is None and len(stored) >= MOST:
        raise Conflict(f"This organization has stored {MOST} payment methods; remove some first.")
    method_id = same or uuid7()
    if same is None:
        await INSERT.run(
            connection, method_id, organization_id, facts.id, facts.kind, facts.brand, facts.last4, facts.exp_month,
            facts.exp_year, facts.fingerprint, account_id,
        )  # fmt: skip
    if as_default or not stored:
        await NO_DEFAULT.run(connection, organization_id)
        await MAKE_DEFAULT.run(connection, method_id)
    await record(connection, "payment_method.add", organization_id, method_id, details={"kind": facts.kind})
    return method_id
