"""Callers' connections to OAuth providers, and the consents under way that lead to them.

Tokens are sealed, and everything that is kept of a consent under way: the database alone opens nothing. A consent is
one row from the redirect to the provider until its answer is taken, under the hash of a secret that only its bearer
has: first the `state` that went to the provider, then, where another browser came back than the one that began, the
ticket on the page that asks. Taking it removes it, so that each works once.

What does not live here: what the providers' servers are asked (upstreams/auth).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from gateway.database.pool import Connection, Database
from gateway.database.statement import Command, Statement
from gateway.ids import uuid7

FLOW_LIFETIME = timedelta(minutes=10)
"""How long somebody may take at the provider."""
MAX_FLOWS = 20
"""Consents under way of one account; more put out the oldest."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A connection as its owner sees it; `is_valid` says whether calls can be made with it."""

    id: UUID
    provider_id: UUID
    provider_slug: str
    provider_name: str
    provider_logo_url: str | None
    provider_user_id: str | None
    provider_email: str | None
    scopes: list[str]
    is_valid: bool
    expires_at: datetime | None
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Flow:
    """A consent under way, taken out of the database."""

    provider_id: UUID
    account_id: UUID
    browser_hash: bytes
    secrets: bytes
    callback: str
    target: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What the page that asks says: who is about to be connected to what."""

    account_name: str
    provider_name: str


@dataclass(frozen=True, slots=True)
class Grant:
    """What is stored of tokens and of whose they are."""

    tokens: bytes
    refreshable: bool
    scopes: list[str]
    lifetime: timedelta | None
    user_id: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A connection that was deleted, with its sealed tokens."""

    id: UUID
    provider_id: UUID
    tokens: bytes | None


LIST_CONNECTIONS = Statement(
    """
    SELECT c.id, c.provider_id, v.slug AS provider_slug, v.name AS provider_name, v.logo_url AS provider_logo_url,
           c.provider_user_id, c.provider_email, c.scopes, c.expires_at, c.created_at, c.last_used_at,
           v.is_active AND c.tokens IS NOT NULL
           AND (c.refreshable OR c.expires_at IS NULL OR c.expires_at > now()) AS is_valid
      FROM oauth.connection c JOIN oauth.provider v ON v.id = c.provider_id
     WHERE c.account_id = $1 ORDER BY c.created_at DESC, c.id DESC
    """,
    Shown,
)
_DELETE = "DELETE FROM oauth.connection c USING oauth.provider v WHERE v.id = c.provider_id AND c.account_id = $1"
DELETE_CONNECTION = Statement(_DELETE + " AND v.id = $2 RETURNING c.id, c.provider_id, c.tokens", Ended)
DELETE_PLATFORMS = Statement(
    _DELETE + " AND v.slug = $2 AND v.organization_id IS NULL RETURNING c.id, c.provider_id, c.tokens", Ended
)
# An account that was closed at the same time gets no connection.
CONNECT = Statement(
    """
    INSERT INTO oauth.connection AS c (id, provider_id, account_id, tokens, refreshable, scopes, provider_user_id,
                                       provider_email, expires_at)
    SELECT $1, v.id, a.id, $4, $5, $6, $7, $8, now() + $9::interval
      FROM identity.account a, oauth.provider v
     WHERE a.id = $3 AND a.status = 'active' AND v.id = $2 AND v.is_active
    ON CONFLICT (provider_id, account_id) DO UPDATE
       SET tokens = excluded.tokens, refreshable = excluded.refreshable, scopes = excluded.scopes,
           provider_user_id = excluded.provider_user_id, provider_email = excluded.provider_email,
           expires_at = excluded.expires_at, renewed_at = now(), version = c.version + 1, refreshing_until = NULL
    RETURNING c.id::text
    """,
    UUID,
    scalar=True,
)
PUT_FLOW = Command(
    """
    INSERT INTO oauth.flow (key_hash, stage, provider_id, account_id, browser_hash, secrets, callback, target,
                            expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + $9::interval)
    """
)
PUT_OUT_OLDEST = Command(
    """
    DELETE FROM oauth.flow WHERE key_hash IN (
        SELECT key_hash FROM oauth.flow WHERE account_id = $1 ORDER BY expires_at DESC OFFSET $2)
    """
)
TAKE_RETURNED = Statement(
    """
    DELETE FROM oauth.flow WHERE key_hash = $1 AND stage = 'returned' AND expires_at > now()
    RETURNING provider_id, account_id, browser_hash, secrets, callback, target
    """,
    Flow,
)
# At another provider's address the state is not taken: whoever mixes them up must not end somebody's consent.
TAKE_BEGUN = Statement(
    """
    DELETE FROM oauth.flow WHERE key_hash = $1 AND stage = 'begun' AND provider_id = $2 AND expires_at > now()
    RETURNING provider_id, account_id, browser_hash, secrets, callback, target
    """,
    Flow,
)
LOOK_AT_RETURNED = Statement(
    """
    SELECT a.name AS account_name, v.name AS provider_name
      FROM oauth.flow f JOIN identity.account a ON a.id = f.account_id JOIN oauth.provider v ON v.id = f.provider_id
     WHERE f.key_hash = $1 AND f.stage = 'returned' AND f.expires_at > now()
    """,
    Asked,
)
FORGET_FLOWS = Command("DELETE FROM oauth.flow WHERE expires_at < now()")
TOUCH_CONNECTIONS = Command("UPDATE oauth.connection SET last_used_at = now() WHERE id = ANY ($1::uuid[])")


def digest(secret: str) -> bytes:
    """Return what is kept of a state, a ticket or a cookie: they have 256 random bits and need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def flow_context(provider_id: UUID, account_id: UUID) -> bytes:
    """Return what the secrets of a consent under way are sealed in."""
    return b"oauth-flow:" + provider_id.bytes + account_id.bytes


def token_context(provider_id: UUID, account_id: UUID) -> bytes:
    """Return what the tokens of a connection are sealed in."""
    return provider_id.bytes + account_id.bytes


async def begin(connection: Connection, state: str, flow: Flow) -> None:
    """Store a consent that is about to be asked for."""
    await _put(connection, state, "begun", flow)
    await PUT_OUT_OLDEST.run(connection, flow.account_id, MAX_FLOWS)


async def ask(connection: Connection, ticket: str, flow: Flow) -> None:
    """Store a consent that came back and has to be confirmed by its ticket."""
    await _put(connection, ticket, "returned", flow)


async def _put(connection: Connection, key: str, stage: str, flow: Flow) -> None:
    await PUT_FLOW.run(
        connection, digest(key), stage, flow.provider_id, flow.account_id, flow.browser_hash, flow.secrets,
        flow.callback, flow.target, FLOW_LIFETIME,
    )  # fmt: skip


async def connect(connection: Connection, provider_id: UUID, account_id: UUID, grant: Grant) -> UUID | None:
    """Store a connection in place of an older one. None: the account or the provider is closed by now."""
    return await CONNECT.first(
        connection, uuid7(), provider_id, account_id, grant.tokens, grant.refreshable, grant.scopes, grant.user_id,
        grant.email, grant.lifetime,
    )  # fmt: skip


async def forget_flows(database: Database) -> None:
    """Delete consents that nobody came back from in time."""
    async with database.acquire() as connection:
        await FORGET_FLOWS.run(connection)
