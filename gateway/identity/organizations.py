"""Organizations of an account: listing them, and the default one that `default` in a URL stands for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement


@dataclass(frozen=True, slots=True)
class Organization:
    """One tenant."""

    id: UUID
    name: str
    slug: str
    is_personal: bool
    created_by: UUID
    stripe_customer_id: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


# The first organization is the default: the personal one, else the one joined first.
LIST_ORGANIZATIONS = Statement(
    """
    SELECT o.id, o.name, o.slug, o.is_personal, o.created_by, o.stripe_customer_id, o.created_at, o.updated_at,
           o.deleted_at
      FROM identity.membership m JOIN identity.organization o ON o.id = m.organization_id
     WHERE m.account_id = $1 AND o.deleted_at IS NULL
     ORDER BY o.is_personal DESC, m.created_at, o.id
    """,
    Organization,
)


async def of_account(connection: Connection, account_id: UUID) -> list[Organization]:
    """Return the organizations that an account belongs to, its default one first."""
    return await LIST_ORGANIZATIONS.all(connection, account_id)


async def default_of(connection: Connection, account_id: UUID) -> Organization | None:
    """Return an account's default organization, if it has any."""
    return await LIST_ORGANIZATIONS.first(connection, account_id)
