"""Step 4, limit: all of a call's limits in one check; refused by one, it consumes from none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from gateway.errors import RateLimited
from gateway.identity.clients import Network
from gateway.limits.limiter import RateLimiter
from gateway.limits.policy import Check, Policy, Verdict, headers
from gateway.proxy.exchange import Exchange
from gateway.proxy.identify import counted_address


@lru_cache(maxsize=4096)
def _publisher_policy(slug: str, per_minute: int) -> Policy:
    return Policy(f"publisher.{slug}"[:64], per_minute, 60)


async def limit(
    exchange: Exchange, limiter: RateLimiter, per_key: Policy, per_address: Policy, trusted: Sequence[Network]
) -> None:
    """Count this call against its key (or address) and the publisher's own limit. Raises RateLimited."""
    principal = exchange.principal
    if principal is None:
        exchange.limit = await limiter.check(Check(counted_address(exchange, trusted), per_address))
    else:
        publisher = exchange.sold
        check = Check(principal.key_id, per_key)
        per_minute = publisher.prices[0].max_per_minute if publisher.prices else None
        if per_minute is None:
            exchange.limit = await limiter.check(check)
        else:
            exchange.limit = await limiter.check(
                check, Check(principal.key_id, _publisher_policy(publisher.slug, per_minute))
            )
    if not exchange.limit.allowed:
        raise refusal(exchange.limit)


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
