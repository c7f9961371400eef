"""Step 4, limit: all of a call's limits in one check; refused by one, it consumes from none.

The usual call of a busy caller is admitted from what Valkey has leased to this worker, without waiting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from gateway.errors import RateLimited
from gateway.identity.clients import Network
from gateway.limits.limiter import RateLimiter
from gateway.limits.policy import MAX_NAME, Check, Policy, Verdict, headers
from gateway.proxy.exchange import Exchange
from gateway.proxy.identify import counted_address

DIGEST = 12


@lru_cache(maxsize=4096)
def _publisher_policy(slug: str, per_minute: int) -> Policy:
    name = f"publisher.{slug}"
    if len(name) > MAX_NAME:  # two long slugs may begin alike, and must not share a limit
        digest = hashlib.sha256(slug.encode()).hexdigest()[:DIGEST]
        name = f"{name[: MAX_NAME - DIGEST - 1]}-{digest}"
    return Policy(name, per_minute, 60)


@lru_cache(maxsize=256)
def _plan_policy(per_minute: int) -> Policy:
    return Policy("plan", per_minute, 60)


@lru_cache(maxsize=16_384)
def _counted(principal: str, policy: Policy) -> Check:
    return Check(principal, policy)


async def limit(
    exchange: Exchange, limiter: RateLimiter, per_key: Policy, per_address: Policy, trusted: Sequence[Network]
) -> None:
    """Count this call against the limits of its key (or address), the publisher and its organization's plan.

    Raises RateLimited.
    """
    principal, publisher = exchange.principal, exchange.sold
    who = counted_address(exchange, trusted) if principal is None else principal.key_id
    checks = (_counted(who, per_address if principal is None else per_key),)
    per_minute = publisher.prices[0].max_per_minute if publisher.prices else None
    if per_minute is not None:
        checks += (_counted(who, _publisher_policy(publisher.slug, per_minute)),)
    if principal is not None and principal.plan is not None and principal.plan.calls_per_minute is not None:
        checks += (_counted(str(principal.organization_id), _plan_policy(principal.plan.calls_per_minute)),)
    verdict = limiter.spend(checks) or await limiter.lease(checks)
    exchange.limit = verdict
    if not verdict.allowed:
        raise refusal(verdict)


def refusal(verdict: Verdict) -> RateLimited:
    """Return the 429 for a verdict, with Retry-After and the RateLimit fields."""
    fields = {name.decode(): value.decode() for name, value in headers(verdict)}
    return RateLimited(
        f"The limit of {verdict.policy.limit} requests per {verdict.policy.window_seconds} s is used up; "
        f"one passes again in {verdict.retry_after} s.",
        headers={**fields, "Retry-After": str(verdict.retry_after)},
        policy=verdict.policy.name,
        retry_after=verdict.retry_after,
    )
