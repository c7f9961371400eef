"""Category `Agent Analytics`: what a publisher earns by calls, by day, and from whom. Bodies are bare.

Amounts are of the publisher's primary asset, as its ledger keeps it (USDC of every network is one purse); what it has
earned in others is in `other_assets`. Sums are kept by a job and complete to the last call (gateway/analytics).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment
from admin_api.kit.needs import needs
from admin_api.kit.problems import refusals
from gateway.analytics import endpoints, revenue
from gateway.analytics.endpoints import MOST
from gateway.analytics.endpoints import REVENUE as BY_ENDPOINT
from gateway.analytics.revenue import BY_DAY, TOP, WINDOW, Revenue, change, purses
from gateway.catalog.assets import Asset
from gateway.identity.permissions import Permission
from pricing.money import format_amount

router = APIRouter(
    prefix="/organizations/{organization_id}/publishers/{publisher_id}/analytics",
    tags=["Agent Analytics"],
    route_class=StrictRoute,
)
READER = needs(Permission.EARNINGS_READ)
EXTENSION: dict[str, Any] = {"x-extension": True}
Days = Annotated[int, Query(ge=1, le=365, description="How many UTC days, today is the last of them.")]


class AssetRevenue(Answer):
    """What was earned in another asset. Extension."""

    asset_id: UUID
    symbol: str
    revenue: str
    revenue_atomic: int
    calls: int


class RevenueMetrics(Answer):
    """A window of days beside the one before it. `*_change_pct`: whole percent; from nothing to anything is 100.

    `total_revenue` is the publisher's part, net of the platform's fee and of refunds. Extensions: `asset`, what agents
    paid for it (`gross_atomic`), the fee in that, and other assets.
    """

    total_revenue_atomic: int
    total_revenue: str
    total_queries: int
    active_agents: int
    avg_query_cost_atomic: Annotated[int, Field(description="What a call cost its caller, rounded down.")]
    revenue_change_pct: int
    queries_change_pct: int
    agents_change_pct: int
    period_start: str
    period_end: str
    asset: str
    gross_atomic: int
    fees_atomic: int
    other_assets: list[AssetRevenue]


class RevenueByDay(Answer):
    """The calls of one UTC day, days without calls too. A refund counts on the day of its call."""

    date: str
    revenue_atomic: int
    revenue: str
    query_count: int
    unique_agents: int


class TopAgent(Answer):
    """An agent by what it has spent here ever, refunds taken off. A payer on a chain is named by its address."""

    rank: int
    agent_wallet: str
    total_spent_atomic: int
    total_spent: str
    query_count: int
    balance_atomic: Annotated[int, Field(description="What it could spend here now; 0 of a payer on a chain.")]
    last_active: Moment | None = None


class Brought(Answer):
    """Calls that were paid and not given back, and what they have brought."""

    calls: int
    revenue: str
    revenue_atomic: int
    gross_atomic: int
    fees_atomic: int


class EndpointRevenue(Brought):
    """What one endpoint has brought: a documented path, a tool's name, or `query` of a database.

    Rows are those of a database's answers. Bytes and rows are of all calls, also of those that were given back.
    """

    method: str
    endpoint: str
    bytes_in: int
    bytes_out: int
    rows: int


class AssetEndpoints(Answer):
    """The endpoints that were called in one asset, by revenue.

    `others` is everything that is not listed: paths without a documented name, calls that have not ended yet, direct
    charges, and what is beyond `limit`. All of it together is the revenue of these days.
    """

    asset_id: UUID
    asset: str
    endpoints: list[EndpointRevenue]
    others: Brought


class RevenueByEndpoint(Answer):
    """A window of days, by endpoint; the primary asset first."""

    period_start: str
    period_end: str
    assets: list[AssetEndpoints]


@router.get(
    "/revenue",
    operation_id="get_revenue_metrics",
    dependencies=[READER],
    responses=refusals(400, 401, 403, 404),
)
async def get_revenue_metrics(
    organization_id: UUID, publisher_id: UUID, services: ServicesDep, days: Days = 30
) -> RevenueMetrics:
    """Return revenue, calls and agents of the last days, compared with as many days before."""
    last = datetime.now(UTC).date()
    first = last - timedelta(days=days - 1)
    async with services.database.transaction(isolation="repeatable_read", readonly=True) as connection:
        (main, *others) = await purses(connection, organization_id, publisher_id)
        now = await WINDOW.one(connection, main.account_id, first, last)
        before = await WINDOW.one(
            connection, main.account_id, first - timedelta(days=days), first - timedelta(days=1)
        )  # fmt: skip
        elsewhere = [
            (services.catalog.assets[purse.asset_id], await WINDOW.one(connection, purse.account_id, first, last))
            for purse in others
        ]
    asset = services.catalog.assets[main.asset_id]
    return RevenueMetrics(
        total_revenue_atomic=now.earned,
        total_revenue=_amount(now.earned, asset),
        total_queries=now.calls,
        active_agents=now.agents,
        avg_query_cost_atomic=now.spent // now.calls if now.calls else 0,
        revenue_change_pct=change(now.earned, before.earned),
        queries_change_pct=change(now.calls, before.calls),
        agents_change_pct=change(now.agents, before.agents),
        period_start=first.isoformat(),
        period_end=last.isoformat(),
        asset=asset.symbol,
        gross_atomic=now.spent,
        fees_atomic=now.fee,
        other_assets=[_elsewhere(other, found) for other, found in elsewhere],
    )


@router.get(
    "/revenue-by-day",
    operation_id="get_revenue_by_day",
    dependencies=[READER],
    responses=refusals(400, 401, 403, 404),
)
async def get_revenue_by_day(
    organization_id: UUID, publisher_id: UUID, services: ServicesDep, days: Days = 30
) -> list[RevenueByDay]:
    """Return one row for each of the last days, oldest first; days without calls have zeros."""
    last: date = datetime.now(UTC).date()
    async with services.database.transaction(isolation="repeatable_read", readonly=True) as connection:
        (main, *_) = await purses(connection, organization_id, publisher_id)
        found = await BY_DAY.all(connection, main.account_id, last - timedelta(days=days - 1), last)
    asset = services.catalog.assets[main.asset_id]
    return [
        RevenueByDay(
            date=one.day.isoformat(),
            revenue_atomic=one.earned,
            revenue=_amount(one.earned, asset),
            query_count=one.calls,
            unique_agents=one.agents,
        )
        for one in found
    ]


@router.get(
    "/top-agents",
    operation_id="get_top_agents",
    dependencies=[READER],
    responses=refusals(400, 401, 403, 404),
)
async def get_top_agents(
    organization_id: UUID,
    publisher_id: UUID,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> list[TopAgent]:
    """Return who has spent most here ever, in the primary asset; equal ones by the number of their wallet."""
    async with services.database.transaction(isolation="repeatable_read", readonly=True) as connection:
        (main, *_) = await purses(connection, organization_id, publisher_id)
        found = await TOP.all(connection, main.account_id, limit)
    asset = services.catalog.assets[main.asset_id]
    return [_ranked(rank, one, asset) for rank, one in enumerate(found, 1)]


@router.get(
    "/revenue-by-endpoint",
    operation_id="get_revenue_by_endpoint",
    dependencies=[READER],
    responses=refusals(400, 401, 403, 404),
    openapi_extra=EXTENSION,
)
async def get_revenue_by_endpoint(
    organization_id: UUID,
    publisher_id: UUID,
    services: ServicesDep,
    days: Days = 30,
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many endpoints are listed for each asset.")] = 100,
) -> RevenueByEndpoint:
    """Return what each endpoint has brought in the last days, and what was delivered of it. Extension."""
    last = datetime.now(UTC).date()
    first = last - timedelta(days=days - 1)
    async with services.database.transaction(isolation="repeatable_read", readonly=True) as connection:
        found = [
            _by_endpoint(
                services.catalog.assets[purse.asset_id],
                await BY_ENDPOINT.all(connection, purse.account_id, first, last, limit),
                await WINDOW.one(connection, purse.account_id, first, last),
            )
            for purse in await purses(connection, organization_id, publisher_id)
        ]
    return RevenueByEndpoint(period_start=first.isoformat(), period_end=last.isoformat(), assets=found)


def _by_endpoint(asset: Asset, found: list[endpoints.EndpointRevenue], total: Revenue) -> AssetEndpoints:
    """Return the endpoints of one asset, and the rest of its revenue."""
    calls = total.calls - sum(one.calls for one in found)
    spent = total.spent - sum(one.spent for one in found)
    fee = total.fee - sum(one.fee for one in found)
    return AssetEndpoints(
        asset_id=asset.id,
        asset=asset.symbol,
        endpoints=[
            EndpointRevenue(
                method=one.method,
                endpoint=one.endpoint,
                bytes_in=one.bytes_in,
                bytes_out=one.bytes_out,
                rows=one.rows,
                **_brought(one.calls, one.spent, one.fee, asset),
            )
            for one in found
        ],
        others=Brought(**_brought(calls, spent, fee, asset)),
    )


def _brought(calls: int, spent: int, fee: int, asset: Asset) -> dict[str, Any]:
    earned = spent - fee
    return {
        "calls": calls,
        "revenue": _amount(earned, asset),
        "revenue_atomic": earned,
        "gross_atomic": spent,
        "fees_atomic": fee,
    }


def _ranked(rank: int, agent: revenue.TopAgent, asset: Asset) -> TopAgent:
    return TopAgent(
        rank=rank,
        agent_wallet=agent.wallet,
        total_spent_atomic=agent.spent,
        total_spent=_amount(agent.spent, asset),
        query_count=agent.calls,
        balance_atomic=agent.balance,
        last_active=agent.last_at,
    )


def _elsewhere(asset: Asset, found: Revenue) -> AssetRevenue:
    return AssetRevenue(
        asset_id=asset.id,
        symbol=asset.symbol,
        revenue=_amount(found.earned, asset),
        revenue_atomic=found.earned,
        calls=found.calls,
    )


def _amount(atomic: int, asset: Asset) -> str:
    return format_amount(atomic, asset.decimals, places=2)
