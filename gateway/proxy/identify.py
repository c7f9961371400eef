"""Step 3, identify: a Bearer key to a principal. No key is no error here: what it means is the payment's business."""

from __future__ import annotations

from gateway.errors import RateLimited, Unauthenticated
from gateway.identity.principals import Identities
from gateway.limits.limiter import RateLimiter
from gateway.limits.policy import Check, Policy
from gateway.proxy.exchange import Exchange


async def identify(exchange: Exchange, identities: Identities, limiter: RateLimiter, guesses: Policy) -> None:
    """Set the principal when a credential came along. Raises Unauthenticated, or RateLimited for one who guesses."""
    credential = exchange.fields.get(b"authorization")
    if credential is None:
        return
    try:
        exchange.principal = await identities.resolve(credential.decode("latin-1"))
    except Unauthenticated:
        verdict = await limiter.check(Check(client_address(exchange), guesses))
        if not verdict.allowed:
            raise RateLimited(
                "Too many failed credentials from this address.", headers={"Retry-After": str(verdict.retry_after)}
            ) from None
        raise


def client_address(exchange: Exchange) -> str:
    """Return the peer's address. Forwarded fields are believed only by the admin API's trusted-proxy rule."""
    client = exchange.scope.get("client")
    return str(client[0]) if client else "unknown"
