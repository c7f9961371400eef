"""Category `billing`: what an organization has consumed in a window of days.

The contract counts computes and storage; there are none, so those are true zeros. What is used of publishers through
the gateway is in `gateway`, an extension.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta
from admin_api.kit.needs import needs
from admin_api.kit.problems import refusals
from gateway.analytics.usage import PROJECTS, Sold, Use, sold, used
from gateway.catalog.assets import Asset
from gateway.catalog.refusals import refused
from gateway.errors import NotFound
from gateway.identity.permissions import Permission
from gateway.projects.access import InProject
from gateway.services import Services
from pricing.money import format_amount

router = APIRouter(tags=["billing"], route_class=StrictRoute)
READER = needs(Permission.BILLING_READ)
MOST_DAYS = 366
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Window:
    """UTC days, both included."""

    first: date
    last: date

    @property
    def since(self) -> datetime:
        """Return the first moment."""
        return datetime(self.first.year, self.first.month, self.first.day, tzinfo=UTC)

    @property
    def until(self) -> datetime:
        """Return the first moment that is not in it any more."""
        return datetime(self.last.year, self.last.month, self.last.day, tzinfo=UTC) + timedelta(days=1)

    def months(self) -> list[str]:
        """Return the months that it touches, as YYYY-MM."""
        days = range((self.last - self.first).days + 1)
        return list(dict.fromkeys(f"{self.first + timedelta(days=number):%Y-%m}" for number in days))


def window(start: str | None, end: str | None, names: tuple[str, str] = ("start_date", "end_date")) -> Window:
    """Return the days that two parameters of these names say. Raises InvalidRequest."""
    today = datetime.now(UTC).date()
    last = _day(names[1], end) or today
    first = _day(names[0], start) or min(last, today).replace(day=1)
    if first > last:
        raise refused(names[0], f"is after the end of the window, {last.isoformat()}")
    if (last - first).days >= MOST_DAYS:
        raise refused(names[0], f"makes a window of more than {MOST_DAYS} days; ask for shorter ones")
    return Window(first, last)


def _asked(
    start_date: Annotated[str | None, Query(description="YYYY-MM-DD in UTC; the first of this month.")] = None,
    end_date: Annotated[str | None, Query(description="YYYY-MM-DD in UTC, included; today.")] = None,
) -> Window:
    return window(start_date, end_date)


DateWindow = Annotated[Window, Depends(_asked)]


class ConsumptionSummary(Answer):
    """What computes and their storage have used: zeros, as there are none."""

    active_time_seconds: float = 0.0
    compute_time_seconds: float = 0.0
    data_transfer_bytes: int = 0
    synthetic_storage_size_bytes: int = 0
    written_data_bytes: int = 0


class ConsumptionPeriodData(ConsumptionSummary):
    """The same of the part of a month that lies in the window; `period_id` is YYYY-MM."""

    period_id: str


class Spend(Answer):
    """Money in one asset, refunds taken off."""

    asset_id: UUID
    symbol: str
    spent: str
    spent_atomic: int


class Used(Answer):
    """Calls that were paid and not given back; bytes of all calls, as sent to publishers and as delivered."""

    calls: int
    bytes_in: int
    bytes_out: int
    spend: list[Spend]


class UsedAt(Used):
    """The same at one publisher."""

    publisher_id: UUID
    publisher_slug: str


class UsedOn(Used):
    """The same on one UTC day; days without use are left out."""

    date: str


class GatewayUsage(Used):
    """What the organization's wallets have used of publishers. Extension."""

    by_publisher: list[UsedAt]
    by_day: list[UsedOn]


class Sales(Answer):
    """Calls that were paid and not given back, and what was paid for them."""

    calls: int
    spend: list[Spend]


class SalesOf(Sales):
    """The same of one publisher."""

    publisher_id: UUID
    publisher_slug: str


class ProjectSales(Sales):
    """What was used of the publishers that belong to a project, by everybody. Extension."""

    by_publisher: list[SalesOf]


class ProjectConsumption(Answer):
    """What a project has consumed."""

    project_id: UUID
    current_month: ConsumptionSummary
    since: Annotated[Moment, Field(alias="from")]
    until: Annotated[Moment, Field(alias="to", description="The first moment after the window.")]
    periods: list[ConsumptionPeriodData]
    gateway: ProjectSales


class ProjectConsumptionResponse(Answer):
    """Envelope."""

    data: ProjectConsumption
    pagination: PaginationMeta | None = None


class OrganizationConsumption(Answer):
    """What an organization has consumed."""

    organization_id: UUID
    current_month: ConsumptionSummary
    since: Annotated[Moment, Field(alias="from")]
    until: Annotated[Moment, Field(alias="to", description="The first moment after the window.")]
    periods: list[ConsumptionPeriodData]
    gateway: GatewayUsage


class OrganizationConsumptionResponse(Answer):
    """Envelope."""

    data: OrganizationConsumption
    pagination: PaginationMeta | None = None


class UsageSummary(Answer):
    """What a project has used in a period."""

    organization_id: UUID
    project_id: UUID
    project_name: str
    project_region: str
    period_start: str
    period_end: str
    compute_hours_small: float
    compute_hours_medium: float
    compute_hours_large: float
    compute_hours_xlarge: float
    storage_gb_avg: float
    pitr_gb_avg: float
    compute_cost_usd: float
    storage_cost_usd: float
    total_cost_usd: float


class UsageSummariesResponse(Answer):
    """Envelope, with what was used of publishers in `gateway`, an extension."""

    data: list[UsageSummary]
    pagination: PaginationMeta | None = None
    gateway: GatewayUsage


class ComputeUsageEventDebugRecord(Answer):
    """What happened to a compute."""

    event_time: str
    event_type: str


class UsageEventDebugRecord(Answer):
    """Something that is billed of an endpoint."""

    event_timestamp: str
    event_type: str
    metadata: str
    quantity: float
    unit: str


class EndpointBillingEvents(Answer):
    """What a compute's bill is made of."""

    organization_id: str
    endpoint_id: str
    compute_usage_events: list[ComputeUsageEventDebugRecord]
    usage_events: list[UsageEventDebugRecord]


class EndpointBillingEventsResponse(Answer):
    """Envelope."""

    data: EndpointBillingEvents
    pagination: PaginationMeta | None = None


@router.get(
    "/projects/{project_id}/consumption",
    operation_id="get_project_consumption",
    responses=refusals(400, 401, 403, 404),
)
async def get_project_consumption(
    inside: Annotated[InProject, needs(Permission.PROJECTS_READ, project=True)],
    services: ServicesDep,
    days: DateWindow,
) -> ProjectConsumptionResponse:
    """Return what a project has consumed, by default since the first of this month. It has no computes yet."""
    async with services.database.acquire() as connection:
        found = await sold(connection, inside.project.id, days.first, days.last)
    data = {"project_id": inside.project.id, "gateway": _project_sales(found, services), **_computes(days)}
    return ProjectConsumptionResponse(data=ProjectConsumption.model_validate(data))


@router.get(
    "/organizations/{organization_id}/consumption",
    operation_id="get_organization_consumption",
    dependencies=[READER],
    responses=refusals(400, 401, 403, 404),
)
async def get_organization_consumption(
    organization_id: UUID, services: ServicesDep, days: DateWindow
) -> OrganizationConsumptionResponse:
    """Return what the organization has consumed, by default since the first of this month."""
    return OrganizationConsumptionResponse(
        data=OrganizationConsumption.model_validate(
            {
                "organization_id": organization_id,
                "gateway": await _gateway(services, organization_id, days),
                **_computes(days),
            }
        )
    )


@router.get(
    "/billing/usage/{organization_id}",
    operation_id="get_usage_summary",
    dependencies=[READER],
    responses=refusals(400, 401, 403, 404),
)
async def get_usage_summary(organization_id: UUID, services: ServicesDep, days: DateWindow) -> UsageSummariesResponse:
    """Return what the computes of each project have used: nothing, as there are none. `gateway` has the calls."""
    async with services.database.acquire() as connection:
        projects = await PROJECTS.all(connection, organization_id)
    nothing = {
        name: 0 for name in UsageSummary.model_fields if name.startswith(("compute", "storage", "pitr", "total"))
    }
    rows = [
        UsageSummary.model_validate(
            {
                "organization_id": organization_id,
                "project_id": project.id,
                "project_name": project.name,
                "project_region": project.region,
                "period_start": days.first.isoformat(),
                "period_end": days.last.isoformat(),
                **nothing,
            }
        )
        for project in projects
    ]
    return UsageSummariesResponse(data=rows, gateway=await _gateway(services, organization_id, days))


@router.get(
    "/organizations/{organization_id}/billing/endpoints/{endpoint_id}/events",
    operation_id="get_endpoint_billing_events",
    dependencies=[READER],
    responses=refusals(400, 401, 403, 404),
)
async def get_endpoint_billing_events(organization_id: UUID, endpoint_id: UUID) -> EndpointBillingEventsResponse:
    """Return what the bill of a compute's endpoint is made of. There are no computes yet, so every id is unknown."""
    raise NotFound("This organization has no endpoint with this id.")


def _day(name: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        # The last day of the calendar has no moment after it, where a window could end.
        if _DAY.fullmatch(text) and (day := date.fromisoformat(text)) < date.max:
            return day
    except ValueError:
        pass
    raise refused(name, "must be a day as YYYY-MM-DD, such as 2026-01-31")


def _computes(days: Window) -> dict[str, Any]:
    return {
        "current_month": ConsumptionSummary(),
        "from": days.since,
        "to": days.until,
        "periods": [ConsumptionPeriodData(period_id=month) for month in days.months()],
    }


async def _gateway(services: Services, organization_id: UUID, days: Window) -> GatewayUsage:
    async with services.database.acquire() as connection:
        found = await used(connection, organization_id, days.first, days.last)
    assets = services.catalog.assets
    publishers: dict[tuple[UUID, str], list[Use]] = {}
    dates: dict[date, list[Use]] = {}
    for use in found:
        publishers.setdefault((use.publisher_id, use.slug), []).append(use)
        dates.setdefault(use.day, []).append(use)
    return GatewayUsage(
        **_sums(found, assets),
        by_publisher=[
            UsedAt(publisher_id=publisher, publisher_slug=slug, **_sums(uses, assets))
            for (publisher, slug), uses in publishers.items()
        ],
        by_day=[UsedOn(date=day.isoformat(), **_sums(uses, assets)) for day, uses in dates.items()],
    )


def _project_sales(found: list[Sold], services: Services) -> ProjectSales:
    publishers: dict[tuple[UUID, str], list[Sold]] = {}
    for one in found:
        publishers.setdefault((one.publisher_id, one.slug), []).append(one)

    def sums(sales: list[Sold]) -> dict[str, Any]:
        spent: dict[UUID, int] = {}
        for one in sales:
            spent[one.asset_id] = spent.get(one.asset_id, 0) + one.spent
        spend = [_spend(services.catalog.assets[asset_id], amount) for asset_id, amount in spent.items()]
        return {"calls": sum(one.calls for one in sales), "spend": spend}

    of = [
        SalesOf(publisher_id=publisher, publisher_slug=slug, **sums(sales))
        for (publisher, slug), sales in publishers.items()
    ]
    return ProjectSales(by_publisher=of, **sums(found))


def _sums(uses: list[Use], assets: Mapping[UUID, Asset]) -> dict[str, Any]:
    spent: dict[UUID, int] = {}
    for use in uses:
        spent[use.asset_id] = spent.get(use.asset_id, 0) + use.spent
    return {
        "calls": sum(use.calls for use in uses),
        "bytes_in": sum(use.bytes_in for use in uses),
        "bytes_out": sum(use.bytes_out for use in uses),
        "spend": [_spend(assets[asset_id], amount) for asset_id, amount in spent.items()],
    }


def _spend(asset: Asset, amount: int) -> Spend:
    text = format_amount(amount, asset.decimals, places=2)
    return Spend(asset_id=asset.id, symbol=asset.symbol, spent=text, spent_atomic=amount)
