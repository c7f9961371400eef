"""What `consumption` answers: computes' numbers as the contract has them, and what was used of publishers."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from admin_api.kit.envelope import Answer, Moment, PaginationMeta


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


class UsedOf(UsedAt):
    """The same of one endpoint: a documented path, a tool's name, or `query` of a database, whose rows are counted."""

    method: str
    endpoint: str
    rows: int


class GatewayUsage(Used):
    """What the organization's wallets have used of publishers. Extension.

    `by_endpoint` has the thousand most called; what has no documented name is in `by_publisher` only.
    """

    by_publisher: list[UsedAt]
    by_endpoint: list[UsedOf]
    by_day: list[UsedOn]


class Sales(Answer):
    """Calls that were paid and not given back, and what was paid for them."""

    calls: int
    spend: list[Spend]


class SalesOf(Sales):
    """The same of one publisher."""

    publisher_id: UUID
    publisher_slug: str


class SalesOn(Sales):
    """The same on one UTC day; days without calls are left out."""

    date: str


class ProjectSales(Sales):
    """What was used of the publishers that belong to a project, by everybody. Extension.

    `by_endpoint` has the thousand most called; what has no documented name is in `by_publisher` only.
    """

    by_publisher: list[SalesOf]
    by_endpoint: list[UsedOf]
    by_day: list[SalesOn]


class Consumption(Answer):
    """What computes and their storage have used in a window."""

    current_month: ConsumptionSummary
    since: Annotated[Moment, Field(alias="from")]
    until: Annotated[Moment, Field(alias="to", description="The first moment after the window.")]
    periods: list[ConsumptionPeriodData]


class ProjectConsumption(Consumption):
    """What a project has consumed."""

    project_id: UUID
    gateway: ProjectSales


class ProjectConsumptionResponse(Answer):
    """Envelope."""

    data: ProjectConsumption
    pagination: PaginationMeta | None = None


class OrganizationConsumption(Consumption):
    """What an organization has consumed."""

    organization_id: UUID
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
