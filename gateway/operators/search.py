"""Finding accounts, keys and publishers by what people know of them. Pages, newest first, deleted ones included."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.operators.subjects import ID, KEY, PREPAID


@dataclass(frozen=True, slots=True)
class FoundAccount:
    """An account, with the organizations that it is a member of."""

    id: UUID
    kind: str
    name: str
    email: str | None
    status: str
    suspended: bool
    organization_ids: list[UUID]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FoundKey:
    """An API key without its secret."""

    id: UUID
    prefix: str
    name: str
    account_id: UUID
    account_name: str
    organization_id: UUID
    suspended: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class FoundPublisher:
    """A publisher; `status` is the first of deleted, suspended, inactive and active that it is."""

    id: UUID
    slug: str
    name: str
    organization_id: UUID
    status: str
    is_verified: bool
    created_at: datetime
    deleted_at: datetime | None


# $1 is the id that the text is, $2 the text; NULL finds all. Text that is no id has to be the beginning of a name.
ACCOUNTS = Statement(
    """
    SELECT a.id, a.kind, a.name, a.email, a.status, identity.suspension_of(NULL, a.id, NULL) IS NOT NULL AS suspended,
           ARRAY(SELECT m.organization_id FROM identity.membership m WHERE m.account_id = a.id ORDER BY m.created_at)
               AS organization_ids, a.created_at
      FROM identity.account a
     WHERE ($2::text IS NULL OR a.id = $1 OR starts_with(lower(a.email), lower($2))
            OR starts_with(lower(a.name), lower($2))
            OR EXISTS (SELECT FROM identity.membership m WHERE m.account_id = a.id AND m.organization_id = $1))
     ORDER BY a.created_at DESC, a.id DESC LIMIT $3 OFFSET $4
    """,
    FoundAccount,
)
KEYS = Statement(
    """
    SELECT k.id, 'seren_' || k.key_id || '_' AS prefix, k.name, k.account_id, a.name AS account_name, k.organization_id,
           identity.suspension_of(k.id, k.account_id, k.organization_id) IS NOT NULL AS suspended,
           k.created_at, k.expires_at, k.revoked_at, k.last_used_at
      FROM identity.api_key k JOIN identity.account a ON a.id = k.account_id
     WHERE $2::text IS NULL OR k.key_id = $2 OR k.id = $1 OR k.account_id = $1 OR k.organization_id = $1
     ORDER BY k.created_at DESC, k.id DESC LIMIT $3 OFFSET $4
    """,
    FoundKey,
)
PUBLISHERS = Statement(
    """
    SELECT * FROM (
        SELECT p.id, p.slug, p.name, p.organization_id, p.is_verified, p.created_at, p.deleted_at,
               CASE WHEN p.deleted_at IS NOT NULL THEN 'deleted' WHEN p.suspended THEN 'suspended'
                    WHEN p.is_active THEN 'active' ELSE 'inactive' END AS status
          FROM catalog.publisher p
         WHERE $2::text IS NULL OR p.id = $1 OR p.organization_id = $1 OR p.created_by = $1
            OR starts_with(p.slug, lower($2)) OR starts_with(lower(p.name), lower($2))) f
     WHERE $5::text IS NULL OR f.status = $5
     ORDER BY f.created_at DESC, f.id DESC LIMIT $3 OFFSET $4
    """,
    FoundPublisher,
)


async def accounts(connection: Connection, text: str | None, limit: int, offset: int) -> list[FoundAccount]:
    """Return accounts by id, e-mail, name, prepaid wallet (agent:<id>) or organization."""
    wallet = PREPAID.fullmatch(text) if text else None
    named = wallet[1] if wallet else text
    return await ACCOUNTS.all(connection, _id(named), named, limit, offset)


async def keys(connection: Connection, text: str | None, limit: int, offset: int) -> list[FoundKey]:
    """Return keys by prefix, key id or id, or those of an account or organization. A whole key is cut."""
    key = KEY.fullmatch(text) if text else None
    named = key[1] if key else text
    return await KEYS.all(connection, _id(named), named, limit, offset)


async def publishers(
    connection: Connection, text: str | None, status: str | None, limit: int, offset: int
) -> list[FoundPublisher]:
    """Return publishers by slug, name, id, or those of an organization or of who created them."""
    return await PUBLISHERS.all(connection, _id(text), text, limit, offset, status)


def _id(text: str | None) -> UUID | None:
    return UUID(text) if text and ID.fullmatch(text) else None
