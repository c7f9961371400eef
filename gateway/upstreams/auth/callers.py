"""Callers' own tokens, for publishers that are called in their callers' names.

Tokens are kept in each worker until shortly before they end; a change of a connection or its provider reaches all of
them by NOTIFY at its commit, and while the listener is away they are kept for STALE_SECONDS at most. A token is renewed
by one worker at a time, which holds a lease on the row: a refresh token that servers take only once must not be sent
twice. What does not live here: how consent is asked for (consent.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson

from gateway.catalog.user_oauth import UserOauth
from gateway.database.pool import Database
from gateway.database.statement import Command, Statement
from gateway.errors import ConnectionNeeded, KindNotServed
from gateway.identity.connections import TOUCH_CONNECTIONS, token_context
from gateway.identity.oauth_providers import FIND_ANY
from gateway.upstreams.auth.authorization_code import Refused
from gateway.upstreams.auth.consent import Consents, grant_of
from gateway.upstreams.auth.errors import TokenUnavailable
from gateway.upstreams.auth.tokens import Token, Tokens
from gateway.upstreams.credentials import CredentialBox

log = logging.getLogger(__name__)

FRESH_SECONDS = 300.0
STALE_SECONDS = 1.0
CACHE_SIZE = 20_000
LEASE = timedelta(seconds=20)
POLL_SECONDS = 0.1
WAIT_SECONDS = 25.0
MARGIN_SECONDS = 60.0
"""A token is renewed when it has less than this left, or a fifth of its life where that is shorter."""
YOUNG_SECONDS = 60.0
"""A token that a publisher's server does not take is renewed before its time, unless it is as new as this."""
# What says that the user has to be asked again; other words are about the provider's definition.
ENDED = frozenset({"invalid_grant"})


@dataclass(frozen=True, slots=True)
class Row:
    """A provider, and what the account's connection to it has, if there is one."""

    organization_id: UUID | None
    slug: str
    is_active: bool
    hosts: list[str] | None
    id: UUID | None
    tokens: bytes | None
    refreshable: bool | None
    scopes: list[str] | None
    version: int | None
    left: float | None
    lifetime: float | None
    age: float | None


FIND_TOKENS = Statement(
    """
    SELECT v.organization_id, v.slug, v.is_active, v.hosts, c.id, c.tokens, c.refreshable, c.scopes, c.version,
           extract(epoch FROM c.expires_at - now())::float8 AS left,
           extract(epoch FROM c.expires_at - c.renewed_at)::float8 AS lifetime,
           extract(epoch FROM now() - c.renewed_at)::float8 AS age
      FROM oauth.provider v LEFT JOIN oauth.connection c ON c.provider_id = v.id AND c.account_id = $2
     WHERE v.id = $1
    """,
    Row,
)
TAKE_LEASE = Command(
    """
    UPDATE oauth.connection SET refreshing_until = now() + $3::interval
     WHERE id = $1 AND version = $2 AND tokens IS NOT NULL AND (refreshing_until IS NULL OR refreshing_until < now())
    """
)
GIVE_BACK = Command("UPDATE oauth.connection SET refreshing_until = NULL WHERE id = $1 AND version = $2")
RENEW = Command(
    """
    UPDATE oauth.connection SET tokens = $3, refreshable = $4, scopes = $5, expires_at = now() + $6::interval,
           renewed_at = now(), version = version + 1, refreshing_until = NULL
     WHERE id = $1 AND version = $2
    """
)
END_TOKENS = Command(
    """
    UPDATE oauth.connection SET tokens = NULL, refreshable = false, version = version + 1, refreshing_until = NULL
     WHERE id = $1 AND version = $2
    """
)


class _Held:
    """What a worker keeps of one account at one provider. `found` is the row that the token came from."""

    def __init__(self, owner: CallersTokens, key: tuple[UUID, UUID], now: float) -> None:
        self._owner, self._key = owner, key
        self.since = now
        self.tokens = Tokens(self._fetch)
        self.found: Row | None = None
        self.young_until = now
        self.refused = ""

    async def _fetch(self) -> Token:
        return await self._owner.fetch(self, *self._key)


class CallersTokens:
    """Callers' tokens of one worker."""

    def __init__(
        self,
        database: Database,
        box: CredentialBox,
        consents: Consents,
        public_url: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._box, self._consents, self._public_url = database, box, consents, public_url
        self._clock = clock
        self._held: dict[tuple[UUID, UUID], _Held] = {}
        self._used: set[UUID] = set()
        self.listening = False

    def of(self, plan: UserOauth, account_id: UUID) -> CallersToken:
        """Return what one call of an account is let in by."""
        key = (account_id, plan.provider_id)
        held = self._held.get(key)
        if held is None or self._clock() - held.since > (FRESH_SECONDS if self.listening else STALE_SECONDS):
            held = _Held(self, key, self._clock())
            if len(self._held) >= CACHE_SIZE:
                self._held.pop(next(iter(self._held)))
            self._held[key] = held
        return CallersToken(self, held, plan)

    def told(self, payload: str) -> None:
        """Handle a NOTIFY on `tollway_oauth`: 'connection:<account>:<provider>' or 'provider:<provider>'."""
        kind, _, rest = payload.partition(":")
        if kind == "connection":
            account, _, provider = rest.partition(":")
            self._held.pop((UUID(account), UUID(provider)), None)
            return
        for key in [key for key in self._held if str(key[1]) == rest]:
            del self._held[key]

    def forget(self) -> None:
        """Drop everything that is kept."""
        self._held.clear()

    def now(self) -> float:
        """Return what the clock says."""
        return self._clock()

    def used(self, connection_id: UUID) -> None:
        """Note that a connection was used."""
        self._used.add(connection_id)

    async def flush_used(self) -> None:
        """Write last-used times (a job, never the hot path)."""
        used, self._used = list(self._used), set()
        if used:
            async with self._database.acquire() as connection:
                await TOUCH_CONNECTIONS.run(connection, used)

    def needed(self, provider_id: UUID, slug: str, why: str) -> ConnectionNeeded:
        """Return the refusal of a call whose caller has to connect first."""
        url = f"{self._public_url}/oauth/providers/{provider_id}/authorize"
        return ConnectionNeeded(
            f"{why} GET {url} with your API key, let your user open where that leads to, and call again. Nothing was"
            " sent or charged.",
            provider=slug,
            provider_id=str(provider_id),
            authorize_url=url,
        )

    async def fetch(self, held: _Held, account_id: UUID, provider_id: UUID) -> Token:
        """Return the stored token, renewed where its time has come. Raises ConnectionNeeded, TokenUnavailable."""
        row = await self._row(account_id, provider_id)
        access, refresh = self._opened(row, account_id, provider_id)
        if refresh is not None and (_is_old(row) or access == held.refused):
            row, access = await self._renewed(row, account_id, provider_id, refresh)
        if row.left is not None and row.left <= 0:
            raise self.needed(provider_id, row.slug, "Your connection has ended.")
        held.found, held.young_until = row, self._clock() + YOUNG_SECONDS - (row.age or 0.0)
        return Token(access.encode("ascii"), row.left)

    async def _row(self, account_id: UUID, provider_id: UUID) -> Row:
        row = await self._database.read(lambda connection: FIND_TOKENS.first(connection, provider_id, account_id))
        if row is None or not row.is_active:
            raise KindNotServed("This publisher's OAuth provider is gone or switched off; it cannot be called.")
        return row

    def _opened(self, row: Row, account_id: UUID, provider_id: UUID) -> tuple[str, str | None]:
        if row.tokens is None:
            again = "You have not connected your account at" if row.id is None else "Connect your account again at"
            raise self.needed(provider_id, row.slug, f"{again} {row.slug}, by which this publisher is called.")
        kept = orjson.loads(self._box.open(row.tokens, token_context(provider_id, account_id)))
        return kept["access"], kept["refresh"]

    async def _renewed(self, row: Row, account_id: UUID, provider_id: UUID, refresh: str) -> tuple[Row, str]:
        """Renew, or wait for the worker that does. Returns what holds then."""
        ends, version = self._clock() + WAIT_SECONDS, row.version
        while row.version == version:
            async with self._database.acquire() as connection:
                ours = await TAKE_LEASE.run(connection, row.id, version, LEASE)
            if ours:
                await self._renew(row, account_id, provider_id, refresh)
            elif self._clock() > ends:
                raise TokenUnavailable("another worker has not renewed the token in time")
            else:
                await asyncio.sleep(POLL_SECONDS)
            before, row = row, await self._row(account_id, provider_id)
            if ours and row.version == before.version:  # the server could not be asked, and the old token still is good
                break
        return row, self._opened(row, account_id, provider_id)[0]

    async def _renew(self, row: Row, account_id: UUID, provider_id: UUID, refresh: str) -> None:
        """Ask for new tokens under the lease. Raises TokenUnavailable when there are none and the old one is over."""
        async with self._database.acquire() as connection:
            provider = await FIND_ANY.first(connection, provider_id)
        if provider is None:
            return
        try:
            tokens = await self._consents.server(provider).refresh(refresh)
        except Refused as refused:
            async with self._database.acquire() as connection:
                ended = refused.word in ENDED
                await (END_TOKENS if ended else GIVE_BACK).run(connection, row.id, row.version)
            log.warning("OAuth provider %s refuses to renew a token: %s", provider_id, refused.word)
            if not ended and (row.left is None or row.left <= 0):
                raise TokenUnavailable(f"the OAuth provider refuses to renew the token: {refused.word}") from None
            return
        except TokenUnavailable:
            async with self._database.acquire() as connection:
                await GIVE_BACK.run(connection, row.id, row.version)
            if row.left is None or row.left <= 0:
                raise
            return
        grant = grant_of(self._box, provider, account_id, tokens, tuple(row.scopes or ()))
        async with self._database.acquire() as connection:
            kept = await RENEW.run(
                connection, row.id, row.version, grant.tokens, grant.refreshable, grant.scopes, grant.lifetime
            )  # fmt: skip
        if not kept:  # revoked meanwhile
            await self._consents.tell(provider, tokens)


class CallersToken:
    """One call's way in (authenticator.Authenticator)."""

    def __init__(self, tokens: CallersTokens, held: _Held, plan: UserOauth) -> None:
        self._all, self._held, self._plan = tokens, held, plan

    async def token(self, request_id: str) -> bytes:
        """Return the caller's token. Raises ConnectionNeeded, KindNotServed or TokenUnavailable."""
        value = await self._held.tokens.current()
        row = self._held.found
        if row is None or not _may_go(row, self._plan):
            raise KindNotServed("This publisher's OAuth provider is not its own; it cannot be called.")
        if row.id is not None:
            self._all.used(row.id)
        return value

    def reject(self, token: bytes) -> bool:
        """Say that the publisher's server answered 401; return whether another token may be tried."""
        row = self._held.found
        if row is None or not row.refreshable or self._all.now() < self._held.young_until:
            return False
        self._held.refused = token.decode("ascii")
        self._held.tokens.reject(token)
        return True


def _is_old(row: Row) -> bool:
    return row.left is not None and row.left < min(MARGIN_SECONDS, (row.lifetime or 0.0) / 5)


def _may_go(row: Row, plan: UserOauth) -> bool:
    """Return whether tokens of a provider may go to a publisher's server."""
    if row.organization_id is None:
        return plan.host in (row.hosts or ())
    return row.organization_id == plan.organization_id
