"""Automatic refunds that an owner promises (pricing/refund_rules.py): the field of requests, and compiled. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson

from gateway.catalog.checks import RESPONSE_PATH
from gateway.catalog.refusals import refused
from pricing.refund_rules import MOST_BYTES, WHOLE, WHOLE_SECONDS, RefundRules, read_form

FIELD = "refund_rules"
NAMES = ("empty_result", "error_at", "later_than_ms", "schema")
MOST_MS = 600_000
MOST_SCHEMA_BYTES = 16_384
LOOKED_INTO = (
    f"Only JSON answers with 2xx are looked into, uncompressed, of at most {MOST_BYTES >> 20} MiB and whole within"
    f" {WHOLE_SECONDS:g} s; others are paid."
)


def refund_rules(value: Any) -> dict[str, Any] | None:
    """Return rules as they are stored, None for none. Raises ValueError."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError('must be an object such as {"empty_result": true, "later_than_ms": 2000}')
    given = cast("dict[str, Any]", value)
    unknown = next((name for name in given if name not in NAMES), None)
    if unknown is not None:
        raise ValueError(f"has no rule {str(unknown)[:40]!r}; the rules are {', '.join(NAMES)}")
    found = {name: given[name] for name in NAMES if given.get(name) is not None and given[name] is not False}
    empty, error, late = found.get("empty_result"), found.get("error_at"), found.get("later_than_ms")
    if empty is not None and empty is not True and not _is_path(empty):
        raise ValueError("has an empty_result that is neither true nor a dotted path into the answer, such as results")
    if error is not None and (not _is_path(error) or error == WHOLE):
        raise ValueError("has an error_at that is no dotted path into the answer, such as error.code")
    if late is not None and (isinstance(late, bool) or not isinstance(late, int) or not 1 <= late <= MOST_MS):
        raise ValueError(f"has a later_than_ms that is no whole number from 1 to {MOST_MS}")
    if "schema" in found:
        try:
            size = len(orjson.dumps(found["schema"]))
        except TypeError:
            raise ValueError("has a schema with a number of more than 64 bits") from None
        if size > MOST_SCHEMA_BYTES:
            raise ValueError(f"has a schema of more than {MOST_SCHEMA_BYTES} bytes")
        try:
            read_form(found["schema"])
        except ValueError as error_of_schema:
            raise ValueError(f"has a schema that {error_of_schema}") from None
    return found or None


def endpoint_refund_rules(value: Any) -> dict[str, Any] | None:
    """Return an endpoint's rules as they are stored: None for its publisher's, {} for none. Raises ValueError."""
    found = refund_rules(value)
    return {} if found is None and value is not None else found


def _is_path(path: object) -> bool:
    return isinstance(path, str) and RESPONSE_PATH.fullmatch(path) is not None


def check_refund_rules(category: str, document: Mapping[str, Any]) -> None:
    """Raise InvalidRequest where no answer could be judged."""
    named = [FIELD] if document.get(FIELD) is not None else []
    for place, endpoint in enumerate(cast("list[dict[str, Any]]", document.get("endpoints") or [])):
        named += [f"endpoints.{place}.{FIELD}"] if endpoint.get(FIELD) else []
    for name in named[:1]:
        _check_sold(name, category, document)


def _check_sold(name: str, category: str, document: Mapping[str, Any]) -> None:
    if category != "integration" or document.get("integration_type") != "api":
        raise refused(name, "are for HTTP APIs: queries cost what they read, and what a failed tool costs is fixed")
    if document.get("billing_model") == "x402_passthrough":
        raise refused(name, "cannot be combined with x402_passthrough: what an upstream was paid is gone")


def free_when(document: Mapping[str, Any]) -> str | None:
    """Return in words which answers of a publisher cost nothing, beside failures, and which are not looked into."""
    rules: Mapping[str, Any] = document.get(FIELD) or {}
    if not rules:
        return None
    empty, error, late = rules.get("empty_result"), rules.get("error_at"), rules.get("later_than_ms")
    found = [f"it begins later than {late} ms after the request"] if late else []
    found += [f"its `{error}` tells of a failure"] if error else []
    found += ["it is empty" if empty is True else f"its `{empty}` is empty"] if empty else []
    found += ["it is not of the promised form"] if "schema" in rules else []
    said = f"An answer costs nothing when {', or '.join(found)}."
    return said if set(rules) == {"later_than_ms"} else f"{said} {LOOKED_INTO}"


def compile_rules(document: Mapping[str, Any]) -> RefundRules | None:
    """Return the rules of a stored publisher."""
    given: Mapping[str, Any] = document.get(FIELD) or {}
    if not given:
        return None
    empty, late = given.get("empty_result"), given.get("later_than_ms")
    return RefundRules(
        later_than=None if late is None else late / 1_000,
        error_at=given.get("error_at"),
        empty_at=WHOLE if empty is True else empty,
        form=read_form(given["schema"]) if "schema" in given else None,
    )
