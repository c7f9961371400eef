"""A publisher while it is being created or changed: merging a request into what is there, and the rules between fields.

Pure. The rules are asked of the merged whole, so that an update cannot leave a publisher that could not have been
created. What does not live here: storing (publishers.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from gateway.catalog import checks
from gateway.catalog.authentication import check_authentication
from gateway.catalog.endpoint_rules import check_endpoint_rules
from gateway.catalog.prices import percent
from gateway.catalog.refund_rules import check_refund_rules
from gateway.catalog.refusals import refused
from gateway.catalog.requests import PRICE_FIELDS, SECRET_FIELDS
from gateway.catalog.sales import is_postgres
from gateway.catalog.tools import SEEN
from gateway.catalog.user_oauth import BY_SLUG, check_user_oauth

COLUMNS = ("name", "description", "publisher_category", "wallet_address", "wallet_network_id", "is_active")
# Answered instead of null when unset, and what null in an update goes back to.
DOCUMENT_DEFAULTS: Mapping[str, Any] = {
    "publisher_type": "individual",
    "billing_model": "prepaid_credits",
    "auth_type": "static",
    "gateway_fee_percent": "0",
    "request_content_type": "application/json",
    "undocumented_endpoint_policy": "default_allow",
    "capabilities": [],
    "categories": [],
    "use_cases": [],
    "allowed_passthrough_headers": [],
    "upstream_headers": {},
    "requires_user_oauth": False,
    "ownership_tracking_enabled": False,
    "refund_on_status": [],
    "charge_on_status": [],
    "websocket_enabled": False,
}
NOT_DOCUMENT = frozenset(
    {
        *COLUMNS,
        *PRICE_FIELDS,
        *SECRET_FIELDS,
        "slug",
        "accepted_asset_ids",
        "add_asset_ids",
        "remove_asset_ids",
        BY_SLUG,
    }
)
URL_FIELDS = ("api_url", "mcp_endpoint", "token_exchange_url", "oauth2_token_url")
# What of a database configuration may be answered: names and places, nothing that opens a door.
PUBLIC_DATABASE_KEYS = frozenset(
    {"type", "provider", "host", "port", "database", "database_name", "schema", "schemas", "tables", "ssl", "sslmode",
     "region", "read_only", "pool_size", "collections", "columns", "tls", "sample"}
)  # fmt: skip


@dataclass(slots=True)
class Draft:
    """Columns, document and secrets of a publisher."""

    columns: dict[str, Any]
    document: dict[str, Any]
    secrets: dict[str, Any]

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Merge wire values; null clears what may be empty."""
        _check_wallet(self.columns, changes)
        before = _server(self.document)
        for name, value in changes.items():
            if name in COLUMNS:
                if value is not None or name == "description":
                    self.columns[name] = value
            elif name in SECRET_FIELDS:
                _put(self.secrets, name, value)
            elif name not in NOT_DOCUMENT:
                _put(self.document, name, value)
        if "database_config" in changes:
            _put(self.document, "database_config", public_config(changes["database_config"]))
        if self.document.get("gateway_fee_percent") is not None:
            self.document["gateway_fee_percent"] = percent(
                "gateway_fee_percent", str(self.document["gateway_fee_percent"])
            )
        _infer_kind(self.columns, self.document)
        if _server(self.document) != before:
            self.document.pop(SEEN, None)

    def value(self, name: str) -> Any:
        """Return a document field or its default."""
        return self.document.get(name, DOCUMENT_DEFAULTS.get(name))


def _server(document: Mapping[str, Any]) -> Any:
    """Return the MCP server that is sold, None for none: what was seen of one is not said of another."""
    return document.get("mcp_endpoint") if document.get("integration_type") == "mcp" else None


def _put(target: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        target.pop(name, None)
    else:
        target[name] = value


def _check_wallet(columns: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """A new address is worth nothing without the network it is on, nor a new network with the old address."""
    address, network = changes.get("wallet_address"), changes.get("wallet_network_id")
    if not columns:
        return
    if address is not None and address != columns["wallet_address"] and network is None:
        raise refused("wallet_network_id", "must come with a change of wallet_address")
    if network is not None and network != columns["wallet_network_id"] and address is None:
        raise refused("wallet_address", "must come with a change of wallet_network_id")


def _infer_kind(columns: Mapping[str, Any], document: dict[str, Any]) -> None:
    """Fill in what a request leaves to be understood: an integration with an api_url is an api."""
    category = columns["publisher_category"]
    if category == "integration" and "integration_type" not in document:
        document["integration_type"] = "mcp" if "mcp_endpoint" in document and "api_url" not in document else "api"


def check_whole(draft: Draft) -> None:
    """Raise InvalidRequest when fields contradict or miss each other."""
    document, secrets, columns = draft.document, draft.secrets, draft.columns
    try:
        columns["wallet_address"] = checks.wallet_address(columns["wallet_address"], columns["wallet_network_id"])
    except ValueError as error:
        raise refused("wallet_address", str(error)) from None
    match columns["publisher_category"]:
        case "integration":
            _check_integration(document)
        case _:
            _check_database(secrets)
    _check_credentials(draft)
    check_refund_rules(columns["publisher_category"], document)
    check_endpoint_rules(columns["publisher_category"], document)
    check_user_oauth(columns["publisher_category"], document, secrets)


def _check_integration(document: Mapping[str, Any]) -> None:
    kind = document["integration_type"]
    if kind == "api" and "api_url" not in document:
        raise refused("api_url", "is required for an integration of type api")
    if kind == "mcp" and "mcp_endpoint" not in document:
        raise refused("mcp_endpoint", "is required for an integration of type mcp")


def _check_database(secrets: Mapping[str, Any]) -> None:
    if not is_postgres("database", secrets.get("database_config")):
        raise refused(
            "database_config", 'is required for a database: a PostgreSQL, as {"connection_string": "postgresql://…"}'
        )


def _check_credentials(draft: Draft) -> None:
    document, secrets = draft.document, draft.secrets
    if "api_key_header" in document and "api_key_query_param" in document:
        raise refused("api_key_query_param", "cannot be combined with api_key_header: the key goes to one place")
    check_authentication(document, secrets)


def public_config(config: Any) -> Any:
    """Return the part of a database configuration that answers may show: an allow-list, so that nothing slips out."""
    if not isinstance(config, dict):
        return None
    shown = {
        name: value
        for name, value in cast("dict[str, Any]", config).items()
        if name in PUBLIC_DATABASE_KEYS and _is_harmless(value)
    }
    return shown or None


def _is_harmless(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) and _is_harmless(item) for item in cast("list[Any]", value))
    if isinstance(value, str):
        return "://" not in value and "@" not in value
    return value is None or isinstance(value, bool | int)
