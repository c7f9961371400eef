"""Which plan an organization has, and whether it has room for one more of something.

Who has chosen nothing has the default plan, without a row. Each time that an organization had a plan is a row, with the
terms of then (migration 0043): a plan that becomes dearer in the file does so for those who choose it from now on. What
does not live here: changing plans (billing/plan_changes.py), and counting calls (billing/quotas.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid5

from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.errors import PlanLimitReached
from gateway.identity.permissions import LOCK_ORGANIZATION
from gateway.plans import Plan, Plans

Room = Literal["publishers", "api_keys", "members", "projects"]
ROOMS: tuple[Room, ...] = ("publishers", "api_keys", "members", "projects")
TERMS = ("display_name", "price_monthly", "included_calls", "overage_price")
"""What an organization keeps of a plan as it was when it began."""


@dataclass(frozen=True, slots=True)
class Period:
    """One time that an organization had, has or will have a plan."""

    id: UUID
    organization_id: UUID
    plan_id: UUID
    terms: dict[str, Any]
    started_at: datetime
    ends_at: datetime | None
    set_by: UUID | None
    cancelled_at: datetime | None
    cancelled_by: UUID | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """The plan that an organization has `at` a moment, and the one that follows at the end of `period`, if one does.

    Plans are by the organization's terms. `chosen` is whether there is a row: the default plan needs none.
    """

    at: datetime
    plan: Plan
    period: Period
    chosen: bool
    next_plan: Plan | None = None
    next_period: Period | None = None

    def most(self, room: Room) -> tuple[Plan, int] | None:
        """Return the plan that decides how many there may be, and how many; a smaller one to come binds already."""
        plans = [self.plan] if self.next_plan is None else [self.plan, self.next_plan]
        bounds = [(plan, most) for plan in plans if (most := limit_of(plan, room)) is not None]
        return min(bounds, key=lambda bound: bound[1], default=None)


@dataclass(frozen=True, slots=True)
class Occupied:
    """How many an organization has of what plans limit."""

    publishers: int
    api_keys: int
    members: int
    projects: int


def _as_it_is(moment: datetime) -> datetime:
    return moment


PERIODS = Statement(
    """
    SELECT id, organization_id, plan_id, terms, started_at, ends_at, set_by, cancelled_at, cancelled_by, created_at,
           updated_at
      FROM identity.organization_plan
     WHERE organization_id = $1 AND (ends_at IS NULL OR ends_at > $2) ORDER BY started_at
    """,
    Period,
)
ORGANIZATION_BEGAN = Statement("SELECT created_at FROM identity.organization WHERE id = $1", _as_it_is, scalar=True)
NOW = Statement("SELECT clock_timestamp()", _as_it_is, scalar=True)
# Live ones only: what was deleted, revoked or has expired takes no room.
OCCUPIED = Statement(
    """
    SELECT (SELECT count(*) FROM catalog.publisher WHERE organization_id = $1 AND deleted_at IS NULL) AS publishers,
           (SELECT count(*) FROM identity.api_key WHERE organization_id = $1 AND revoked_at IS NULL
               AND (expires_at IS NULL OR expires_at > now())) AS api_keys,
           (SELECT count(*) FROM identity.membership WHERE organization_id = $1) AS members,
           (SELECT count(*) FROM project.project WHERE organization_id = $1 AND deleted_at IS NULL) AS projects
    """,
    Occupied,
)


def limit_of(plan: Plan, room: Room) -> int | None:
    """Return how many a plan allows; None is any number."""
    most: int | None = getattr(plan, f"max_{room}")
    return most


class PlanBook:
    """The plans of the file, and those of organizations by it. `enforced`: whether anything is refused by them."""

    def __init__(self, plans: Plans, *, enforced: bool) -> None:
        self.plans, self.enforced = plans, enforced

    async def held(self, connection: Connection, organization_id: UUID) -> Held:
        """Return what plan an organization has now, and which one follows."""
        now = await NOW.one(connection)
        rows = await PERIODS.all(connection, organization_id, now)
        current = next((row for row in rows if row.started_at <= now), None)
        coming = next((row for row in rows if row.started_at > now), None)
        chosen = current is not None
        if current is None:
            began = await ORGANIZATION_BEGAN.one(connection, organization_id)
            ends_at = None if coming is None else coming.started_at
            current = _default_period(organization_id, self.plans.free, began, ends_at)
        plan = self.plans.by_terms(current.plan_id, current.terms)
        if coming is None:
            return Held(now, plan, current, chosen)
        return Held(now, plan, current, chosen, self.plans.by_terms(coming.plan_id, coming.terms), coming)

    async def demand_room(self, connection: Connection, organization_id: UUID, room: Room, *, more: int = 1) -> None:
        """Raise PlanLimitReached where the plan has no room for so many more.

        Locks the organization until the transaction ends, so of two at once the second counts the first. `more` is 0
        where the new one is there already.
        """
        if not self.enforced:
            return
        await LOCK_ORGANIZATION.first(connection, organization_id)
        bound = (await self.held(connection, organization_id)).most(room)
        if bound is None:
            return
        plan, most = bound
        has: int = getattr(await OCCUPIED.one(connection, organization_id), room) - (1 - more)
        if has + 1 > most:
            words = room.replace("_", " ").replace("api", "API")
            raise PlanLimitReached(
                f"The plan {plan.display_name} allows {most} {words}, and this organization has {has}. Remove one, or"
                " change the plan (GET /plans, POST /organizations/{organization_id}/plan).",
                limit=most,
                used=has,
                of=room,
                plan=plan.name,
            )


def _default_period(organization_id: UUID, plan: Plan, began: datetime, ends_at: datetime | None) -> Period:
    """Return the period of who has chosen nothing; its id is always the same."""
    return Period(
        uuid5(organization_id, "default plan"), organization_id, plan.id, {}, began, ends_at, None, None, None, began,
        began,
    )  # fmt: skip


def terms_of(plan: Plan) -> dict[str, Any]:
    """Return what an organization that begins with a plan keeps of it."""
    return {name: getattr(plan, name) for name in TERMS}
