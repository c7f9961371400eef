"""What answers show of a publisher: the owner's view and the store's, as the contract's PublisherResponse.

The store's view leaves out how the upstream is reached (URL, headers, where the key goes, databases): a buyer needs
none of it, and with it could go round the till. Secrets are in neither: this module never sees them.
"""

from __future__ import annotations

from typing import Any

from gateway.catalog.drafts import DOCUMENT_DEFAULTS
from gateway.catalog.prices import call_prices
from gateway.catalog.records import Publisher
from gateway.catalog.tools import SEEN, for_buyers

# Document fields that are answered under their own name, null when unset.
DOCUMENT_FIELDS = (
    "allowed_passthrough_headers", "api_key_header", "api_key_query_param", "api_url", "billing_model", "branch_id",
    "capabilities", "categories", "charge_on_status", "compute_type", "connect_retries",
    "connect_timeout_seconds", "database_config",
    "database_name",
    "database_type", "email", "endpoints", "first_byte_timeout_seconds", "gateway_fee_percent", "idle_timeout_seconds",
    "integration_type", "logo_url", "max_connections", "mcp_capabilities", "mcp_endpoint", "oauth_provider_id",
    "ownership_tracking_enabled", "price_per_mib", "price_tiers", "project_id", "protected_operations",
    "publisher_type",
    "refund_on_status", "refund_rules",
    "request_content_type", "requires_user_oauth", "reserve_max_charge", "resource_description",
    "resource_id_response_path",
    "resource_id_url_pattern", "resource_name", "tier_style", "token_cache_ttl_seconds", "token_exchange_method",
    "token_exchange_mode", "token_exchange_url", "token_response_field", "total_timeout_seconds",
    "undocumented_endpoint_policy", "unresolved_fallback_charge", "upstream_cost_header", "upstream_cost_response_path",
    "upstream_usage_prices", "upstream_headers", "usage_examples", "use_cases",
    "websocket_enabled", "x402_exposure", "x402_settlement",
)  # fmt: skip
OWNER_ONLY = (
    "api_key_header", "api_key_query_param", "api_url", "branch_id", "connect_retries", "database_config",
    "max_connections",
    "mcp_endpoint", "project_id", "token_cache_ttl_seconds", "token_exchange_method", "token_exchange_mode",
    "token_exchange_url", "token_response_field", "email",
)  # fmt: skip


def owner_view(publisher: Publisher, public_url: str) -> dict[str, Any]:
    """Return everything but secrets, for members of the owning organization."""
    record = publisher.record
    document = {name: record.document.get(name, DOCUMENT_DEFAULTS.get(name)) for name in DOCUMENT_FIELDS}
    if record.has_logo:
        document["logo_url"] = logo_url(public_url, record.slug)
    return {
        **document,
        "id": record.id,
        "slug": record.slug,
        "name": record.name,
        "description": record.description,
        "publisher_category": record.category,
        "wallet_address": record.wallet_address,
        "wallet_network_id": record.wallet_network_id,
        "is_active": record.is_active,
        "suspension": record.suspension,
        "is_verified": record.is_verified,
        "verification_expires_at": None,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "accepted_assets": [asset_view(asset) for asset in publisher.assets],
        "pricing": [row.wire(asset) for row, asset in zip(publisher.pricing, publisher.assets, strict=True)],
        "total_queries": publisher.usage.calls,
        "unique_agents_served": publisher.usage.agents,
    }


def store_view(publisher: Publisher, public_url: str) -> dict[str, Any]:
    """Return what buyers need."""
    shown = owner_view(publisher, public_url)
    document = publisher.record.document
    prices = call_prices(document, publisher.pricing)
    seen = for_buyers(document, sells_unpriced=prices is not None and prices.sells("POST"))
    kept = {"upstream_headers": {}, "suspension": None, SEEN: seen}
    return {**shown, **dict.fromkeys(OWNER_ONLY), **kept}


def asset_view(asset: Any) -> dict[str, Any]:
    """Return the contract's AssetInfo."""
    names = (
        "id", "network_id", "network_name", "symbol", "name", "decimals", "contract_address", "is_native",
        "is_stablecoin",
    )  # fmt: skip
    return {name: getattr(asset, name) for name in names}


def logo_url(public_url: str, slug: str) -> str:
    """Return where an uploaded logo is served."""
    return f"{public_url}/publishers/{slug}/logo"
