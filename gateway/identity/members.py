"""Who belongs to an organization: listing, giving roles, removing, leaving.

Each change locks the organization first (permissions.locked) and asks again what the actor may: of two owners who
remove each other one is too late, and an organization is never left without an owner. A member changes only who holds
no more than he does, and gives only what he has.

Who goes loses the API keys that he made here, for good: coming back does not bring them back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.audit.entries import record
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, Forbidden, NotFound
from gateway.identity.permissions import STANDING, Member, Permission, Standing, locked
from gateway.identity.roles import Role


@dataclass(frozen=True, slots=True)
class ListedMember:
    """A member as others see it."""

    id: UUID
    organization_id: UUID
    user_id: UUID
    email: str
    name: str
    role: str
    role_id: UUID | None
    created_at: datetime


LIST_MEMBERS = Statement(
    """
    SELECT m.id, m.organization_id, a.id AS user_id, coalesce(a.email, a.id || '@agents.invalid') AS email, a.name,
           coalesce(r.name, m.role) AS role, m.role_id, m.created_at
      FROM identity.membership m
      JOIN identity.account a ON a.id = m.account_id
      LEFT JOIN identity.role r ON r.id = m.role_id
     WHERE m.organization_id = $1 ORDER BY m.created_at, a.id
    """,
    ListedMember,
)
# Owners who can still act; who is disabled does not keep an organization.
OTHER_OWNERS = Statement(
    """
    SELECT count(*) FROM identity.membership m JOIN identity.account a ON a.id = m.account_id
     WHERE m.organization_id = $1 AND m.role = 'owner' AND m.account_id <> $2 AND a.status = 'active'
    """,
    int,
    scalar=True,
)
OWN_PERSONAL = Statement(
    "SELECT is_personal AND created_by = $2 FROM identity.organization WHERE id = $1", bool, scalar=True
)
SET_ROLE = Command(
    "UPDATE identity.membership SET role = $3, role_id = $4 WHERE organization_id = $1 AND account_id = $2"
)
DELETE_MEMBERSHIP = Command("DELETE FROM identity.membership WHERE organization_id = $1 AND account_id = $2")
REVOKE_KEYS_OF_MEMBER = Command(
    """
    UPDATE identity.api_key SET revoked_at = now()
     WHERE organization_id = $1 AND account_id = $2 AND revoked_at IS NULL
    """
)


async def list_members(connection: Connection, organization_id: UUID) -> list[ListedMember]:
    """Return the members of an organization, who joined first first."""
    return await LIST_MEMBERS.all(connection, organization_id)


async def assign_role(connection: Connection, member: Member, account_id: UUID, role: Role) -> None:
    """Give a member another role. Raises NotFound, Forbidden, or Conflict where an owner has to stay."""
    actor = await locked(connection, member, Permission.ORG_MANAGE_MEMBERS)
    before = await _within_reach(connection, actor, account_id)
    demand_can_give(actor, role)
    if role.name != "owner":
        await _demand_owner_stays(connection, actor.organization_id, account_id, before)
    await SET_ROLE.run(connection, actor.organization_id, account_id, *role.stored)
    await record(
        connection, "member.assign_role", actor.organization_id, account_id,
        before={"role": before.name}, after={"role": role.name}, details={"from": before.name, "to": role.name},
    )  # fmt: skip


async def remove_member(connection: Connection, member: Member, account_id: UUID) -> None:
    """Take a member out, with the keys that he made here. Raises what assign_role raises."""
    actor = await locked(connection, member, Permission.ORG_MANAGE_MEMBERS)
    before = await _within_reach(connection, actor, account_id)
    await _remove(connection, actor.organization_id, account_id, before)
    await record(connection, "member.remove", actor.organization_id, account_id, before={"role": before.name})


async def leave(connection: Connection, member: Member) -> None:
    """Take the caller itself out. Raises Conflict where an owner has to stay."""
    actor = await locked(connection, member)
    account_id = actor.caller.account_id
    standing = await STANDING.one(connection, actor.organization_id, account_id)
    await _remove(connection, actor.organization_id, account_id, standing)
    await record(connection, "member.leave", actor.organization_id, account_id, before={"role": standing.name})


def demand_can_give(actor: Member, role: Role) -> None:
    """Raise Forbidden for a role that holds more than who gives it."""
    if not role.permissions <= actor.permissions:
        raise Forbidden(f"You cannot give the role {role.name}: it holds more than you do.")


async def _within_reach(connection: Connection, actor: Member, account_id: UUID) -> Standing:
    """Return what somebody is who holds no more than the actor. Raises NotFound, Forbidden."""
    found = await STANDING.first(connection, actor.organization_id, account_id)
    if found is None:
        raise NotFound("This organization has no member with this id.")
    if not found.held <= actor.permissions:
        raise Forbidden(f"You cannot change a member whose role, {found.name}, holds more than you do.")
    return found


async def _remove(connection: Connection, organization_id: UUID, account_id: UUID, before: Standing) -> None:
    await _demand_owner_stays(connection, organization_id, account_id, before)
    await DELETE_MEMBERSHIP.run(connection, organization_id, account_id)
    await REVOKE_KEYS_OF_MEMBER.run(connection, organization_id, account_id)


async def _demand_owner_stays(
    connection: Connection, organization_id: UUID, account_id: UUID, before: Standing
) -> None:
    if await OWN_PERSONAL.one(connection, organization_id, account_id):
        raise Conflict("This is the account's own organization: it stays its owner.")
    if before.role == "owner" and not await OTHER_OWNERS.one(connection, organization_id, account_id):
        raise Conflict("An organization needs an owner: make somebody else one first.")
