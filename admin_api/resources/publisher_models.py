"""Answers of the publisher operations, named as in the contract. Requests: gateway/catalog/requests.py."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, StrictStr

from admin_api.kit.envelope import Answer, Moment, OffsetPaginationMeta, PaginationMeta, SuspensionTold
from gateway.catalog.fields import EXTENSION
from gateway.catalog.records import Publisher
from gateway.catalog.requests import EndpointDefinition, UsageExample
from gateway.catalog.vocabulary import (
    ComputeType,
    DatabaseType,
    IntegrationType,
    PricingModel,
    PublisherCategory,
    PublisherType,
    UndocumentedEndpointPolicy,
)
from gateway.payments.x402.offer import PaymentKinds
from gateway.request_body import RequestBody

# What the owner chose; null is the gateway's default (docs/publishers.md). Extensions to the contract.
ChosenSeconds = Annotated[float | None, EXTENSION]


class AssetInfo(Answer):
    """An asset that prices can be in."""

    id: UUID
    network_id: str
    network_name: str
    symbol: str
    name: str
    decimals: int
    contract_address: str | None
    is_native: bool
    is_stablecoin: bool


class OnchainAsset(Answer):
    """An asset in which a publisher's calls can be paid on its chain here and now, by a wallet without an account."""

    asset_id: UUID
    network_id: str
    asset_symbol: str
    contract_address: str | None


def payable(publisher: Publisher, kinds: PaymentKinds) -> list[OnchainAsset]:
    """Return the assets that a publisher takes of wallets on a chain, of those that this gateway can settle.

    None where calls are made in a user's name: a wallet alone is nobody's account.
    """
    document = publisher.record.document
    relays = document.get("billing_model") == "x402_passthrough"
    if publisher.record.category not in ("integration", "database") or relays or document.get("requires_user_oauth"):
        return []
    return [
        OnchainAsset(
            asset_id=asset.id,
            network_id=asset.network_id,
            asset_symbol=asset.symbol,
            contract_address=asset.contract_address,
        )
        for asset, price in zip(publisher.assets, publisher.pricing, strict=True)
        if price.onchain_enabled and kinds.find(asset.network_id, asset.symbol) is not None
    ]


class PricingConfigResponse(Answer):
    """Prices in one asset, as decimal strings of that asset."""

    asset_id: UUID
    asset_symbol: str | None
    pricing_model: PricingModel
    price_per_call: str | None
    price_per_get: str | None
    price_per_post: str | None
    price_per_put: str | None
    price_per_patch: str | None
    price_per_delete: str | None
    price_per_execution: str | None
    base_price_per_1000_rows: str
    hourly_rate: str | None
    markup_multiplier: str
    min_charge: str
    max_charge: str | None
    min_display_price: str | None
    pricing_display_text: str | None
    minimum_balance: str
    low_balance_threshold: str
    grace_period_minutes: int | None
    max_queries_per_minute: int | None
    payment_expiry_minutes: int
    onchain_enabled: bool
    prepaid_enabled: bool


class PricingConfigDataResponse(Answer):
    """Envelope."""

    data: PricingConfigResponse
    pagination: PaginationMeta | None = None


class SoldColumn(Answer):
    """A column; `type` is PostgreSQL's."""

    name: str
    type: str
    nullable: bool


class SoldTable(Answer):
    """A table or view on sale; `rows` is the server's estimate. `sample` shows a few rows where the owner allows it."""

    schema_: Annotated[str, Field(alias="schema")]
    name: str
    kind: str
    rows: int | None
    columns: list[SoldColumn]
    sample: list[Any]


class RoleFinding(Answer):
    """What the database role may do too much, and the SQL that puts it right. Fatal ones stop the sale."""

    problem: str
    fix: str
    fatal: bool


class DatabaseSchema(Answer):
    """What a database publisher has on sale, as of `checked_at`. `findings` is for its owner alone."""

    tables: list[SoldTable]
    checked_at: Moment
    findings: list[RoleFinding]


class PriceTier(Answer):
    """Calls up to number `up_to` of a month at a price each; the last tier has no end."""

    up_to: int | None = None
    price: str


class PublisherResponse(Answer):
    """A publisher, without credentials. Where the owner sees upstream details, the store's view has null."""

    id: UUID
    slug: str
    name: str
    description: str | None
    publisher_category: PublisherCategory
    publisher_type: PublisherType
    is_active: bool
    suspension: SuspensionTold | None
    is_verified: bool
    verification_expires_at: Moment | None
    created_at: Moment
    updated_at: Moment
    email: str | None
    logo_url: str | None
    capabilities: list[str]
    categories: list[str]
    use_cases: list[str]
    usage_examples: list[UsageExample] | None
    resource_name: str | None
    resource_description: str | None
    wallet_address: str
    wallet_network_id: str
    accepted_assets: list[AssetInfo] | None
    pricing: list[PricingConfigResponse] | None
    billing_model: str
    gateway_fee_percent: str
    integration_type: IntegrationType | None
    api_url: str | None
    request_content_type: str
    endpoints: list[EndpointDefinition] | None
    undocumented_endpoint_policy: UndocumentedEndpointPolicy
    allowed_passthrough_headers: list[str]
    upstream_headers: Any
    api_key_header: str | None
    api_key_query_param: str | None
    token_exchange_url: str | None
    token_exchange_method: str | None
    token_exchange_mode: str | None
    token_response_field: str | None
    token_cache_ttl_seconds: int | None
    upstream_cost_response_path: str | None
    requires_user_oauth: bool
    oauth_provider_id: UUID | None
    mcp_endpoint: str | None
    mcp_capabilities: Any
    compute_type: ComputeType | None
    database_type: DatabaseType | None
    database_name: str | None
    database_config: Any
    branch_id: UUID | None
    project_id: UUID | None
    ownership_tracking_enabled: bool
    resource_id_response_path: str | None
    resource_id_url_pattern: str | None
    protected_operations: Any
    connect_timeout_seconds: ChosenSeconds
    first_byte_timeout_seconds: ChosenSeconds
    idle_timeout_seconds: ChosenSeconds
    total_timeout_seconds: ChosenSeconds
    max_connections: Annotated[int | None, EXTENSION]
    connect_retries: Annotated[int | None, EXTENSION]
    refund_on_status: Annotated[list[str], EXTENSION]
    charge_on_status: Annotated[list[str], EXTENSION]
    refund_rules: Annotated[dict[str, Any] | None, EXTENSION]
    websocket_enabled: Annotated[bool, EXTENSION]
    ready: Annotated[bool, EXTENSION] = False
    not_ready: Annotated[str | None, EXTENSION] = None
    x402_accepts: Annotated[list[OnchainAsset] | None, EXTENSION] = None
    x402_settlement: Annotated[str | None, EXTENSION]
    x402_exposure: Annotated[str | None, EXTENSION]
    reserve_max_charge: Annotated[str | None, EXTENSION]
    unresolved_fallback_charge: Annotated[str | None, EXTENSION]
    upstream_cost_header: Annotated[str | None, EXTENSION]
    upstream_usage_prices: Annotated[dict[str, str] | None, EXTENSION]
    price_per_mib: Annotated[str | None, EXTENSION]
    price_tiers: Annotated[list[PriceTier] | None, EXTENSION]
    tier_style: Annotated[str | None, EXTENSION]
    database_schema: Annotated[DatabaseSchema | None, EXTENSION] = None
    total_queries: int
    unique_agents_served: int


class PublisherDataResponse(Answer):
    """Envelope."""

    data: PublisherResponse
    pagination: PaginationMeta | None = None


class PublishersDataResponse(Answer):
    """Envelope."""

    data: list[PublisherResponse]
    pagination: PaginationMeta | None = None


class PaginatedPublishersResponse(Answer):
    """A page of the store."""

    data: list[PublisherResponse]
    pagination: OffsetPaginationMeta


class PricingSummary(Answer):
    """The price at a glance."""

    base_price_per_1000_rows: str | None
    price_per_call: str | None


class PublisherSuggestion(Answer):
    """A publisher that suits a task; score from 0 to 1."""

    slug: str
    name: str
    description: str | None
    capabilities: list[str]
    pricing: PricingSummary | None
    score: float
    match_reason: str


class SuggestResponse(Answer):
    """Suggestions. Agents are not suggested yet, so their list is empty."""

    publishers: list[PublisherSuggestion]
    agents: list[Any]


class SuggestDataResponse(Answer):
    """Envelope."""

    data: SuggestResponse
    pagination: PaginationMeta | None = None


class EstimateRequestBody(RequestBody):
    """What a query would cost at a publisher."""

    publisher_id: UUID
    query: StrictStr
    asset_id: UUID | None = None
    params: Annotated[list[Any] | None, EXTENSION] = None


class EstimateResponse(Answer):
    """An expected cost."""

    publisher_slug: str
    publisher_name: str
    asset_symbol: str
    estimated_rows: int
    estimated_cost: str
    estimated_cost_atomic: int


class DatabaseQueryRequest(BaseModel):
    """A query for a database publisher."""

    query: str
    database: str | None = None
    params: list[Any] = []


class PublisherEarningsResponse(Answer):
    """What a publisher has earned in one asset, net of the gateway's fee and of refunds.

    `available` can be paid out now. What is younger than the holdback, or of a call in flight, is `held_back_atomic`,
    the first of it until `frees_at`, the last until `all_free_at`. `deficit_atomic` was refunded after it had been paid
    out. Of what is not held back, promotional credit (bonuses, claims, rewards) has paid `promotional_atomic`; of that
    only `promotional_payable_atomic`, within the operator's bound, is a part of `available`.
    """

    publisher_id: UUID
    publisher_slug: str
    publisher_name: str
    asset: AssetInfo
    wallet_address: str
    total_revenue: float
    total_revenue_atomic: int
    available: float
    available_atomic: int
    pending_payout: float
    pending_payout_atomic: int
    total_withdrawn: float
    total_withdrawn_atomic: int
    request_count: int
    held_back_atomic: Annotated[int, EXTENSION]
    deficit_atomic: Annotated[int, EXTENSION]
    promotional_atomic: Annotated[int, EXTENSION]
    promotional_payable_atomic: Annotated[int, EXTENSION]
    frees_at: Annotated[Moment | None, EXTENSION]
    all_free_at: Annotated[Moment | None, EXTENSION]


class PublisherEarningsDataResponse(Answer):
    """Envelope."""

    data: list[PublisherEarningsResponse]
    pagination: PaginationMeta | None = None


class PayoutStatus(StrEnum):
    """Where a payout stands."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class LogoUploadResponse(Answer):
    """Where the logo is now."""

    logo_url: str
    message: str


class LogoUploadDataResponse(Answer):
    """Envelope."""

    data: LogoUploadResponse
    pagination: PaginationMeta | None = None
