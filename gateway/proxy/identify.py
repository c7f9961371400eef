"""Step 3, identify: a Bearer key or a wallet's signature to a principal.

Neither is no error here: what it means is the payment's business.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from gateway.billing.wallet_proofs import WalletProofs
from gateway.errors import AddressNotAllowed, InvalidRequest, RateLimited, Unauthenticated
from gateway.identity.allowed_addresses import demand_address
from gateway.identity.clients import Network, client_address, is_trusted, whole_address
from gateway.identity.permissions import AccountRight, demand_right
from gateway.identity.principals import Identities
from gateway.limits.limiter import RateLimiter
from gateway.limits.policy import Check, Policy
from gateway.proxy.exchange import Exchange

# Keys of ours, and the tokens of people's logins.
KEY = re.compile(rb"seren_[0-9a-z]{1,32}_[A-Za-z0-9]{43}")


def holds_key(text: bytes) -> bool:
    """Return whether a credential of this gateway stands in a text, percent-encoded or not."""
    if b"%" in text:
        text = unquote_to_bytes(text)
    return b"seren_" in text and KEY.search(text) is not None


async def identify(
    exchange: Exchange,
    identities: Identities,
    proofs: WalletProofs,
    limiter: RateLimiter,
    guesses: Policy,
    trusted: Sequence[Network],
) -> None:
    """Set the principal when a credential came along. Raises Unauthenticated, Forbidden, RateLimited."""
    exchange.by_trusted_proxy = bool(trusted) and is_trusted(peer_address(exchange), trusted)
    credential, proof = exchange.fields.get(b"authorization"), exchange.fields.get(b"sign-in-with-x")
    if credential is None and proof is None:
        return
    if credential is not None and proof is not None:
        raise InvalidRequest("Send an API key or a wallet proof, not both.")
    try:
        if proof is not None:
            exchange.principal = await proofs.prove(proof, exchange.fields.get(b"x-agent-wallet"))
        elif credential is not None:
            principal = identities.known(credential) or await identities.resolve(credential.decode("latin-1"))
            exchange.principal = principal
            if principal.addresses is not None:
                address = whole_address(peer_address(exchange), _forwarded(exchange, trusted), trusted)
                demand_address(principal, address)
            demand_right(principal, AccountRight.BUY)
    except (Unauthenticated, AddressNotAllowed):
        verdict = await limiter.check(Check(counted_address(exchange, trusted), guesses))
        if not verdict.allowed:
            raise RateLimited(
                "Too many failed credentials from this address.", headers={"Retry-After": str(verdict.retry_after)}
            ) from None
        raise


def peer_address(exchange: Exchange) -> str:
    """Return the address at the other end of the connection."""
    client = exchange.scope.get("client")
    return str(client[0]) if client else "unknown"


def counted_address(exchange: Exchange, trusted: Sequence[Network]) -> str:
    """Return the address that limits count: the peer's, or what a trusted proxy says of its client."""
    return client_address(peer_address(exchange), _forwarded(exchange, trusted), trusted)


def _forwarded(exchange: Exchange, trusted: Sequence[Network]) -> list[str]:
    forwarded = exchange.fields.get(b"x-forwarded-for")
    return [forwarded.decode("latin-1")] if forwarded is not None and trusted else []
