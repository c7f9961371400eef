"""OAuth providers: the servers at which callers let the gateway act for them, as organizations define them.

The platform's own providers belong to no organization: everybody may connect and every publisher use them, so their
tokens go only to the hosts that an operator named. Tokens of one server are never shown to another: when what they are
redeemed with changes, callers have to connect again.

What does not live here: who may (admin_api), what the servers are asked (upstreams/auth), connections (connections.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from gateway.database.pool import Connection, UniqueViolation
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, Forbidden, NotFound
from gateway.ids import uuid7

MAX_PROVIDERS = 100
"""Providers of one organization."""
ADDRESSES = ("authorization_url", "token_url", "userinfo_url", "revocation_url")
CLEARABLE = frozenset({"description", "logo_url", "userinfo_url", "revocation_url", "issuer"})
"""What null clears; null for anything else changes nothing."""
NOT_YOURS = "Only an operator gives a provider to the platform or to another organization."


class Sealer(Protocol):
    """The credential box, as far as it is needed here (it belongs to an upper step)."""

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt, bound to a context."""
        ...


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider. `client_secret` is sealed in the context of the id."""

    id: UUID
    organization_id: UUID | None
    slug: str
    name: str
    description: str | None
    logo_url: str | None
    authorization_url: str
    token_url: str
    userinfo_url: str | None
    revocation_url: str | None
    issuer: str | None
    client_id: str
    client_secret: bytes
    scopes: list[str]
    pkce_required: bool
    token_endpoint_auth_method: str
    is_active: bool
    hosts: list[str] | None
    created_by: UUID
    created_at: datetime
    updated_at: datetime


_COLUMNS = """
    SELECT v.id, v.organization_id, v.slug, v.name, v.description, v.logo_url, v.authorization_url, v.token_url,
           v.userinfo_url, v.revocation_url, v.issuer, v.client_id, v.client_secret, v.scopes, v.pkce_required,
           v.token_endpoint_auth_method, v.is_active, v.hosts, v.created_by, v.created_at, v.updated_at
      FROM oauth.provider v
"""
LIST_PROVIDERS = Statement(_COLUMNS + "WHERE v.organization_id = $1 ORDER BY v.created_at DESC, v.id DESC", Provider)
LIST_EVERY = Statement(_COLUMNS + "ORDER BY v.organization_id NULLS FIRST, v.slug", Provider)
FIND_PROVIDER = Statement(_COLUMNS + "WHERE v.organization_id = $1 AND v.id = $2", Provider)
FIND_ANY = Statement(_COLUMNS + "WHERE v.id = $1", Provider)
LOCK_PROVIDER = Statement(_COLUMNS + "WHERE v.organization_id = $1 AND v.id = $2 FOR UPDATE", Provider)
FIND_PLATFORMS = Statement(_COLUMNS + "WHERE v.organization_id IS NULL AND v.slug = $1 AND v.is_active", Provider)
# For everybody: the platform's, those of one's organizations, and those that a publisher in the store sends to.
FIND_OPEN = Statement(
    _COLUMNS  # noqa: S608
    + """
     WHERE v.id = $1 AND v.is_active
       AND (v.organization_id IS NULL
            OR EXISTS (SELECT FROM identity.membership m
                        WHERE m.organization_id = v.organization_id AND m.account_id = $2)
            OR EXISTS (SELECT FROM catalog.publisher p
                        WHERE p.organization_id = v.organization_id AND p.is_active AND p.deleted_at IS NULL
                          AND p.document ->> 'oauth_provider_id' = v.id::text))
    """,
    Provider,
)
LIST_OPEN = Statement(
    _COLUMNS  # noqa: S608
    + """
     WHERE v.is_active AND (v.organization_id IS NULL OR v.organization_id IN (
               SELECT m.organization_id
                 FROM identity.membership m JOIN identity.organization o ON o.id = m.organization_id
                WHERE m.account_id = $1 AND o.deleted_at IS NULL))
     ORDER BY v.organization_id NULLS FIRST, v.slug, v.id
    """,
    Provider,
)
COUNT_PROVIDERS = Statement("SELECT count(*) FROM oauth.provider WHERE organization_id = $1", int, scalar=True)
LOCK_ORGANIZATION = Command("SELECT FROM identity.organization WHERE id = $1 FOR NO KEY UPDATE")
INSERT_PROVIDER = Command(
    """
    INSERT INTO oauth.provider (id, organization_id, slug, name, description, logo_url, authorization_url, token_url,
                                userinfo_url, revocation_url, issuer, client_id, client_secret, scopes, pkce_required,
                                token_endpoint_auth_method, created_by)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
    """
)
UPDATE_PROVIDER = Command(
    """
    UPDATE oauth.provider SET slug = $2, name = $3, description = $4, logo_url = $5, authorization_url = $6,
           token_url = $7, userinfo_url = $8, revocation_url = $9, issuer = $10, client_id = $11, client_secret = $12,
           scopes = $13, pkce_required = $14, token_endpoint_auth_method = $15, is_active = $16, updated_at = now()
     WHERE id = $1
    """
)
SHARE_PROVIDER = Command(
    "UPDATE oauth.provider SET organization_id = NULL, hosts = $2, updated_at = now() WHERE id = $1"
)
DELETE_PROVIDER = Command("DELETE FROM oauth.provider WHERE id = $1")
DROP_TOKENS = Command(
    """
    UPDATE oauth.connection SET tokens = NULL, refreshable = false, refreshing_until = NULL, version = version + 1
     WHERE provider_id = $1 AND tokens IS NOT NULL
    """
)
DROP_FLOWS = Command("DELETE FROM oauth.flow WHERE provider_id = $1")


async def list_of(connection: Connection, organization_id: UUID) -> list[Provider]:
    """Return an organization's own providers, newest first."""
    return await LIST_PROVIDERS.all(connection, organization_id)


async def find(connection: Connection, organization_id: UUID, provider_id: UUID) -> Provider:
    """Return a provider of an organization. Raises NotFound."""
    found = await FIND_PROVIDER.first(connection, organization_id, provider_id)
    if found is None:
        raise unknown()
    return found


async def create(
    connection: Connection, box: Sealer, organization_id: UUID, account_id: UUID, fields: Mapping[str, Any]
) -> Provider:
    """Store a new provider. `fields` are checked ones. Raises Conflict for a taken slug, or too many."""
    provider_id = uuid7()
    await LOCK_ORGANIZATION.run(connection, organization_id)
    if await COUNT_PROVIDERS.one(connection, organization_id) >= MAX_PROVIDERS:
        raise Conflict(f"An organization may have at most {MAX_PROVIDERS} OAuth providers.", limit=MAX_PROVIDERS)
    sealed = box.seal(str(fields["client_secret"]).encode(), provider_id.bytes)
    try:
        await INSERT_PROVIDER.run(
            connection, provider_id, organization_id, fields["slug"], fields["name"], fields.get("description"),
            fields.get("logo_url"), fields["authorization_url"], fields["token_url"], fields.get("userinfo_url"),
            fields.get("revocation_url"), fields.get("issuer"), fields["client_id"], sealed, fields["scopes"],
            fields["pkce_required"], fields["token_endpoint_auth_method"], account_id,
        )  # fmt: skip
    except UniqueViolation:
        raise _taken() from None
    return await find(connection, organization_id, provider_id)


async def update(
    connection: Connection, box: Sealer, organization_id: UUID, provider_id: UUID, changes: Mapping[str, Any]
) -> tuple[Provider, Provider]:
    """Change what `changes` names, and return the provider before and after. Raises NotFound, Conflict, Forbidden."""
    before = await LOCK_PROVIDER.first(connection, organization_id, provider_id)
    if before is None:
        raise unknown()
    if "organization_id" in changes and changes["organization_id"] != organization_id:
        raise Forbidden(NOT_YOURS)
    wanted = {name: value for name, value in changes.items() if value is not None or name in CLEARABLE}
    wanted.pop("organization_id", None)
    secret = wanted.pop("client_secret", None)
    if secret is not None:
        wanted["client_secret"] = box.seal(str(secret).encode(), provider_id.bytes)
    after = replace(before, **wanted)
    try:
        await UPDATE_PROVIDER.run(
            connection, provider_id, after.slug, after.name, after.description, after.logo_url,
            after.authorization_url, after.token_url, after.userinfo_url, after.revocation_url, after.issuer,
            after.client_id, after.client_secret, after.scopes, after.pkce_required,
            after.token_endpoint_auth_method, after.is_active,
        )  # fmt: skip
    except UniqueViolation:
        raise _taken() from None
    if _leads_elsewhere(before, after):
        await DROP_TOKENS.run(connection, provider_id)
        await DROP_FLOWS.run(connection, provider_id)
    return before, await find(connection, organization_id, provider_id)


async def delete(connection: Connection, organization_id: UUID, provider_id: UUID) -> Provider:
    """Delete a provider with all connections to it, and return what it was. Raises NotFound."""
    found = await LOCK_PROVIDER.first(connection, organization_id, provider_id)
    if found is None:
        raise unknown()
    await DELETE_PROVIDER.run(connection, provider_id)
    return found


def unknown() -> NotFound:
    """Return the refusal of a provider that is not there, or not for the caller."""
    return NotFound("There is no such OAuth provider.")


def _leads_elsewhere(before: Provider, after: Provider) -> bool:
    """Return whether tokens got before would be shown to another server, or by another client."""
    if (before.authorization_url, before.token_url, before.client_id, before.issuer) != (
        after.authorization_url, after.token_url, after.client_id, after.issuer,
    ):  # fmt: skip
        return True
    return after.revocation_url is not None and after.revocation_url != before.revocation_url


def _taken() -> Conflict:
    return Conflict("This organization has a provider with this slug.", field="slug")
