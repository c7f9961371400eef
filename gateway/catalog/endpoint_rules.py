"""Rules of single endpoints that a publisher's kind cannot keep: refused, so that nobody relies on them. Pure.

Calls of an HTTP API are matched by method and path. Calls of a tool are matched as `POST /<tool>`; their answers have
no status, and no header or query parameter is demanded of them. Queries are not matched at all. What does not live
here: `refund_rules` (refund_rules.py), and prices in single assets (prices.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from gateway.catalog.refusals import refused

Definition = Mapping[str, Any]

DATABASE = (
    "has no effect on a database: a query names no endpoint. What is sold is what the role of database_config may"
    " read, at base_price_per_1000_rows; take a right away from the role to protect a table"
)
TOOLS_ARE_POSTS = "has no effect on an MCP server unless the endpoint is POST /<tool>: calls of tools are matched so"
NO_EFFECT_ON_TOOLS: Mapping[str, str] = {
    "refund_on_status": "has no effect on tools: their answers have no status, and failed calls cost nothing",
    "required_headers": "has no effect on tools: their input schema says what a call must bring",
    "query_params": "has no effect on tools, if required: their input schema says what a call must bring",
}


def check_endpoint_rules(category: str, document: Mapping[str, Any]) -> None:
    """Raise InvalidRequest naming the first endpoint rule that calls of such a publisher would not follow."""
    is_database = category != "integration"
    if not is_database and document.get("integration_type") == "api":
        return
    if is_database and document.get("undocumented_endpoint_policy") == "default_deny":
        raise refused("undocumented_endpoint_policy", DATABASE)
    for place, endpoint in enumerate(cast("list[Definition]", document.get("endpoints") or [])):
        for name in _rules_of(endpoint):
            words = DATABASE if is_database else _why_not_for_tools(endpoint, name)
            if words is not None:
                raise refused(f"endpoints.{place}.{name}", words)


def _rules_of(endpoint: Definition) -> Iterator[str]:
    """Yield the names of the fields by which an endpoint is sold otherwise than its publisher's other calls."""
    for name in ("price", "x402_settlement", "refund_on_status"):
        if endpoint.get(name) is not None:
            yield name
    for name in ("is_protected", "required_headers"):
        if endpoint.get(name):
            yield name
    if any(parameter.get("required") for parameter in cast("list[Definition]", endpoint.get("query_params") or [])):
        yield "query_params"


def _why_not_for_tools(endpoint: Definition, name: str) -> str | None:
    if endpoint["method"] != "POST":
        return TOOLS_ARE_POSTS
    return NO_EFFECT_ON_TOOLS.get(name)
