"""Whether a publisher can be called now, for its owner and for buyers: by what this worker would do with a call."""

from __future__ import annotations

from admin_api.resources.publisher_models import payable
from admin_api.store import facts
from gateway.catalog.records import Publisher
from gateway.services import Services


def not_ready(publisher: Publisher, services: Services) -> str | None:
    """Return in words why calls would not be served, as "it …", or None."""
    record = publisher.record
    if not record.is_active:
        return "is not active"
    compiled = services.catalog.find(record.slug)
    if compiled is None:
        return "cannot be read by this gateway; its log says why"
    if compiled.not_served is not None:
        return compiled.not_served
    if not compiled.prices:
        return "has no prices"
    if compiled.sale is not None and compiled.prices[0].rows.quote(1_000_000).amount == 0:
        return "has no price of rows (base_price_per_1000_rows)"
    if not (compiled.prices[0].prepaid or compiled.relays or payable(publisher, services.kinds) or _free(publisher)):
        return "takes no payments: balances are switched off (prepaid_enabled), and wallets cannot pay its assets here"
    if record.slug in services.metrics.left_alone:
        return "has a server that failed repeatedly, and is left alone for a moment"
    return None


def _free(publisher: Publisher) -> bool:
    return facts.summary(publisher) == "free"
