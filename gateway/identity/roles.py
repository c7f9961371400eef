"""The roles of an organization: four built-in ones, which are code, and those that it made itself, which are rows.

Nobody gives what he does not have: a custom role is made and changed by who holds all that it held and will hold, and
given by who holds it all. Changes lock the organization (permissions.locked), so that each sees the one before.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from gateway.audit.entries import record
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, Forbidden, InvalidRequest, NotFound
from gateway.identity.permissions import ROLES, Member, Permission, locked
from gateway.ids import uuid7

MAX_ROLES = 100
INVITED_AS = "member"
"""What the contract calls the role of somebody who was invited without another one: a viewer."""
RESERVED = frozenset([*ROLES, INVITED_AS, "custom"])
_NAMESPACE = UUID("5b0f5f5e-1f0c-4a55-9d57-2f3d7c1e6a10")
INTRODUCED = datetime(2026, 1, 1, tzinfo=UTC)
"""When built-in roles and permissions are said to have been made: the contract wants a moment for each."""
DESCRIPTIONS = {
    "owner": "Everything.",
    "admin": "Everything but deleting the organization and making or changing owners.",
    "editor": "Reads everything; writes publishers, webhooks, OAuth providers and own API keys.",
    "viewer": "Reads everything.",
}


@dataclass(frozen=True, slots=True)
class Role:
    """A role that can be given in an organization."""

    id: UUID
    name: str
    description: str | None
    permissions: frozenset[Permission]
    is_built_in: bool
    created_at: datetime

    @property
    def stored(self) -> tuple[str, UUID | None]:
        """Return the columns `role` and `role_id` of who has it."""
        return (self.name, None) if self.is_built_in else ("custom", self.id)


def id_of(name: str) -> UUID:
    """Return the fixed id of something that is code: a built-in role, a permission."""
    return uuid5(_NAMESPACE, name)


BUILT_IN = {
    name: Role(id_of(f"role:{name}"), name, DESCRIPTIONS[name], held, True, INTRODUCED) for name, held in ROLES.items()
}


def _row(*, permissions: list[str], **columns: Any) -> Role:
    held = frozenset(one for one in Permission if one.value in permissions)
    return Role(**columns, permissions=held, is_built_in=False)


LIST_ROLES = Statement(
    """
    SELECT id, name, description, permissions, created_at FROM identity.role WHERE organization_id = $1
     ORDER BY created_at, id
    """,
    _row,
)
INSERT_ROLE = Command(
    "INSERT INTO identity.role (id, organization_id, name, description, permissions) VALUES ($1, $2, $3, $4, $5)"
)
UPDATE_ROLE = Command("UPDATE identity.role SET name = $2, description = $3, permissions = $4 WHERE id = $1")
DELETE_ROLE = Command("DELETE FROM identity.role WHERE id = $1")
ROLE_IN_USE = Statement(
    """
    SELECT EXISTS (SELECT FROM identity.membership WHERE organization_id = $1 AND role_id = $2)
        OR EXISTS (SELECT FROM identity.invitation
                    WHERE role_id = $2 AND expires_at > now()
                      AND num_nonnulls(accepted_at, declined_at, revoked_at) = 0)
    """,
    bool,
    scalar=True,
)


async def list_roles(connection: Connection, organization_id: UUID) -> list[Role]:
    """Return every role of an organization: the built-in ones first, then its own, oldest first."""
    return [*BUILT_IN.values(), *await LIST_ROLES.all(connection, organization_id)]


async def find_role(
    connection: Connection, organization_id: UUID, *, role_id: UUID | None = None, name: str | None = None
) -> Role | None:
    """Return the role with this id, or else with this name in any case."""
    for role in await list_roles(connection, organization_id):
        if role.id == role_id or (role_id is None and name is not None and role.name.lower() == name.lower()):
            return role
    return None


async def create_role(
    connection: Connection, member: Member, name: str, description: str | None, permissions: Collection[Permission]
) -> Role:
    """Make a custom role. Raises Conflict for a taken name, Forbidden for more than the member holds."""
    actor = await locked(connection, member, Permission.ORG_MANAGE_ROLES)
    _demand_all(actor, permissions)
    there = await LIST_ROLES.all(connection, actor.organization_id)
    if len(there) >= MAX_ROLES:
        raise Conflict(f"This organization has {MAX_ROLES} roles of its own; delete some first.")
    _check_name(name, there)
    made = Role(uuid7(), name, description, frozenset(permissions), False, datetime.now(UTC))
    await INSERT_ROLE.run(connection, made.id, actor.organization_id, name, description, _names(permissions))
    await record(connection, "role.create", actor.organization_id, made.id, after=_shown(made), details={"name": name})
    return await _own(connection, actor.organization_id, made.id)


async def update_role(connection: Connection, member: Member, role_id: UUID, changes: dict[str, Any]) -> Role:
    """Change what `changes` names of a custom role. Raises what create_role raises, NotFound, InvalidRequest."""
    actor = await locked(connection, member, Permission.ORG_MANAGE_ROLES)
    before = await _own(connection, actor.organization_id, role_id)
    name: str = changes.get("name", before.name)
    permissions: Collection[Permission] = changes.get("permissions", before.permissions)
    _demand_all(actor, before.permissions | frozenset(permissions))
    _check_name(name, [one for one in await LIST_ROLES.all(connection, actor.organization_id) if one.id != role_id])
    description = changes.get("description", before.description)
    await UPDATE_ROLE.run(connection, role_id, name, description, _names(permissions))
    after = await _own(connection, actor.organization_id, role_id)
    await record(
        connection, "role.update", actor.organization_id, role_id,
        before=_shown(before), after=_shown(after), details={"name": name},
    )  # fmt: skip
    return after


async def delete_role(connection: Connection, member: Member, role_id: UUID) -> None:
    """Delete a custom role that nobody has. Raises Conflict for one that is in use, NotFound, InvalidRequest."""
    actor = await locked(connection, member, Permission.ORG_MANAGE_ROLES)
    before = await _own(connection, actor.organization_id, role_id)
    _demand_all(actor, before.permissions)
    if await ROLE_IN_USE.one(connection, actor.organization_id, role_id):
        raise Conflict("A member or an open invitation has this role; give them another one first.")
    await DELETE_ROLE.run(connection, role_id)
    await record(
        connection, "role.delete", actor.organization_id, role_id, before=_shown(before), details={"name": before.name}
    )


async def _own(connection: Connection, organization_id: UUID, role_id: UUID) -> Role:
    """Return a custom role. Raises NotFound, or InvalidRequest for a built-in one."""
    found = await find_role(connection, organization_id, role_id=role_id)
    if found is None:
        raise NotFound("This organization has no role with this id.")
    if found.is_built_in:
        raise InvalidRequest(f"The role {found.name} is built in: it can be neither changed nor deleted.")
    return found


def _demand_all(actor: Member, permissions: Collection[Permission]) -> None:
    lacking = sorted(one.value for one in permissions if one not in actor.permissions)
    if lacking:
        raise Forbidden(f"Nobody gives what he does not have, and you lack {', '.join(lacking)}.")


def _check_name(name: str, others: Collection[Role]) -> None:
    if name.lower() in RESERVED or name.lower() in [one.name.lower() for one in others]:
        raise Conflict("Another role has this name, or it is reserved. Choose another one.", field="name")


def _names(permissions: Collection[Permission]) -> list[str]:
    return sorted(one.value for one in permissions)


def _shown(role: Role) -> dict[str, object]:
    return {"name": role.name, "description": role.description, "permissions": _names(role.permissions)}
