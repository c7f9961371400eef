"""Changing plans: up at once, down at the end of the month; what is chosen for later can be taken back.

    dearer, or as dear:  begins now; both months' parts are on the invoice, by the second (pricing/proration.py)
    cheaper:             begins with the next month (UTC): the running one is paid. Until then the organization may not
                         grow beyond the cheaper plan either, so that it fits when it begins
    the present one:     takes back what was chosen for the end of the month; without such a choice it is refused

Nothing is taken here: fees are lines of the month's invoice (plan_fees.py). Each change holds the organization's lock,
so that of two at once the second sees the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from gateway.audit.entries import record
from gateway.billing.payment_methods import default_method
from gateway.database.pool import Connection
from gateway.database.statement import Command
from gateway.errors import Conflict, InvalidRequest
from gateway.identity.organization_plans import (
    OCCUPIED,
    ROOMS,
    Held,
    Occupied,
    PlanBook,
    Room,
    limit_of,
    terms_of,
)
from gateway.identity.permissions import LOCK_ORGANIZATION, Member, Permission, locked
from gateway.ids import uuid7
from gateway.plans import Plan
from pricing.proration import month_end

When = Literal["now", "month_end", "stay"]


@dataclass(frozen=True, slots=True)
class Excess:
    """What an organization has more of than a plan allows."""

    room: Room
    has: int
    most: int


@dataclass(frozen=True, slots=True)
class Choice:
    """A change that is allowed: what an organization has, what it is to have, and when that begins."""

    before: Held
    target: Plan
    when: When

    @property
    def must_be_paid(self) -> bool:
        """Return whether there must be something to charge. Who stays has been asked for it before."""
        return self.when != "stay" and self.target.price > 0


BEGIN_PERIOD = Command(
    """
    INSERT INTO identity.organization_plan (id, organization_id, plan_id, terms, started_at, set_by)
    VALUES ($1, $2, $3, $4, $5, $6)
    """
)
# What is set to end stays so until somebody says otherwise; a period that has begun is never deleted.
END_PERIOD = Command(
    """
    UPDATE identity.organization_plan
       SET ends_at = $2, cancelled_at = $3, cancelled_by = $4, updated_at = clock_timestamp() WHERE id = $1
    """
)
DELETE_COMING = Command("DELETE FROM identity.organization_plan WHERE organization_id = $1 AND started_at > $2")


def decide(held: Held, target: Plan) -> When:
    """Return when a plan would begin. Raises Conflict where nothing would change."""
    if target.id == held.plan.id:
        if held.next_plan is None:
            raise Conflict(f"This organization has the plan {held.plan.display_name} already.", plan=held.plan.name)
        return "stay"
    if held.next_plan is not None and target.id == held.next_plan.id:
        raise Conflict(
            f"The plan {target.display_name} is chosen already; it begins with the next month.", plan=target.name
        )
    return "month_end" if target.price < held.plan.price else "now"


def excess(occupied: Occupied, target: Plan) -> list[Excess]:
    """Return what there is more of than a plan allows."""
    found: list[Excess] = []
    for room in ROOMS:
        has, most = getattr(occupied, room), limit_of(target, room)
        if most is not None and has > most:
            found.append(Excess(room, has, most))
    return found


async def examine(connection: Connection, book: PlanBook, organization_id: UUID, plan_id: UUID) -> Choice:
    """Return what choosing a plan would do, but for paying it.

    Raises InvalidRequest for a plan that cannot be chosen, Conflict for one that changes nothing or is too small.
    """
    before = await book.held(connection, organization_id)
    target = choosable(book, before, plan_id)
    when = decide(before, target)
    if when != "stay":
        _demand_fits(await OCCUPIED.one(connection, organization_id), target)
    return Choice(before, target, when)


async def change(connection: Connection, member: Member, book: PlanBook, plan_id: UUID, *, takes_cards: bool) -> Held:
    """Give an organization another plan, and return what it has by then.

    Raises what `examine` raises, InvalidRequest for a plan that cannot be paid, Forbidden. `takes_cards`: whether
    payment methods can be stored and charged here.
    """
    actor = await locked(connection, member, Permission.BILLING_MANAGE)
    organization_id = actor.organization_id
    choice = await examine(connection, book, organization_id, plan_id)
    if choice.must_be_paid and not (takes_cards and await default_method(connection, organization_id)):
        target = choice.target
        todo = (
            "this organization has no payment method. Store one (POST /billing/payment-methods), or send its id here."
            if takes_cards
            else "cards are not taken by this gateway. Ask its operator to set the plan."
        )
        raise refused_plan(
            "stripe_payment_method_id",
            f"The plan {target.display_name} costs ${target.price_monthly} a month, and {todo}",
        )
    return await carry_out(connection, book, choice.before, choice.target, choice.when, actor.caller.account_id)


def choosable(book: PlanBook, held: Held, plan_id: UUID) -> Plan:
    """Return a plan that an organization may choose by itself. Raises InvalidRequest."""
    if not held.plan.self_service:
        raise refused_plan(
            "plan_id", f"Your plan, {held.plan.display_name}, is by contract: ask the operator to change it."
        )
    target = held.plan if plan_id == held.plan.id else book.plans.find(plan_id)
    if target is None:
        raise refused_plan("plan_id", "There is no such plan; GET /plans lists them.")
    if not target.self_service:
        raise refused_plan(
            "plan_id", f"The plan {target.display_name} is by contract: ask the operator of this gateway for it."
        )
    if not target.is_active and target.id != held.plan.id:
        raise refused_plan("plan_id", f"The plan {target.display_name} is no longer offered.")
    return target


async def assign(
    connection: Connection, book: PlanBook, organization_id: UUID, target: Plan, own: Mapping[str, Any]
) -> Held:
    """Give an organization a plan from now on, whatever it has: the operator's. `own` are terms of its own."""
    await LOCK_ORGANIZATION.first(connection, organization_id)
    before = await book.held(connection, organization_id)
    return await carry_out(connection, book, before, target, "now", None, own)


async def carry_out(
    connection: Connection,
    book: PlanBook,
    before: Held,
    target: Plan,
    when: When,
    account_id: UUID | None,
    own: Mapping[str, Any] | None = None,
) -> Held:
    """Write a change down, which was decided and whose organization is locked: as of the moment of the decision."""
    organization_id, now = before.period.organization_id, before.at
    begins = month_end(now) if when == "month_end" else now
    await DELETE_COMING.run(connection, organization_id, now)
    if when == "stay":
        await END_PERIOD.run(connection, before.period.id, None, None, None)
    else:
        if not before.chosen:  # the default plan until now: its included calls are the month's as well (plan_fees.py)
            period, default = before.period, terms_of(before.plan)
            await BEGIN_PERIOD.run(
                connection, period.id, organization_id, period.plan_id, default, period.started_at, None
            )  # fmt: skip
        await END_PERIOD.run(connection, before.period.id, begins, now, account_id)
        terms = terms_of(target) | dict(own or {})
        await BEGIN_PERIOD.run(connection, uuid7(), organization_id, target.id, terms, begins, account_id)
    after = await book.held(connection, organization_id)
    await record(
        connection, "plan.change", organization_id, after.period.id, before=_told(before), after=_told(after),
        details={"from": before.plan.name, "to": target.name, "begins_at": f"{begins:%Y-%m-%dT%H:%M:%SZ}"},
    )  # fmt: skip
    return after


def refused_plan(field: str, message: str) -> InvalidRequest:
    """Return the refusal of a change, naming the field."""
    return InvalidRequest(message, errors=[{"field": field, "message": message}])


def _demand_fits(occupied: Occupied, target: Plan) -> None:
    over = excess(occupied, target)
    if over:
        words = "; ".join(f"{one.has} {one.room.replace('_', ' ')}, {one.has - one.most} too many" for one in over)
        raise Conflict(
            f"The plan {target.display_name} is too small: this organization has {words}. Remove them first.",
            plan=target.name,
            too_many={one.room: one.has - one.most for one in over},
        )


def _told(held: Held) -> dict[str, object]:
    """Return what the audit log compares."""
    following: datetime | None = None if held.next_period is None else held.next_period.started_at
    return {
        "plan": held.plan.name, "terms": held.period.terms, "next_plan": held.next_plan and held.next_plan.name,
        "next_plan_begins_at": following,
    }  # fmt: skip
