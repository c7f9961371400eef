"""What is noted of a finished call: its metrics, and its line in the access log where that is on. Nothing secret."""

from __future__ import annotations

import logging
import time

from gateway.proxy.exchange import Exchange
from gateway.services import Services

access = logging.getLogger("tollway.access")
PATH_SHOWN = 200


def observe(exchange: Exchange, services: Services) -> None:
    """Count a call that has its end, refused ones too."""
    stages: list[tuple[str, float]] = []
    before = exchange.started
    for name, moment in exchange.marks:
        stages.append((name, moment - before))
        before = moment
    price = exchange.asset_price
    services.metrics.observe_call(
        exchange.publisher.slug if exchange.publisher else None,
        exchange.answered,
        exchange.outcome,
        price.asset.symbol if price else None,
        _charged(exchange),
        stages,
    )
    if exchange.limit is not None:
        verdict = "allowed" if exchange.limit.allowed else "refused"
        services.metrics.limit_verdict(exchange.limit.policy.name, verdict)
    if services.settings.logging.access:
        access.info("call", extra=_line(exchange))


def _charged(exchange: Exchange) -> int:
    return exchange.quote.amount if exchange.outcome == "settled" else 0


def _line(exchange: Exchange) -> dict[str, object]:
    """Return the fields of the line. The query is left out: people put secrets there. `cost` is atomic units."""
    return {
        "request_id": str(exchange.id),
        "method": exchange.method,
        "publisher": exchange.slug,
        "path": exchange.path[:PATH_SHOWN].decode("latin-1"),
        "status": exchange.answered,
        "outcome": exchange.outcome,
        "cost": _charged(exchange),
        "asset": exchange.asset_price.asset.symbol if exchange.asset_price else None,
        "key_id": exchange.principal.key_id if exchange.principal else None,
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "milliseconds": round((time.perf_counter() - exchange.started) * 1_000, 3),
    }
