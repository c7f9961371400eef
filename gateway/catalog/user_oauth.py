"""Publishers that are called in their callers' names: with the caller's own token of an OAuth provider.

The provider belongs to the publisher's organization, or is the platform's; then the publisher's server is one of those
that an operator named for it, since anybody may publish.

What does not live here: the tokens (upstreams/auth/callers.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import UUID

from gateway.catalog.refusals import refused
from gateway.database.pool import Connection
from gateway.database.statement import Statement

PROVIDER = "oauth_provider_id"
BY_SLUG = "oauth_provider_slug"
FLAG = "requires_user_oauth"


@dataclass(frozen=True, slots=True)
class UserOauth:
    """Whose tokens a publisher's calls carry, and which server gets them."""

    provider_id: UUID
    organization_id: UUID
    host: str


def _hosts(value: Any) -> list[str] | None:
    return cast("list[str] | None", value)


# An organization's own provider before the platform's of the same slug.
FIND_USABLE = Statement(
    """
    SELECT id::text FROM oauth.provider
     WHERE (organization_id = $1 OR organization_id IS NULL) AND (id = $2 OR slug = $3) AND is_active
     ORDER BY organization_id NULLS LAST LIMIT 1
    """,
    UUID,
    scalar=True,
)


# None for an organization's own, which may go to whatever the organization publishes.
FIND_HOSTS = Statement("SELECT hosts FROM oauth.provider WHERE id = $1", _hosts, scalar=True)


def compile_user_oauth(document: Mapping[str, Any], organization_id: UUID, host: str) -> UserOauth | None:
    """Return what the hot path reads, or None for a publisher that is called in nobody's name."""
    if not document.get(FLAG) or not document.get(PROVIDER):
        return None
    return UserOauth(UUID(str(document[PROVIDER])), organization_id, host)


async def put_provider(
    connection: Connection, organization_id: UUID, document: dict[str, Any], changes: Mapping[str, Any]
) -> None:
    """Put the provider that a request names, by id or slug, into the document. Raises InvalidRequest for none."""
    for name in (PROVIDER, BY_SLUG):
        if changes.get(name) is None:
            continue
        by_id = UUID(changes[name]) if name == PROVIDER else None
        found = await FIND_USABLE.first(connection, organization_id, by_id, None if by_id else changes[name])
        if found is None:
            raise refused(name, "is no OAuth provider of this organization, and none of the platform's")
        document[PROVIDER] = str(found)
        return


def check_user_oauth(category: str, document: Mapping[str, Any], secrets: Mapping[str, Any]) -> None:
    """Raise InvalidRequest when fields contradict or miss each other."""
    if not document.get(FLAG):
        if document.get(PROVIDER):
            raise refused(PROVIDER, f"means nothing without {FLAG}; set that, or this to null")
        return
    if not document.get(PROVIDER):
        raise refused(FLAG, f"needs a provider: {BY_SLUG}, or {PROVIDER} in an update")
    if category != "integration" or document.get("integration_type") != "api":
        raise refused(FLAG, "is for HTTP APIs: queries and tools are not called in their callers' names")
    if (document.get("auth_type") or "static") != "static" or document.get("token_exchange_url"):
        raise refused(FLAG, "cannot be combined with tokens of your own: both would be the Authorization field")
    fields = {str(name).lower() for name in secrets.get("api_headers") or ()}
    key = "upstream_api_key" in secrets and not document.get("api_key_query_param")
    if key:
        fields.add(str(document.get("api_key_header") or "authorization").lower())
    if "authorization" in fields:
        raise refused(
            FLAG, "cannot be combined with a credential in the Authorization field: the caller's token goes there"
        )


async def check_host(connection: Connection, document: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for a server that the platform's provider does not give tokens to."""
    if not document.get(FLAG) or not document.get(PROVIDER):
        return
    hosts = await FIND_HOSTS.first(connection, UUID(str(document[PROVIDER])))
    if hosts is not None and urlsplit(str(document.get("api_url"))).hostname not in hosts:
        raise refused("api_url", "is not a server that the operator lets tokens of this OAuth provider go to")
