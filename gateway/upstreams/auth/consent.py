"""Connecting a caller's account at an OAuth provider: from the consent that is asked for to the tokens that are kept.

A consent belongs to the account that asked for it. Its answer is taken once, within minutes, and at the address of the
very provider it went to, which is each provider's own (RFC 9700 section 2.1: no mixing up of servers).
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

import orjson

from gateway.audit.entries import record
from gateway.database.pool import Database
from gateway.identity import connections
from gateway.identity.connections import Ended, Flow, Grant
from gateway.identity.oauth_providers import FIND_ANY, Provider
from gateway.identity.organizations import default_of
from gateway.upstreams.auth.authorization_code import AuthorizationServer, Client, Refused, Tokens
from gateway.upstreams.auth.errors import TokenUnavailable
from gateway.upstreams.credentials import CredentialBox
from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.http.client import UpstreamClient
from gateway.upstreams.http.timeouts import Timeouts
from gateway.upstreams.transport import GuardedTransport

log = logging.getLogger(__name__)

# Shorter than the lease of a refresh (callers.py): its holder has its answer, or has given up, before another asks.
TIMEOUTS = Timeouts(connect=5.0, first_byte=10.0, idle=5.0, total=15.0)
MAX_ANSWER = 65_536


@dataclass(frozen=True, slots=True)
class Begun:
    """A consent that is asked for: where, and the cookie that its browser gets."""

    url: str
    browser: str


class Consents:
    """Asks and connects. One per worker; it holds nothing of its own."""

    def __init__(self, database: Database, box: CredentialBox, upstreams: UpstreamClient, guard: EgressGuard) -> None:
        self._database, self._box = database, box
        self._transport = GuardedTransport(upstreams, guard, TIMEOUTS, MAX_ANSWER)

    def server(self, provider: Provider) -> AuthorizationServer:
        """Return the server of a provider. Raises CredentialError for a secret that does not open."""
        secret = self._box.open(provider.client_secret, provider.id.bytes).decode()
        client = Client(
            provider.authorization_url, provider.token_url, provider.userinfo_url, provider.revocation_url,
            provider.issuer, provider.client_id, secret, provider.token_endpoint_auth_method, tuple(provider.scopes),
        )  # fmt: skip
        return AuthorizationServer(client, self._transport)

    async def begin(self, provider: Provider, account_id: UUID, callback: str, target: str) -> Begun:
        """Return where the user of an account is asked for consent."""
        state, verifier, nonce, browser = (secrets.token_urlsafe(size) for size in (32, 48, 24, 32))
        kept = self._seal(provider.id, account_id, {"verifier": verifier, "nonce": nonce})
        flow = Flow(provider.id, account_id, connections.digest(browser), kept, callback, target)
        async with self._database.transaction() as connection:
            await connections.begin(connection, state, flow)
        return Begun(self.server(provider).consent_url(callback, state, verifier, nonce), browser)

    async def take(self, provider_id: UUID, state: str) -> Flow | None:
        """Take the consent that a state stands for, once. None: it is unknown, used, over, or of another provider."""
        async with self._database.acquire() as connection:
            return await connections.TAKE_BEGUN.first(connection, connections.digest(state), provider_id)

    async def ask(self, flow: Flow, code: str) -> str:
        """Keep what came back until its user has confirmed it, and return the ticket for that."""
        ticket = secrets.token_urlsafe(32)
        kept = self._seal(flow.provider_id, flow.account_id, {**self._opened(flow), "code": code})
        async with self._database.transaction() as connection:
            await connections.ask(connection, ticket, replace(flow, secrets=kept))
        return ticket

    async def confirmed(self, ticket: str) -> tuple[Flow, Provider, str] | None:
        """Take what a ticket stands for, once: the consent, its provider, and the code that came back."""
        async with self._database.acquire() as connection:
            flow = await connections.TAKE_RETURNED.first(connection, connections.digest(ticket))
            provider = None if flow is None else await FIND_ANY.first(connection, flow.provider_id)
        return None if flow is None or provider is None else (flow, provider, self._opened(flow)["code"])

    async def finish(self, provider: Provider, flow: Flow, code: str) -> str | None:
        """Trade the code and keep the tokens. Return None, or the word for what went wrong; nothing is kept then."""
        kept = self._opened(flow)
        try:
            tokens, owner = await self.server(provider).redeem(code, flow.callback, kept["verifier"], kept["nonce"])
        except Refused as refused:
            return refused.word
        except TokenUnavailable as error:
            log.warning("OAuth provider %s: %s", provider.id, error)
            return "provider_unavailable"
        grant = replace(
            grant_of(self._box, provider, flow.account_id, tokens, tuple(provider.scopes)),
            user_id=owner.user_id, email=owner.email,
        )  # fmt: skip
        async with self._database.transaction() as connection:
            made = await connections.connect(connection, provider.id, flow.account_id, grant)
            if made is not None:
                home = await default_of(connection, flow.account_id)
                details = {"provider": provider.slug, "account_id": flow.account_id}
                await record(connection, "oauth_connection.create", home and home.id, made, details=details)
        if made is None:
            await self.tell(provider, tokens)
            return "account_closed"
        return None

    async def revoke(self, account_id: UUID, ended: Ended) -> bool:
        """Tell the provider's server of a connection that ended; return whether it has taken that."""
        async with self._database.acquire() as connection:
            provider = await FIND_ANY.first(connection, ended.provider_id)
        if provider is None or provider.revocation_url is None or ended.tokens is None:
            return False
        kept = orjson.loads(self._box.open(ended.tokens, connections.token_context(provider.id, account_id)))
        return await self.tell(provider, Tokens(kept["access"], kept["refresh"], None, None, None))

    async def tell(self, provider: Provider, tokens: Tokens) -> bool:
        """Revoke tokens at the provider, the refresh token first: others may go with it (RFC 7009 section 2.1)."""
        server = self.server(provider)
        told = tokens.refresh is None or await server.revoke(tokens.refresh, "refresh_token")
        return await server.revoke(tokens.access, "access_token") and told

    def _seal(self, provider_id: UUID, account_id: UUID, kept: dict[str, str]) -> bytes:
        return self._box.seal(orjson.dumps(kept), connections.flow_context(provider_id, account_id))

    def _opened(self, flow: Flow) -> dict[str, str]:
        return orjson.loads(self._box.open(flow.secrets, connections.flow_context(flow.provider_id, flow.account_id)))


def grant_of(
    box: CredentialBox, provider: Provider, account_id: UUID, tokens: Tokens, scopes: tuple[str, ...]
) -> Grant:
    """Return tokens as they are stored; `scopes` are what holds where the server does not say."""
    sealed = orjson.dumps({"access": tokens.access, "refresh": tokens.refresh})
    return Grant(
        tokens=box.seal(sealed, connections.token_context(provider.id, account_id)),
        refreshable=tokens.refresh is not None,
        scopes=list(tokens.scopes or scopes),
        lifetime=None if tokens.seconds is None else timedelta(seconds=tokens.seconds),
    )
