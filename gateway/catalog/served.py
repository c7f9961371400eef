"""Which publishers this gateway can serve: what it cannot is refused before anything is paid or sent.

A publisher may be stored whole, with a model that no code serves yet. Calling it at its call price would sell it for
another price than its own, maybe for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.catalog.metering import unmetered
from gateway.catalog.tiers import untiered

BILLING_MODELS = frozenset({"prepaid_credits", "x402_per_request"})
"""Those under which a price is the publisher's own: `pay_per_use` takes it from the answer, and sells no queries."""

PRICING_MODELS = {
    "prepaid_credits": frozenset({"per_request", "per_byte", "tiered"}),
    "x402_per_request": frozenset({"per_request", "per_byte", "tiered"}),
    "pay_per_use": frozenset({"per_request", "passthrough"}),
    "x402_passthrough": frozenset({"passthrough"}),
}

# What a publisher counts on and nobody does yet: a call without it would be another one than it sells.
NOT_YET = {
    "ownership_tracking_enabled": "tracks who owns what its calls make",
    "protected_operations": "protects operations by ownership",
}


def not_served(
    category: str, document: Mapping[str, Any], pricing: Sequence[Mapping[str, Any]], sale: Mapping[str, Any] | None
) -> str | None:
    """Return in words why the publisher cannot be called, or None.

    `pricing` has the primary asset's entry first; `sale` is what a database publisher was found to have on sale.
    """
    for field, reason in NOT_YET.items():
        if document.get(field):
            return reason
    if document.get("requires_user_oauth") and not document.get("oauth_provider_id"):
        return "needs OAuth connections of its callers, and names no provider"
    if sale is not None:
        return _database_not_served(document, pricing, sale)
    mcp = document.get("integration_type") == "mcp"
    if category != "integration" or not document.get("mcp_endpoint" if mcp else "api_url"):
        return "is neither an HTTP API nor an MCP server"
    billing = document.get("billing_model") or "prepaid_credits"
    if mcp:
        return _mcp_not_served(billing, pricing)
    if billing not in PRICING_MODELS:
        return f"has the billing model {billing}"
    if pricing and pricing[0]["model"] not in PRICING_MODELS[billing]:
        fitting = " or ".join(sorted(PRICING_MODELS[billing]))
        return f"has the pricing model {pricing[0]['model']}, and the billing model {billing} goes with {fitting}"
    row = pricing[0] if pricing else None
    return unmetered(document, row) or untiered(document, row)


def _mcp_not_served(billing: str, pricing: Sequence[Mapping[str, Any]]) -> str | None:
    if billing not in BILLING_MODELS:
        return f"has the billing model {billing}, by which tools are not sold"
    if pricing and pricing[0]["model"] != "per_request":
        return f"has the pricing model {pricing[0]['model']}, by which tools are not sold"
    return None


def _database_not_served(
    document: Mapping[str, Any], pricing: Sequence[Mapping[str, Any]], sale: Mapping[str, Any]
) -> str | None:
    billing = document.get("billing_model") or "prepaid_credits"
    if billing not in BILLING_MODELS:
        return f"has the billing model {billing}, by which queries are not sold"
    if pricing and pricing[0]["model"] != "per_row":
        return f"has the pricing model {pricing[0]['model']}, and queries are sold per_row"
    if any(finding["fatal"] for finding in sale["findings"]):
        return "has a database role that may do more than read what is on sale"
    return None if sale["tables"] else "has nothing on sale"
