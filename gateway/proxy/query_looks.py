"""How often what a query would cost is told for nothing: planning is work of the publisher's database."""

from __future__ import annotations

from uuid import UUID

from gateway.limits.policy import Check, Policy
from gateway.proxy.limit import refusal
from gateway.services import Services

PER_PUBLISHER = 20
"""All callers together may look so many times as often as one: a publisher's database is no free planner."""


async def count_look(services: Services, caller: str, publisher_id: UUID) -> None:
    """Count a look. `caller` is an address or key id of ours. Raises RateLimited."""
    limit = services.settings.limits.estimates
    verdict = await services.limiter.check(
        Check(caller, Policy("estimates", limit, 60)),
        Check(str(publisher_id), Policy("estimates.publisher", limit * PER_PUBLISHER, 60)),
    )
    if not verdict.allowed:
        raise refusal(verdict)
