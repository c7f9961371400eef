"""The OpenAPI 3.1 document of what a publisher has on sale, with x-payment-info: for whoever makes clients of it. Pure.

Whatever a publisher has stored, the document is valid: schemas go through the plain form (catalog/openapi/schemas.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from admin_api.store import facts
from admin_api.store.clean import clean, line
from gateway.catalog.openapi.payment_info import FIELD, fixed, metered
from gateway.catalog.openapi.schemas import SchemaWriter
from gateway.catalog.records import Publisher
from gateway.catalog.refund_rules import FIELD as RULES
from gateway.catalog.refund_rules import free_when

QUERY = {
    "type": "object",
    "required": ["query"],
    "properties": {
        "query": {"type": "string", "description": "One SELECT."},
        "params": {"type": "array", "description": "Values of $1, $2, …"},
    },
}
_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def document(publisher: Publisher, public_url: str, *, onchain: bool) -> dict[str, Any]:
    """Return the document. `onchain` says whether a wallet without an account can pay."""
    record = publisher.record
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": line(record.name),
            "description": clean(record.description, 10_000),
            "version": record.updated_at.isoformat(),
        },
        "servers": [{"url": f"{public_url}/publishers/{record.slug}"}],
        "paths": {},
        "components": {"securitySchemes": {"api_key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"api_key": []}, {}] if onchain else [{"api_key": []}],
    }
    free = free_when(record.document)
    if free is not None:
        made["info"]["description"] = "\n\n".join(part for part in (made["info"]["description"], clean(free)) if part)
        made["info"]["x-refund-rules"] = record.document[RULES]
    protocols: list[Mapping[str, Any]] = [{"x402": {}}, {"prepaid": {}}] if onchain else [{"prepaid": {}}]
    if record.category == "database":
        price = _payment(facts.tag(publisher, "POST"), protocols)
        made["paths"]["/"] = {"post": _query_operation() | price}
    names: dict[str, str] = {}
    for number, endpoint in enumerate(facts.sold(publisher)):
        # Templates that differ in their variables' names only are one path to OpenAPI.
        path = names.setdefault(_VARIABLE.sub("{}", endpoint["path"]), endpoint["path"])
        operation = _operation({**endpoint, "path": path}, number)
        operation |= _payment(facts.tag(publisher, endpoint["method"], endpoint), protocols)
        operation |= {"x-refund-rules": endpoint[RULES]} if endpoint.get(RULES) is not None else {}
        made["paths"].setdefault(path, {})[endpoint["method"].lower()] = operation
    return made


def _payment(tag: facts.PriceTag, protocols: list[Mapping[str, Any]]) -> dict[str, Any]:
    currency = "USD" if tag.symbol == "USDC" else tag.symbol
    if tag.kind == "fixed" and tag.amount is not None:
        return {FIELD: fixed(tag.amount, currency, protocols)}
    if tag.kind == "tiered":
        return {FIELD: metered(tag.amount or "0", tag.most, currency, protocols)}
    if tag.kind in ("metered", "rows", "foreign"):
        return {FIELD: metered("0", tag.most, currency, protocols)}
    return {FIELD: {"price": {"mode": "free"}, "protocols": []}} if tag.kind == "free" else {}


def _operation(endpoint: Mapping[str, Any], number: int) -> dict[str, Any]:
    words = re.sub(r"[^A-Za-z0-9]+", "_", endpoint["path"]).strip("_")
    operation: dict[str, Any] = {
        "operationId": f"{endpoint['method'].lower()}_{words[:80]}_{number}",
        "description": "\n\n".join(
            part for part in (clean(endpoint.get("description"), 10_000), clean(free_when(endpoint) or "")) if part
        ),
        "parameters": _parameters(endpoint),
        "responses": {
            "200": {"description": "The publisher's answer.", **_content(endpoint, "response", "example_response")},
            "402": {"description": "The call has a price; the answer says how to pay."},
        },
    }
    shown = {**endpoint, "example_request": facts.example_body(endpoint)}
    body = _content(shown, "request_body", "example_request")
    if body:
        operation["requestBody"] = body
    return operation


def _parameters(endpoint: Mapping[str, Any]) -> list[dict[str, Any]]:
    query: list[dict[str, Any]] = endpoint.get("query_params") or []
    headers: list[str] = endpoint.get("required_headers") or []
    named = {("path", name): _text_parameter(name, "path") for name in _VARIABLE.findall(endpoint["path"])}
    named |= {("query", one["name"]): _query_parameter(one) for one in query}
    named |= {("header", name.lower()): _text_parameter(name, "header") for name in headers}
    return list(named.values())


def _text_parameter(name: str, place: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": True, "schema": {"type": "string"}}


def _query_parameter(parameter: Mapping[str, Any]) -> dict[str, Any]:
    kind = parameter.get("param_type") or "string"
    shown: dict[str, Any] = {
        "name": parameter["name"],
        "in": "query",
        "required": bool(parameter.get("required")),
        "schema": {"type": kind, "items": {}} if kind == "array" else {"type": kind},
    }
    if parameter.get("description"):
        shown["description"] = clean(parameter["description"])
    if parameter.get("example"):
        shown["example"] = clean(parameter["example"])
    return shown


def _content(endpoint: Mapping[str, Any], schema: str, example: str) -> dict[str, Any]:
    media: dict[str, Any] = {}
    if endpoint.get(schema) is not None:
        media["schema"] = SchemaWriter().plain(endpoint[schema])
    if endpoint.get(example) is not None:
        media["example"] = endpoint[example]
    return {"content": {"application/json": media}} if media else {}


def _query_operation() -> dict[str, Any]:
    return {
        "operationId": "query",
        "description": "Run one read-only query; the price is that of the rows and bytes that it answers.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": QUERY}}},
        "responses": {
            "200": {"description": "The rows."},
            "402": {"description": "The query has a price; the answer says how to pay."},
        },
    }
