"""How a publisher wants its calls delivered: time for each phase, calls at once, new tries, which answers cost nothing.

Pure: the fields as requests have them, checks against the operator's bounds, and the compiled form of the hot path. An
owner may only tighten what the operator allows, and add to what the refund rule gives back anyway (5xx). Redirects cost
nothing unless the owner charges for them. What does not live here: waiting (upstreams/http) and refunding (billing/).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.catalog.refund_rules import FIELD, compile_rules, free_when
from gateway.catalog.refusals import refused
from gateway.settings import ProxySettings
from pricing.refund_rules import RefundRules

SHORTEST = 0.05
MAX_STATUSES = 64
_STATUS = re.compile(r"[345](?:[0-9]{2}|xx)", re.ASCII | re.IGNORECASE)
_REDIRECT = re.compile(r"3(?:[0-9]{2}|xx)", re.ASCII | re.IGNORECASE)
# 304 is none: it answers the question whether something has changed, and what the caller has is still good.
REDIRECTS = frozenset(range(300, 400)) - {304}
# Field of a request: the phase whose default and maximum settings.proxy has.
TIMEOUT_FIELDS: Mapping[str, str] = {
    "connect_timeout_seconds": "connect_timeout",
    "first_byte_timeout_seconds": "first_byte_timeout",
    "idle_timeout_seconds": "idle_timeout",
    "total_timeout_seconds": "total_timeout",
}


@dataclass(frozen=True, slots=True)
class Refunds:
    """Which answers cost nothing beside failures: by their status, and by the rules that are judged."""

    statuses: frozenset[int] = REDIRECTS
    rules: RefundRules | None = None
    promised: Mapping[str, Any] | None = None
    """The rules as their owner wrote them, for whoever is about to pay; `free_when` says them in words."""
    free_when: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """What an owner chose; None means the operator's default. Seconds, calls at once per worker, new tries."""

    connect: float | None = None
    first_byte: float | None = None
    idle: float | None = None
    total: float | None = None
    connections: int | None = None
    retries: int | None = None
    refunds: Refunds = field(default_factory=Refunds)


def refund_statuses(values: Iterable[str]) -> list[str]:
    """Return statuses and classes such as "404" and "4xx" in normal form. Raises ValueError naming the wrong one."""
    return _statuses(
        values,
        _STATUS,
        'use statuses from "300" to "599" or the classes "3xx", "4xx" and "5xx" (answers with 2xx were delivered)',
    )


def charged_statuses(values: Iterable[str]) -> list[str]:
    """Return statuses of redirects, or their class, in normal form. Raises ValueError naming the wrong one."""
    return _statuses(values, _REDIRECT, 'use statuses from "300" to "399" or the class "3xx"')


def _statuses(values: Iterable[str], allowed: re.Pattern[str], hint: str) -> list[str]:
    named: set[str] = set()
    for value in values:
        if not allowed.fullmatch(value):
            raise ValueError(f"has {value[:20]!r}; {hint}")
        named.add(value.lower())
    if len(named) > MAX_STATUSES:
        raise ValueError(f"must have at most {MAX_STATUSES} entries; use classes such as 4xx")
    return sorted(named)


def expand(statuses: Iterable[str]) -> frozenset[int]:
    """Return every status that the entries name."""
    named: set[int] = set()
    for entry in statuses:
        first = int(entry[0]) * 100
        named.update(range(first, first + 100) if entry.endswith("xx") else (int(entry),))
    return frozenset(named)


def free_statuses(document: Mapping[str, Any]) -> frozenset[int]:
    """Return the statuses that a publisher gives back: redirects that it does not charge for, and what it names."""
    charged = expand(document.get("charge_on_status") or ())
    return (REDIRECTS - charged) | expand(document.get("refund_on_status") or ())


def check_bounds(changes: Mapping[str, Any], proxy: ProxySettings) -> None:
    """Raise InvalidRequest when a timeout or a number is outside what the operator allows."""
    for name, phase in TIMEOUT_FIELDS.items():
        value, most = changes.get(name), getattr(proxy, f"{phase}_max")
        if value is not None and not SHORTEST <= value <= most:
            raise refused(name, f"is {value:g}; this gateway allows {SHORTEST:g} to {most:g} seconds")
    connections, most = changes.get("max_connections"), proxy.connections_per_upstream_max
    if connections is not None and not 1 <= connections <= most:
        raise refused("max_connections", f"is {connections}; this gateway allows 1 to {most} connections per worker")
    retries, most = changes.get("connect_retries"), proxy.connect_retries_max
    if retries is not None and not 0 <= retries <= most:
        raise refused("connect_retries", f"is {retries}; this gateway allows 0 to {most}")


def compile_delivery(document: Mapping[str, Any]) -> DeliveryPolicy:
    """Return the policy of a stored publisher."""
    return DeliveryPolicy(
        connect=document.get("connect_timeout_seconds"),
        first_byte=document.get("first_byte_timeout_seconds"),
        idle=document.get("idle_timeout_seconds"),
        total=document.get("total_timeout_seconds"),
        connections=document.get("max_connections"),
        retries=document.get("connect_retries"),
        refunds=compile_refunds(document),
    )


def compile_refunds(document: Mapping[str, Any]) -> Refunds:
    """Return what a document with `refund_on_status` and `refund_rules` gives back."""
    return Refunds(
        statuses=free_statuses(document),
        rules=compile_rules(document),
        promised=document.get(FIELD) or None,
        free_when=free_when(document),
    )


def refunds_of(definition: Mapping[str, Any], document: Mapping[str, Any]) -> Refunds | None:
    """Return what a documented endpoint gives back; None where it is what its publisher does."""
    chosen = {name: definition[name] for name in ("refund_on_status", FIELD) if definition.get(name) is not None}
    if not chosen:
        return None
    own = {name: document.get(name) for name in ("refund_on_status", "charge_on_status", FIELD)}
    return compile_refunds({**own, **chosen})
