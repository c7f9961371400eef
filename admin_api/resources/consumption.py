"""Category `billing`: what an organization has consumed in a window of days.

The contract counts computes and storage; there are none, so those are true zeros. What is used of publishers through
the gateway is in `gateway`, an extension.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.needs import needs
from admin_api.kit.problems import refusals
from admin_api.resources.consumption_models import (
    ConsumptionPeriodData,
    ConsumptionSummary,
    EndpointBillingEventsResponse,
    GatewayUsage,
    OrganizationConsumption,
    OrganizationConsumptionResponse,
    ProjectConsumption,
    ProjectConsumptionResponse,
    ProjectSales,
    SalesOf,
    SalesOn,
    Spend,
    UsageSummariesResponse,
    UsageSummary,
    UsedAt,
    UsedOf,
    UsedOn,
)
from gateway.analytics.endpoints import EndpointUse, sold_endpoints, used_endpoints
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
    async with services.database.transaction(isolation="repeatable_read", readonly=True) as connection:
        asked = connection, inside.project.id, days.first, days.last
        sales = _project_sales(await sold(*asked), await sold_endpoints(*asked), services)
    data = {"project_id": inside.project.id, "gateway": sales, **_computes(days)}
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
    async with services.database.transaction(isolation="repeatable_read", readonly=True) as connection:
        found = await used(connection, organization_id, days.first, days.last)
        endpoints = await used_endpoints(connection, organization_id, days.first, days.last)
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
        by_endpoint=_by_endpoint(endpoints, assets),
        by_day=[UsedOn(date=day.isoformat(), **_sums(uses, assets)) for day, uses in dates.items()],
    )


def _by_endpoint(found: list[EndpointUse], assets: Mapping[UUID, Asset]) -> list[UsedOf]:
    """Return one entry for each endpoint, in their order; one that was paid in two assets is one."""
    endpoints: dict[tuple[UUID, str, str], list[EndpointUse]] = {}
    for use in found:
        endpoints.setdefault((use.publisher_id, use.method, use.endpoint), []).append(use)
    return [
        UsedOf(
            publisher_id=publisher,
            publisher_slug=uses[0].slug,
            method=method,
            endpoint=endpoint,
            rows=sum(use.rows for use in uses),
            **_sums(uses, assets),
        )
        for (publisher, method, endpoint), uses in endpoints.items()
    ]


def _project_sales(found: list[Sold], endpoints: list[EndpointUse], services: Services) -> ProjectSales:
    publishers: dict[tuple[UUID, str], list[Sold]] = {}
    dates: dict[date, list[Sold]] = {}
    for one in found:
        publishers.setdefault((one.publisher_id, one.slug), []).append(one)
        dates.setdefault(one.day, []).append(one)

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
    on = [SalesOn(date=day.isoformat(), **sums(sales)) for day, sales in dates.items()]
    return ProjectSales(
        by_publisher=of, by_endpoint=_by_endpoint(endpoints, services.catalog.assets), by_day=on, **sums(found)
    )


def _sums(uses: Sequence[Use | EndpointUse], assets: Mapping[UUID, Asset]) -> dict[str, Any]:
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
