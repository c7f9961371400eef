"""The one door of this package: what a call to a publisher's server carries to be let in."""

from __future__ import annotations

from typing import Protocol

from gateway.catalog.authentication import Authentication, ClientCredentials, SignedTokens
from gateway.upstreams.auth.client_credentials import ClientCredentialsGrant
from gateway.upstreams.auth.signed import Signer
from gateway.upstreams.auth.token_exchange import TokenServer
from gateway.upstreams.auth.tokens import Tokens
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.transport import GuardedTransport

# Calls wait for a token, so its server may take no longer than a caller would.
TIMEOUTS = Timeouts(connect=5.0, first_byte=10.0, idle=5.0, total=15.0)
MAX_ANSWER = 65_536


class Authenticator(Protocol):
    """What one publisher's calls are authenticated by."""

    async def token(self, request_id: str) -> bytes:
        """Return what goes behind `Bearer` of one call. Raises TokenUnavailable."""
        ...

    def reject(self, token: bytes) -> bool:
        """Say that the publisher's server answered 401 to a token; return whether another may be tried."""
        ...


class _Signing:
    def __init__(self, plan: SignedTokens, slug: str) -> None:
        self._signer, self._slug = Signer(plan), slug

    async def token(self, request_id: str) -> bytes:
        return self._signer.sign({"request_id": request_id, "slug": self._slug}).encode("ascii")

    def reject(self, token: bytes) -> bool:
        return False


class _Holding:
    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def token(self, request_id: str) -> bytes:
        return await self._tokens.current()

    def reject(self, token: bytes) -> bool:
        self._tokens.reject(token)
        return True


def authenticator(plan: Authentication, slug: str, client: UpstreamClient, guard: EgressGuard) -> Authenticator:
    """Return the authenticator of a publisher. Raises ValueError for a stored key that cannot sign."""
    if isinstance(plan, SignedTokens):
        return _Signing(plan, slug)
    transport = GuardedTransport(client, guard, TIMEOUTS, MAX_ANSWER)
    if isinstance(plan, ClientCredentials):
        return _Holding(Tokens(ClientCredentialsGrant(plan, transport).fetch))
    return _Holding(Tokens(TokenServer(plan, transport, slug).fetch))
