"""API keys of an organization: list, create, revoke. Only hashes are stored; a key's text exists in one answer.

A key acts as the account that made it. Its owner may always revoke it; keys of other members take the permission to
manage them. Revoked keys stay listed. What does not live here: recognising a key (principals.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, Forbidden, NotFound
from gateway.identity.accounts import add_key
from gateway.identity.permissions import Denied, Permission, decide
from gateway.identity.principals import Principal, refused_key

MAX_DAYS = 3_650
MAX_LIVE_KEYS = 1_000
"""Live keys of one organization: far above honest use, low enough that nobody fills the table."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key after its creation."""

    id: UUID
    key_id: str
    name: str
    organization_id: UUID
    account_id: UUID
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    @property
    def prefix(self) -> str:
        """Return the public part, by which people recognise their key."""
        return f"seren_{self.key_id}_"


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key with its text, which is shown once."""

    record: ApiKey
    text: str


LIST_KEYS = Statement(
    """
    SELECT id, key_id, name, organization_id, account_id, created_at, expires_at, revoked_at, last_used_at
      FROM identity.api_key WHERE organization_id = $1 ORDER BY created_at DESC, id DESC
    """,
    ApiKey,
)
FIND_KEY_ROW = Statement(
    """
    SELECT id, key_id, name, organization_id, account_id, created_at, expires_at, revoked_at, last_used_at
      FROM identity.api_key WHERE organization_id = $1 AND id = $2
    """,
    ApiKey,
)
COUNT_LIVE_KEYS = Statement(
    """
    SELECT count(*) FROM identity.api_key
     WHERE organization_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    """,
    int,
    scalar=True,
)
# Waits for a recovery or revocation that is under way, and then finds nothing: no key outlives the one that made it.
LOCK_MAKER = Statement(
    """
    SELECT k.key_id FROM identity.account a JOIN identity.api_key k ON k.account_id = a.id
     WHERE k.id = $1 AND a.status = 'active' AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
       FOR SHARE OF a, k
    """,
    str,
    scalar=True,
)
REVOKE_KEY = Command("UPDATE identity.api_key SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL")


async def list_keys(connection: Connection, organization_id: UUID) -> list[ApiKey]:
    """Return every key of an organization, newest first, revoked ones included."""
    return await LIST_KEYS.all(connection, organization_id)


async def create_key(
    connection: Connection, organization_id: UUID, maker: Principal, name: str, expires_in_days: int | None
) -> CreatedKey:
    """Make a key that acts as its maker. Raises Conflict when the organization has too many live ones.

    Raises Unauthenticated when the maker's own key has died since it was looked up.
    """
    if await LOCK_MAKER.first(connection, maker.api_key_id) is None:
        raise refused_key()
    if await COUNT_LIVE_KEYS.one(connection, organization_id) >= MAX_LIVE_KEYS:
        raise Conflict(f"This organization has {MAX_LIVE_KEYS} live keys; revoke some first.")
    expires_at = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)
    key_row, key = await add_key(
        connection, name=name, organization_id=organization_id, account_id=maker.account_id, expires_at=expires_at
    )
    return CreatedKey(await FIND_KEY_ROW.one(connection, organization_id, key_row), key.text)


async def revoke_key(
    connection: Connection, organization_id: UUID, key_row: UUID, *, account_id: UUID, role: str
) -> ApiKey:
    """Revoke a key of the organization; doing it again changes nothing. Raises NotFound or Forbidden."""
    found = await FIND_KEY_ROW.first(connection, organization_id, key_row)
    if found is None:
        raise NotFound("This organization has no API key with this id.")
    if found.account_id != account_id:
        verdict = decide(role, Permission.API_KEYS_MANAGE)
        if isinstance(verdict, Denied):
            raise Forbidden(verdict.reason)
    await REVOKE_KEY.run(connection, key_row)
    return found
