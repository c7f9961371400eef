"""Putting imported endpoints beside those that a publisher has. Pure.

A document describes; the owner decides. So protection, settlement and the mark as default stay with an endpoint that is
imported again, and so does its price unless the document has one. Protected endpoints are never dropped: an import
must not put on sale what somebody took off it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.catalog import checks
from gateway.catalog.openapi.refused import DocumentRefused
from gateway.catalog.vocabulary import MAX_ENDPOINTS

OWNERS = ("is_default", "is_protected", "protection_reason", "x402_settlement", "refund_on_status", "refund_rules")
"""Fields that a document has nothing to say about."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The endpoints that the publisher would have, and how many of them are new, changed, and gone."""

    endpoints: list[dict[str, Any]]
    added: int
    changed: int
    removed: int


def merge(
    existing: Sequence[Mapping[str, Any]], imported: Sequence[Mapping[str, Any]], *, replace: bool = False
) -> Merged:
    """Return existing endpoints with imported ones put in; with `replace`, those that were not imported are dropped.

    Raises DocumentRefused for too many of them.
    """
    fresh = {_place(endpoint): endpoint for endpoint in imported}
    endpoints: list[dict[str, Any]] = []
    changed = removed = 0
    for endpoint in existing:
        update = fresh.pop(_place(endpoint), None)
        if update is not None:
            merged = _updated(endpoint, update)
            changed += merged != dict(endpoint)
            endpoints.append(merged)
        elif replace and not endpoint.get("is_protected"):
            removed += 1
        else:
            endpoints.append(dict(endpoint))
    endpoints += map(dict, fresh.values())
    if len(endpoints) > MAX_ENDPOINTS:
        raise DocumentRefused(f"would make more than {MAX_ENDPOINTS} endpoints with those that are there", "#/paths")
    return Merged(endpoints, len(fresh), changed, removed)


def _updated(endpoint: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: endpoint[name] for name in OWNERS if name in endpoint}
    if "price" not in update and endpoint.get("price") is not None:
        kept["price"] = endpoint["price"]
    return {**update, **kept}


def _place(endpoint: Mapping[str, Any]) -> tuple[str, str]:
    return endpoint["method"], checks.path_shape(endpoint["path"])
