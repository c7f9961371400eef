"""The one place that answers "may this account do X in organization O".

Roles are sets of permissions; a membership gives one role. An organization that the caller is not in is answered
exactly like one that does not exist (403), so that ids cannot be probed. What does not live here: which object belongs
to which organization; resources look objects up *inside* the organization, and answer 404 when they are not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from gateway.database.pool import Connection
from gateway.database.statement import Statement
from gateway.errors import Forbidden


class Permission(StrEnum):
    """What can be done inside an organization, as `resource.action`."""

    ORG_READ = "org.read"
    ORG_DELETE = "org.delete"
    ORG_CHANGE_OWNER = "org.change_owner"
    ORG_MANAGE_MEMBERS = "org.manage_members"
    ORG_MANAGE_ROLES = "org.manage_roles"
    API_KEYS_READ = "api_keys.read"
    API_KEYS_CREATE = "api_keys.create"
    API_KEYS_MANAGE = "api_keys.manage"  # other members' keys
    PUBLISHERS_READ = "publishers.read"
    PUBLISHERS_WRITE = "publishers.write"
    EARNINGS_READ = "earnings.read"
    PAYOUTS_CREATE = "payouts.create"


_VIEWER = frozenset(
    {
        Permission.ORG_READ,
        Permission.API_KEYS_READ,
        Permission.PUBLISHERS_READ,
        Permission.EARNINGS_READ,
    }
)
_EDITOR = _VIEWER | {Permission.API_KEYS_CREATE, Permission.PUBLISHERS_WRITE}
_OWNER = frozenset(Permission)
_ADMIN = _OWNER - {Permission.ORG_DELETE, Permission.ORG_CHANGE_OWNER}

ROLES: dict[str, frozenset[Permission]] = {"owner": _OWNER, "admin": _ADMIN, "editor": _EDITOR, "viewer": _VIEWER}
"""DECISIONS: owner everything; admin all but deleting and owner changes; editor writes resources; viewer reads."""

ROLE_IN = Statement(
    """
    SELECT m.role FROM identity.membership m JOIN identity.organization o ON o.id = m.organization_id
     WHERE m.organization_id = $1 AND m.account_id = $2 AND o.deleted_at IS NULL
    """,
    str,
    scalar=True,
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The account may; `role` is what it is in the organization."""

    role: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The account may not; `reason` is fit for the caller's eyes."""

    reason: str


def decide(role: str | None, permission: Permission) -> Allowed | Denied:
    """Return whether a role holds a permission. `None` is a caller without membership."""
    if role is None:
        return Denied("You are not a member of this organization.")
    if permission in ROLES.get(role, frozenset()):
        return Allowed(role)
    return Denied(f"Your role in this organization, {role}, lacks the permission {permission.value}.")


async def require(connection: Connection, account_id: UUID, organization_id: UUID, permission: Permission) -> Allowed:
    """Return the caller's role when it may. Raises Forbidden otherwise, also for an unknown organization."""
    verdict = decide(await ROLE_IN.first(connection, organization_id, account_id), permission)
    if isinstance(verdict, Denied):
        raise Forbidden(verdict.reason)
    return verdict
