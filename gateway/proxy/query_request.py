"""A query as it is sent: `{"query", "params", "database"}` in strict JSON, and in which form its answer is wanted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, cast

from gateway.errors import EndpointNotOffered, InvalidRequest, MethodNotAllowed, PayloadTooLarge, UnsupportedMediaType
from gateway.proxy.body import request_body
from gateway.proxy.exchange import Exchange
from gateway.proxy.framing import CLOSE

MAX_BODY = 65_536
FIELDS = frozenset({"query", "params", "database"})

Form = Literal["json", "ndjson", "csv", "arrow"]
FORMS: dict[str, Form] = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "text/csv": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
}


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """A query with its parameters; numbers with a point are Decimals, so that none loses digits.

    `body` is what it was read from.
    """

    query: str
    params: list[Any]
    database: str | None
    form: Form
    body: bytes


def check_target(exchange: Exchange) -> None:
    """Raise unless the request is a POST to the publisher's root, which is where queries go."""
    if exchange.path not in (b"", b"/"):
        raise EndpointNotOffered(f"{exchange.slug} sells queries: POST them to /publishers/{exchange.slug}.")
    if exchange.method != "POST":
        raise MethodNotAllowed("Queries are sent by POST.", headers={"Allow": "POST"})


async def read_request(exchange: Exchange) -> QueryRequest:
    """Read the body. Raises InvalidRequest, PayloadTooLarge, UnsupportedMediaType, RequestTimeout or ClientGone."""
    kind = exchange.fields.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise UnsupportedMediaType("Send the query as application/json.", headers={"Accept": "application/json"})
    body = await _whole(exchange)
    document = _parsed(body)
    query, params, database = document.get("query"), document.get("params"), document.get("database")
    unknown = sorted(document.keys() - FIELDS)
    if unknown:
        raise InvalidRequest(f"The body has an unknown member {unknown[0][:60]!r}; it takes query, params, database.")
    if not isinstance(query, str):
        raise InvalidRequest("query must be a text: the SQL to run.")
    if params is not None and not isinstance(params, list):
        raise InvalidRequest("params must be an array, one value for each of $1, $2, …")
    if database is not None and not isinstance(database, str):
        raise InvalidRequest("database must be a text, or be left out.")
    return QueryRequest(query, cast("list[Any]", params or []), database, _form(exchange), body)


async def _whole(exchange: Exchange) -> bytes:
    body = await request_body(exchange)
    if body is None or isinstance(body, bytes):
        found = body or b""
        if len(found) > MAX_BODY:
            raise _too_large()
        return found
    parts = bytearray()
    async for piece in body:
        parts += piece
        if len(parts) > MAX_BODY:
            raise _too_large()
    return bytes(parts)


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(f"The body of a query may have {MAX_BODY} bytes.", headers=CLOSE)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(
            body.decode(), parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_each_once
        )
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not strict JSON in UTF-8 with each name once.") from None
    if not isinstance(document, dict):
        raise InvalidRequest('The body must be an object such as {"query": "SELECT 1"}.')
    return cast("dict[str, Any]", document)


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name occurs twice")
    return document


def _form(exchange: Exchange) -> Form:
    """Return the first listed type that we know; JSON when none is."""
    for name, value in exchange.scope["headers"]:
        if name == b"accept":
            for part in value.decode("latin-1").split(","):
                form = FORMS.get(part.partition(";")[0].strip().lower())
                if form is not None:
                    return form
    return "json"
