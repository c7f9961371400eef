"""Bodies of the publisher operations, named and shaped as the contract has them.

Checked here: every field alone. Not here: rules between fields (requirements.py), prices against an asset's decimals
(prices.py) and where URLs lead (urls.py). In an update an absent field stays as it is; null clears a field that may be
empty, and leaves one that may not.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field, StrictBool, StrictStr, field_validator

from gateway.catalog import checks
from gateway.catalog.fields import (
    Amount,
    AuthType,
    BaseUrl,
    BillingModel,
    ChargedStatuses,
    Claims,
    Connections,
    CostHeader,
    Count,
    Duration,
    Email,
    EndpointRefundRules,
    Exposure,
    Flag,
    HeaderName,
    Item,
    Items,
    JsonValue,
    JwtAlgorithm,
    KeyId,
    MediaType,
    MeteredAmount,
    Minutes,
    Passthrough,
    PathTemplate,
    PositiveMinutes,
    PriceTiers,
    PublicHeaders,
    QueryName,
    RefundRules,
    RefundStatuses,
    ResponsePath,
    Seconds,
    Secret,
    SecretHeaders,
    Settlement,
    SigningKey,
    Slug,
    Switch,
    Text,
    TierStyle,
    TokenMethod,
    TokenMode,
    Url,
    UsagePrices,
)
from gateway.catalog.vocabulary import (
    MAX_ASSETS,
    MAX_ENDPOINTS,
    ComputeType,
    DatabaseType,
    HttpMethod,
    IntegrationType,
    ParamType,
    PricingModel,
    PublisherCategory,
    PublisherType,
    UndocumentedEndpointPolicy,
)
from gateway.request_body import RequestBody

AssetIds = Annotated[list[UUID], Field(max_length=MAX_ASSETS)]


class QueryParamDefinition(RequestBody):
    """A documented query parameter of an endpoint."""

    name: QueryName
    param_type: ParamType = ParamType.STRING
    required: StrictBool = False
    description: Text | None = None
    example: Text | None = None


class EndpointFields(RequestBody):
    """What there is to say of an endpoint beside its method and path."""

    description: Text | None = None
    price: Amount | None = None
    is_default: StrictBool = False
    is_protected: StrictBool = False
    protection_reason: Item | None = None
    x402_settlement: Settlement | None = None
    refund_on_status: RefundStatuses | None = None
    refund_rules: EndpointRefundRules = None
    query_params: Annotated[list[QueryParamDefinition], Field(max_length=100)] | None = None
    required_headers: Annotated[list[HeaderName], Field(max_length=50)] | None = None
    request_body: JsonValue = None
    body_template: JsonValue = None
    response: JsonValue = None
    example_request: JsonValue = None
    example_response: JsonValue = None


class EndpointDefinition(EndpointFields):
    """One thing that the publisher sells: a method on a path, maybe at a price of its own, maybe protected."""

    method: HttpMethod
    path: PathTemplate


class UsageExample(RequestBody):
    """How to call the publisher, for people and agents to read."""

    title: Text | None = None
    description: Text | None = None
    curl: Text | None = None


Endpoints = Annotated[list[EndpointDefinition], Field(max_length=MAX_ENDPOINTS)]


class TokenExchange(RequestBody):
    """How the gateway trades the publisher's credential for a short-lived token of the upstream."""

    token_exchange_url: Url | None = None
    token_exchange_method: TokenMethod | None = None
    token_exchange_mode: TokenMode | None = None
    token_response_field: ResponsePath | None = None
    token_cache_ttl_seconds: Seconds | None = None


class CallPrices(RequestBody):
    """Prices that create, update and pricing share; decimal strings in units of the asset."""

    price_per_call: Amount | None = None
    price_per_get: Amount | None = None
    price_per_post: Amount | None = None
    price_per_put: Amount | None = None
    price_per_patch: Amount | None = None
    price_per_delete: Amount | None = None
    price_per_execution: Amount | None = None
    base_price_per_1000_rows: Amount | None = None
    hourly_rate: Amount | None = None
    markup_multiplier: Amount | None = None
    minimum_balance: Amount | None = None
    low_balance_threshold: Amount | None = None
    grace_period_minutes: Minutes | None = None


class DeliveryFields(RequestBody):
    """How calls are delivered (delivery.py). Extensions; null goes back to the operator's default."""

    connect_timeout_seconds: Duration | None = None
    first_byte_timeout_seconds: Duration | None = None
    idle_timeout_seconds: Duration | None = None
    total_timeout_seconds: Duration | None = None
    max_connections: Connections | None = None
    connect_retries: Connections | None = None
    refund_on_status: RefundStatuses | None = None
    charge_on_status: ChargedStatuses | None = None
    refund_rules: RefundRules = None
    websocket_enabled: Switch | None = None


class SettlementFields(RequestBody):
    """How payments on a chain are settled (settlement.py). Extensions; null goes back to the operator's default."""

    x402_settlement: Settlement | None = None
    x402_exposure: Exposure | None = None


class MeteringFields(RequestBody):
    """What calls cost whose price is known afterwards (metering.py). Extensions; null clears."""

    reserve_max_charge: MeteredAmount | None = None
    unresolved_fallback_charge: MeteredAmount | None = None
    upstream_cost_header: CostHeader | None = None
    upstream_usage_prices: UsagePrices = None
    price_per_mib: MeteredAmount | None = None


class TierFields(RequestBody):
    """What calls cost by how many the caller has made this month (tiers.py). Extensions; null clears."""

    price_tiers: PriceTiers = None
    tier_style: TierStyle | None = None


class PublisherFields(TokenExchange, CallPrices, DeliveryFields, SettlementFields, MeteringFields, TierFields):
    """What create and update share."""

    description: Text | None = None
    email: Email | None = None
    logo_url: Url | None = None
    capabilities: Items | None = None
    categories: Items | None = None
    use_cases: Items | None = None
    usage_examples: Annotated[list[UsageExample], Field(max_length=50)] | None = None
    resource_name: Item | None = None
    resource_description: Text | None = None
    integration_type: IntegrationType | None = None
    api_url: BaseUrl | None = None
    request_content_type: MediaType | None = None
    endpoints: Endpoints | None = None
    undocumented_endpoint_policy: UndocumentedEndpointPolicy | None = None
    allowed_passthrough_headers: Passthrough | None = None
    upstream_headers: PublicHeaders = None
    api_headers: SecretHeaders = None
    upstream_api_key: Secret | None = None
    api_key_header: HeaderName | None = None
    api_key_query_param: QueryName | None = None
    auth_type: AuthType | None = None
    jwt_access_key: Secret | None = None
    jwt_secret_key: SigningKey | None = None
    jwt_algorithm: JwtAlgorithm | None = None
    jwt_expiration_seconds: Seconds | None = None
    jwt_claims: Claims = None
    jwt_key_id: KeyId | None = None
    oauth2_client_id: Item | None = None
    oauth2_client_secret: Secret | None = None
    oauth2_scopes: Items | None = None
    oauth2_token_url: Url | None = None
    requires_user_oauth: Flag | None = None
    mcp_endpoint: Url | None = None
    compute_type: ComputeType | None = None
    database_type: DatabaseType | None = None
    database_name: Item | None = None
    database_config: JsonValue = None
    branch_id: UUID | None = None
    project_id: UUID | None = None
    billing_model: BillingModel | None = None
    gateway_fee_percent: Amount | None = None
    upstream_cost_response_path: ResponsePath | None = None
    ownership_tracking_enabled: Flag | None = None
    resource_id_response_path: ResponsePath | None = None
    resource_id_url_pattern: Item | None = None
    protected_operations: JsonValue = None

    @field_validator("endpoints")
    @classmethod
    def _each_once(cls, value: list[EndpointDefinition] | None) -> list[EndpointDefinition] | None:
        seen: set[tuple[str, str]] = set()
        for endpoint in value or []:
            place = (endpoint.method.value, checks.path_shape(endpoint.path))
            if place in seen:
                raise ValueError(f"describes {place[0]} {endpoint.path} twice")
            seen.add(place)
        if sum(endpoint.is_default for endpoint in value or []) > 1:
            raise ValueError("must mark at most one endpoint with is_default")
        return value


class CreatePublisherRequest(PublisherFields):
    """A new publisher."""

    name: Item
    slug: Slug
    publisher_category: PublisherCategory
    wallet_address: StrictStr
    wallet_network_id: StrictStr
    publisher_type: PublisherType | None = None
    oauth_provider_slug: Slug | None = None
    accepted_asset_ids: AssetIds | None = None


class UpdatePublisherRequest(PublisherFields):
    """Changes to a publisher. The slug cannot change: callers have it in their code."""

    name: Item | None = None
    publisher_category: PublisherCategory | None = None
    wallet_address: StrictStr | None = None
    wallet_network_id: StrictStr | None = None
    is_active: Flag | None = None
    oauth_provider_id: UUID | None = None
    add_asset_ids: AssetIds | None = None
    remove_asset_ids: AssetIds | None = None


class UpdatePricingRequest(CallPrices, TokenExchange, TierFields):
    """Changes to the prices in one asset. The token-exchange fields and the tiers are the publisher's, and hold in
    every asset; they may come along.
    """

    asset_id: UUID
    pricing_model: PricingModel | None = None
    min_charge: Amount | None = None
    max_charge: Amount | None = None
    min_display_price: Amount | None = None
    pricing_display_text: Text | None = None
    max_queries_per_minute: Count | None = None
    payment_expiry_minutes: PositiveMinutes | None = None
    onchain_enabled: Flag | None = None
    prepaid_enabled: Flag | None = None


PRICE_FIELDS = tuple(CallPrices.model_fields)
"""Fields of create and update that are stored per asset, in catalog.pricing."""

SECRET_FIELDS = (
    "api_headers",
    "upstream_api_key",
    "jwt_access_key",
    "jwt_secret_key",
    "oauth2_client_secret",
    "database_config",
)
"""Fields that are stored sealed and never answered."""
