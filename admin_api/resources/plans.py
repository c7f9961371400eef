"""Category `Plans`: what can be had, what an organization has, changing it, and what is used of it.

Compute, branches and storage are not offered here, so plans include none and none is used. What gateways meter (paid
calls, and how many publishers, keys and members there may be) are extension fields of the same answers.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from admin_api.kit.access import Public, ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta
from admin_api.kit.needs import needs
from admin_api.kit.once import Once
from admin_api.kit.problems import refusals
from admin_api.resources.payment_methods import StripeMethodId, store
from gateway import plans
from gateway.billing import plan_changes, quotas
from gateway.billing.budgets import next_month
from gateway.errors import NotFound
from gateway.identity import organization_plans
from gateway.identity.organization_plans import OCCUPIED, Held, Period
from gateway.identity.permissions import Member, Permission
from gateway.request_body import RequestBody

router = APIRouter(tags=["Plans"], route_class=StrictRoute)
# What every plan has here, and what none does.
ALIKE: dict[str, Any] = {
    "max_branches_per_project": 0,
    "max_compute_units": 0,
    "audit_logs_enabled": True,
    "ip_allowlist_enabled": True,
    "monitoring_enabled": True,
    "sso_enabled": False,
    "vpc_enabled": False,
}


class Plan(Answer):
    """A plan. Null is no limit, or no price for what is not offered."""

    id: UUID
    name: str
    display_name: str
    description: str | None
    price_monthly: str
    sort_order: int
    is_active: bool
    support_level: str
    max_projects: int | None
    max_branches_per_project: int
    max_databases_per_branch: int | None = None
    max_endpoints_per_branch: int | None = None
    max_compute_units: int
    compute_hours_quota: int | None = None
    compute_price_per_cu_hour: str | None = None
    branch_price_per_hour: str | None = None
    storage_gb_quota: str | None = None
    storage_price_per_gb_month: str | None = None
    data_transfer_gb_included: int | None = None
    data_transfer_price_per_gb: str | None = None
    pitr_retention_hours: int | None = None
    pitr_price_per_gb_month: str | None = None
    scale_to_zero_delay_seconds: int | None = None
    monitoring_retention_days: int | None = None
    sla_uptime_percent: str | None = None
    stripe_price_id: str | None = None
    audit_logs_enabled: bool
    ip_allowlist_enabled: bool
    monitoring_enabled: bool
    sso_enabled: bool
    vpc_enabled: bool
    created_at: Moment
    updated_at: Moment
    self_service: bool = Field(description="Extension: whether members can choose it; else the operator gives it.")
    included_calls: int | None = Field(description="Extension: paid calls of all API keys in a UTC month.")
    overage_price: str | None = Field(
        description="Extension: US dollars for 1,000 calls beyond the included ones; null: they are refused."
    )
    calls_per_minute: int | None = Field(description="Extension: of all API keys together.")
    max_publishers: int | None = Field(description="Extension.")
    max_api_keys: int | None = Field(description="Extension.")
    max_members: int | None = Field(description="Extension.")


class PlanResponse(Answer):
    """Envelope."""

    data: Plan
    pagination: PaginationMeta | None = None


class PlansResponse(Answer):
    """Envelope."""

    data: list[Plan]
    pagination: PaginationMeta | None = None


class OrganizationPlan(Answer):
    """The time for which an organization has a plan. Who has chosen nothing has the default one since it began."""

    id: UUID
    organization_id: UUID
    plan_id: UUID
    started_at: Moment
    ends_at: Moment | None
    cancelled_at: Moment | None
    cancelled_by: UUID | None
    cancellation_reason: str | None = None
    is_trial: bool
    trial_ends_at: Moment | None = None
    stripe_subscription_id: str | None = None
    created_at: Moment
    updated_at: Moment
    next_plan_id: UUID | None = Field(default=None, description="Extension: the plan that begins at `ends_at`.")


class OrganizationPlanWithDetails(Answer):
    """What an organization has, by the terms with which it began."""

    organization_plan: OrganizationPlan
    plan: Plan


class OrganizationPlanResponse(Answer):
    """Envelope."""

    data: OrganizationPlanWithDetails
    pagination: PaginationMeta | None = None


class ChangePlanRequest(RequestBody):
    """Which plan to have. One that costs something needs a payment method: a stored one, or this one.

    What is sent with it is stored and becomes the default. With a plan that costs nothing it is left alone.
    """

    plan_id: UUID
    stripe_payment_method_id: StripeMethodId | None = None


class Used(Answer):
    """Extension: how many there are of something, and how many the plan allows; null is any number."""

    used: int
    limit: int | None
    percent: float | None


class QuotaUsage(Answer):
    """What is used of a plan."""

    organization_id: UUID
    plan: Plan
    current_projects: int
    projects_usage_percent: float | None
    is_over_projects_quota: bool
    current_branches: int
    current_compute_hours: float
    compute_hours_usage_percent: float | None = None
    is_over_compute_quota: bool
    current_storage_gb: float
    storage_usage_percent: float | None = None
    is_over_storage_quota: bool
    enforced: bool = Field(description="Extension: whether this gateway counts and refuses by plans.")
    calls: Used = Field(description="Extension: paid calls by API keys in this UTC month; open ones are among them.")
    is_over_calls_quota: bool = Field(description="Extension: whether the next call is beyond the included ones.")
    resets_at: Moment = Field(description="Extension: when the calls begin anew.")
    publishers: Used = Field(description="Extension.")
    api_keys: Used = Field(description="Extension.")
    members: Used = Field(description="Extension.")


class QuotaUsageResponse(Answer):
    """Envelope."""

    data: QuotaUsage
    pagination: PaginationMeta | None = None


@router.get("/plans", operation_id="list_plans", responses=refusals())
async def list_plans(_caller: Public, services: ServicesDep) -> PlansResponse:
    """List the plans that can be chosen or asked for, in the operator's order."""
    return PlansResponse(data=[_plan(plan) for plan in services.plans.plans.listed])


@router.get("/plans/{plan_id}", operation_id="get_plan", responses=refusals(400, 404))
async def get_plan(plan_id: UUID, _caller: Public, services: ServicesDep) -> PlanResponse:
    """Return one plan, also one that is no longer offered."""
    found = services.plans.plans.find(plan_id)
    if found is None:
        raise NotFound("There is no plan with this id.")
    return PlanResponse(data=_plan(found))


@router.get(
    "/organizations/{organization_id}/plan",
    operation_id="get_organization_plan",
    responses=refusals(400, 401, 403, 404),
)
async def get_organization_plan(
    member: Annotated[Member, needs(Permission.BILLING_READ)], services: ServicesDep
) -> OrganizationPlanResponse:
    """Return the plan that an organization has, by the terms with which it began."""
    async with services.database.acquire() as connection:
        held = await services.plans.held(connection, member.organization_id)
    return _shown(held)


@router.post(
    "/organizations/{organization_id}/plan",
    operation_id="change_organization_plan",
    responses=refusals(400, 401, 403, 404, 409, 501),
)
async def change_organization_plan(
    body: ChangePlanRequest,
    member: Annotated[Member, needs(Permission.BILLING_MANAGE)],
    once: Once,
    services: ServicesDep,
) -> OrganizationPlanResponse:
    """Choose a plan: a dearer one begins now, a cheaper one with the next month, the present one takes that back."""
    book, method = services.plans, body.stripe_payment_method_id
    if method is not None:
        # Asked first, so that a refused plan stores no card; Stripe is not asked within a transaction.
        async with services.database.acquire() as connection:
            choice = await plan_changes.examine(connection, book, member.organization_id, body.plan_id)
        if choice.must_be_paid:
            await store(services, member, method, as_default=True)
    async with services.database.transaction() as connection:
        held = await plan_changes.change(connection, member, book, body.plan_id, takes_cards=services.stripe.is_open)
    return _shown(held)


@router.get(
    "/organizations/{organization_id}/quota", operation_id="get_quota_usage", responses=refusals(400, 401, 403, 404)
)
async def get_quota_usage(
    member: Annotated[Member, needs(Permission.BILLING_READ)], services: ServicesDep
) -> QuotaUsageResponse:
    """Return what an organization uses of its plan."""
    organization_id, book, today = member.organization_id, services.plans, datetime.now(UTC).date()
    async with services.database.acquire() as connection:
        held = await book.held(connection, organization_id)
        occupied = await OCCUPIED.one(connection, organization_id)
        calls = await quotas.used(connection, organization_id, today)
    plan = held.plan
    rooms = {
        room: _used(getattr(occupied, room), organization_plans.limit_of(plan, room))
        for room in organization_plans.ROOMS
    }
    projects = rooms.pop("projects")
    return QuotaUsageResponse(
        data=QuotaUsage(
            organization_id=organization_id,
            plan=_plan(plan),
            current_projects=projects.used,
            projects_usage_percent=projects.percent,
            is_over_projects_quota=projects.limit is not None and projects.used > projects.limit,
            current_branches=0,
            current_compute_hours=0,
            is_over_compute_quota=False,
            current_storage_gb=0,
            is_over_storage_quota=False,
            enforced=book.enforced,
            calls=_used(calls, plan.included_calls),
            is_over_calls_quota=plan.included_calls is not None and calls >= plan.included_calls,
            resets_at=next_month(today),
            publishers=rooms["publishers"],
            api_keys=rooms["api_keys"],
            members=rooms["members"],
        )
    )


def _plan(plan: plans.Plan) -> Plan:
    return Plan.model_validate({**plan.model_dump(), **ALIKE})


def _used(used: int, limit: int | None) -> Used:
    percent = None if limit is None else round(used * 100 / limit, 2) if limit else 100.0
    return Used(used=used, limit=limit, percent=percent)


def _shown(held: Held) -> OrganizationPlanResponse:
    following: Period | None = held.next_period
    next_plan_id = None if following is None else following.plan_id
    period = OrganizationPlan.model_validate({**asdict(held.period), "is_trial": False, "next_plan_id": next_plan_id})
    return OrganizationPlanResponse(data=OrganizationPlanWithDetails(organization_plan=period, plan=_plan(held.plan)))
