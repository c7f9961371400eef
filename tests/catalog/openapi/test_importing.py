"""What a document becomes: endpoints as their owner could have written them, and reasons with a place for the rest."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import TypeAdapter

from gateway.catalog.openapi.importing import Imported, import_document
from gateway.catalog.openapi.merging import merge
from gateway.catalog.openapi.payment_info import Units
from gateway.catalog.openapi.refused import DocumentRefused
from gateway.catalog.openapi.schemas import SchemaWriter
from gateway.catalog.requests import Endpoints
from gateway.catalog.vocabulary import MAX_ENDPOINTS

BASE = "https://api.example.com/v1"
UNITS = Units(frozenset({"USD", "USDC"}), 6)
OK = {"200": {"description": "ok"}}
ENDPOINTS: TypeAdapter[Any] = TypeAdapter(Endpoints)


COMPONENTS: dict[str, Any] = {
    "parameters": {"Town": {"name": "town", "in": "path", "required": True, "schema": {"type": "string"}}},
    "schemas": {
        "Ask": {
            "type": "object",
            "required": ["days"],
            "properties": {"days": {"$ref": "#/components/schemas/Days"}},
        },
        "Days": {"type": "integer", "nullable": True, "minimum": 1, "exclusiveMinimum": True, "maximum": 9},
    },
}


def document(paths: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": paths, **more}


def imported(paths: dict[str, Any], base: str = BASE, **more: Any) -> Imported:
    found = import_document(document(paths, **more), base, UNITS)
    ENDPOINTS.validate_python(found.endpoints)
    return found


def one(operation: dict[str, Any], **more: Any) -> dict[str, Any]:
    (endpoint,) = imported({"/x": {"get": {"responses": OK, **operation}}}, **more).endpoints
    return endpoint


def test_an_operation_becomes_an_endpoint_with_all_that_it_says() -> None:
    item = {
        "parameters": [
            {"name": "unit", "in": "query", "schema": {"type": "string"}},
            {"$ref": "#/components/parameters/Town"},
        ],
        "post": {
            "summary": "Ask",
            "description": "Ask for\x07 a forecast.",
            "parameters": [
                {
                    "name": "unit",
                    "in": "query",
                    "required": True,
                    "schema": {"type": ["null", "integer"], "example": 3},
                },
                {"name": "X-Region", "in": "header", "required": True},
                {"name": "X-Trace", "in": "header"},
                {"name": "Authorization", "in": "header", "required": True},
            ],
            "requestBody": {
                "content": {
                    "text/plain": {"schema": {"type": "string"}},
                    "application/json": {"schema": {"$ref": "#/components/schemas/Ask"}, "example": {"days": 3}},
                }
            },
            "responses": {
                "404": {"description": "no"},
                "201": {
                    "description": "ok",
                    "content": {"application/json": {"schema": {"type": "object"}, "examples": {"a": {"value": [1]}}}},
                },
            },
            "x-payment-info": {"price": {"mode": "fixed", "currency": "USD", "amount": "0.05"}},
        },
    }
    found = imported({"/towns/{town-name}/forecast": item}, components=COMPONENTS)
    assert found.skipped == []
    days = {"type": ["integer", "null"], "exclusiveMinimum": 1, "maximum": 9}
    assert found.endpoints == [
        {
            "method": "POST",
            "path": "/towns/{town_name}/forecast",
            "description": "Ask\n\nAsk for  a forecast.",
            "price": "0.05",
            "query_params": [{"name": "unit", "param_type": "integer", "required": True, "example": "3"}],
            "required_headers": ["X-Region"],
            "request_body": {"type": "object", "required": ["days"], "properties": {"days": days}},
            "example_request": {"days": 3},
            "response": {"type": "object"},
            "example_response": [1],
        }
    ]


@pytest.mark.parametrize(
    ("info", "price"),
    [
        ({"price": {"mode": "fixed", "currency": "USD", "amount": "0.05"}, "protocols": [{"x402": {}}]}, "0.05"),
        ({"pricingMode": "fixed", "price": "0.05", "protocols": ["x402"]}, "0.05"),
        ({"price": "$1"}, "1"),
        ({"price": {"amount": "2.50", "currency": "USDC"}}, "2.50"),
        ({"price": {"mode": "free"}}, "0"),
        ({"price": {"amount": "0"}}, "0"),
    ],
)
def test_prices_are_read_in_both_spellings(info: dict[str, Any], price: str) -> None:
    assert one({"x-payment-info": info})["price"] == price


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"price": {"amount": 0.05}}, "write it in quotes"),
        ({"price": 1}, "write it in quotes"),
        ({"price": {"amount": "0.05", "currency": "EUR"}}, "currency"),
        ({"price": {"amount": "0.05", "currency": ["USD"]}}, "currency"),
        ({"pricingMode": "range", "minPrice": "1", "maxPrice": "2"}, "an endpoint has one price"),
        ({"price": {"mode": "dynamic", "amount": "1"}}, "an endpoint has one price"),
        ({"price": {"amount": "-1"}}, "no price that can be read"),
        ({"price": {"amount": "0.0000001"}}, "more than 6 digits"),
        ({"price": {"amount": "1e3"}}, "no price that can be read"),
        ({"price": {"amount": "٣"}}, "no price that can be read"),
        ({"price": True}, "write it in quotes"),
        ({}, "no price that can be read"),
        ("0.05", "must be an object"),
    ],
)
def test_a_price_that_cannot_be_read_refuses_the_document_with_its_place(info: Any, says: str) -> None:
    with pytest.raises(DocumentRefused) as refused:
        one({"x-payment-info": info})
    assert refused.value.place == "#/paths/~1x/get/x-payment-info"
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("servers", "base", "path"),
    [
        (None, BASE, "/items"),
        ([{"url": "/"}], BASE, "/items"),
        ([{"url": "https://api.example.com/v1/"}], BASE, "/items"),
        ([{"url": "https://api.example.com"}], BASE, None),
        ([{"url": "https://api.example.com/v1/shop"}], BASE, "/shop/items"),
        ([{"url": "https://staging.example.com/v9"}], BASE, "/items"),
        ([{"url": "https://{host}/v1", "variables": {"host": {"default": "api.example.com"}}}], BASE, "/items"),
        ([{"url": "https://api.example.com/v1"}], "https://api.example.com", "/v1/items"),
        ([{"url": "https://[bad"}, 7], BASE, "/items"),
    ],
)
def test_paths_are_below_the_publishers_own_base_url(servers: Any, base: str, path: str | None) -> None:
    found = imported({"/items": {"get": {"responses": OK}}}, base, **({} if servers is None else {"servers": servers}))
    assert [endpoint["path"] for endpoint in found.endpoints] == ([] if path is None else [path])
    assert [part.reason for part in found.skipped] == ([] if path else ["is outside of the publisher's api_url"])


@pytest.mark.parametrize(
    ("path", "item", "place", "reason"),
    [
        ("/x", {"head": {}}, "#/paths/~1x/head", "is sold with GET"),
        ("/x", {"trace": {}}, "#/paths/~1x/trace", "no price"),
        ("/x/{id}.json", {"get": {}}, "#/paths/~1x~1{id}.json", "whole-segment"),
        ("/x/../y", {"get": {}}, "#/paths/~1x~1..~1y", "plain segments"),
        ("/x/a b", {"get": {}}, "#/paths/~1x~1a b", "plain segments"),
        ("/x", {"get": {"servers": [{"url": "https://e.com"}]}}, "#/paths/~1x/get", "servers of its own"),
        ("/x", {"get": {}, "servers": [{"url": "https://e.com"}]}, "#/paths/~1x", "servers of its own"),
        (
            "/y",
            {"get": {"parameters": [{"in": "query", "name": "a b"}]}},
            "#/paths/~1y/get/parameters/0",
            "no query parameter",
        ),
    ],
)
def test_what_cannot_be_sold_is_skipped_and_told(path: str, item: dict[str, Any], place: str, reason: str) -> None:
    (skipped,) = imported({path: item}).skipped
    assert skipped.place == place
    assert reason in skipped.reason


def test_two_paths_for_the_same_calls_are_one_endpoint() -> None:
    found = imported({"/x/{a}": {"get": {}}, "/x/{b}": {"get": {}}})
    assert len(found.endpoints) == len(found.skipped) == 1


@pytest.mark.parametrize(
    ("root", "place", "says"),
    [
        ({"swagger": "2.0"}, "#/swagger", "convert it"),
        ({"openapi": "2.0"}, "#/openapi", "OpenAPI 3"),
        ({"openapi": 3.1}, "#/openapi", "in quotes"),
        ({}, "#/openapi", "OpenAPI 3"),
        ({"openapi": "3.0.3", "paths": []}, "#/paths", "object"),
        ({"openapi": "3.0.3", "paths": {"/x": 1}}, "#/paths/~1x", "object"),
        ({"openapi": "3.0.3", "paths": {"/x": {"get": "y"}}}, "#/paths/~1x/get", "object"),
        ({"openapi": "3.0.3", "paths": {"/x": {"$ref": "other.yaml#/x"}}}, "#/paths/~1x", "bundle it"),
        ({"openapi": "3.0.3", "paths": {"/x": {"$ref": "https://e.com/x"}}}, "#/paths/~1x", "bundle it"),
        ({"openapi": "3.0.3", "paths": {"/x": {"$ref": "#/nowhere"}}}, "#/paths/~1x", "not in the document"),
        ({"openapi": "3.0.3", "paths": {"/x": {"$ref": "#/paths/~1x"}}}, "#/paths/~1x", "circle"),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(root: dict[str, Any], place: str, says: str) -> None:
    with pytest.raises(DocumentRefused) as refused:
        import_document(root, BASE, UNITS)
    assert refused.value.place == place
    assert says in str(refused.value)


def test_there_are_not_more_endpoints_than_a_publisher_may_have() -> None:
    assert len(imported({f"/x{number}": {"get": {}} for number in range(MAX_ENDPOINTS)}).endpoints) == MAX_ENDPOINTS
    with pytest.raises(DocumentRefused, match=f"more than {MAX_ENDPOINTS}"):
        imported({f"/x{number}": {"get": {}} for number in range(MAX_ENDPOINTS + 1)})


def body_of(schemas: dict[str, Any]) -> Any:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}
    operation = {"requestBody": {"content": content}}
    return one(operation, components={"schemas": schemas}).get("request_body")


def test_recursive_schemas_end() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#/components/schemas/A"}}}
    written = body_of({"A": tree})
    assert written == {"type": "object", "properties": {"left": {"description": "As A above."}}}


def test_schemas_that_branch_endlessly_stay_small() -> None:
    wide = {
        chr(65 + level): {"properties": {str(n): {"$ref": f"#/components/schemas/{chr(66 + level)}"} for n in range(9)}}
        for level in range(20)
    }
    written = body_of(wide)
    assert written is None or len(str(written)) < 100_000


SCHEMA_WORDS = [
    "type", "properties", "items", "required", "enum", "$ref", "allOf", "anyOf", "minimum", "exclusiveMinimum",
    "minLength", "additionalProperties", "description", "const", "default", "prefixItems", "nullable", "format", "x",
]  # fmt: skip
DOCUMENT_WORDS = [
    "get", "post", "parameters", "name", "in", "query", "header", "schema", "content", "requestBody", "responses",
    "200", "x-payment-info", "price", "amount", "currency", "summary", "servers", "example", "examples", "value",
    "application/json", "required", "$ref", "type",
]  # fmt: skip


def json_values(words: list[str]) -> st.SearchStrategy[Any]:
    numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    scalars = st.none() | st.booleans() | numbers | st.text(max_size=6) | st.sampled_from(words)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(words), inner, max_size=5),
        max_leaves=25,
    )


@given(json_values(SCHEMA_WORDS))
def test_a_written_schema_is_valid_whatever_it_was_made_of(schema: Any) -> None:
    plain = SchemaWriter().plain(schema)
    paths = {"/x": {"get": {"responses": {"200": {"description": "", "content": {"a/b": {"schema": plain}}}}}}}
    assert [str(error) for error in OpenAPIV31SpecValidator(document(paths)).iter_errors()] == []


@given(json_values(DOCUMENT_WORDS))
def test_whatever_stands_below_a_path_is_imported_or_refused(item: Any) -> None:
    with contextlib.suppress(DocumentRefused):
        imported({"/x": item, "/y": {"get": item}})


def endpoint(path: str, method: str = "GET", **fields: Any) -> dict[str, Any]:
    return {"method": method, "path": path, **fields}


def test_an_import_keeps_what_its_owner_decided() -> None:
    existing = [
        endpoint("/a/{id}", price="1", is_protected=True, protection_reason="no", description="old"),
        endpoint("/b", price="2"),
        endpoint("/c", is_protected=True),
        endpoint("/d"),
    ]
    fresh = [endpoint("/a/{name}", description="new"), endpoint("/b", price="3"), endpoint("/e")]
    merged = merge(existing, fresh)
    assert merged.endpoints == [
        endpoint("/a/{name}", description="new", price="1", is_protected=True, protection_reason="no"),
        endpoint("/b", price="3"),
        endpoint("/c", is_protected=True),
        endpoint("/d"),
        endpoint("/e"),
    ]
    assert (merged.added, merged.changed, merged.removed) == (1, 2, 0)


def test_replacing_drops_what_is_not_described_but_nothing_protected() -> None:
    existing = [endpoint("/a"), endpoint("/b", is_protected=True), endpoint("/c")]
    merged = merge(existing, [endpoint("/a")], replace=True)
    assert merged.endpoints == [endpoint("/a"), endpoint("/b", is_protected=True)]
    assert (merged.added, merged.changed, merged.removed) == (0, 0, 1)


def test_a_second_import_of_the_same_changes_nothing() -> None:
    fresh = imported({"/x": {"get": {"summary": "s"}}, "/y/{a}": {"post": {}}}).endpoints
    once = merge([], fresh).endpoints
    again = merge(once, fresh)
    assert (again.endpoints, again.added, again.changed, again.removed) == (once, 0, 0, 0)


def test_existing_and_imported_endpoints_count_together() -> None:
    existing = [endpoint(f"/x{number}") for number in range(MAX_ENDPOINTS)]
    with pytest.raises(DocumentRefused, match="with those that are there"):
        merge(existing, [endpoint("/new")])
