"""Publishers that are called in their callers' names: with the caller's own token of an OAuth provider.

The provider belongs to the publisher's organization, or is the platform's; then the publisher's server is one of those
that an operator named for it, since anybody may publish.

What does not live here: the tokens (upstreams/auth/callers.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
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


@dataclass(frozen=True, slots=True)
class Usable:
    """A provider that an organization's publishers may use; `hosts` is None where that is all of them."""

    id: UUID
    hosts: list[str] | None


# An organization's own provider before the platform's of the same slug.
FIND_USABLE = Statement(
    """
    SELECT id, hosts FROM oauth.provider
     WHERE (organization_id = $1 OR organization_id IS NULL) AND (id = $2 OR slug = $3) AND is_active
     ORDER BY organization_id NULLS LAST LIMIT 1
    """,
    Usable,
)


async def find_provider(connection: Connection, organization_id: UUID, changes: Mapping[str, Any]) -> Usable | None:
    """Return the provider that a request names by its id or slug. Raises InvalidRequest for one that is not there."""
    for name in (PROVIDER, BY_SLUG):
        if changes.get(name) is None:
            continue
        by_id = UUID(changes[name]) if name == PROVIDER else None
        found = await FIND_USABLE.first(connection, organization_id, by_id, None if by_id else changes[name])
        if found is None:
            raise refused(name, "is no OAuth provider of this organization, and none of the platform's")
        return found
    return None
