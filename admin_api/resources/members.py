"""Categories `Organizations` and `RBAC`: who belongs to an organization, and as what. Removing and leaving are
extensions. A member is addressed by its account's id.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import Field, StrictStr

from admin_api.kit.access import Caller, ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta
from admin_api.kit.needs import declares, needs
from admin_api.kit.problems import refusals
from gateway.catalog.refusals import refused
from gateway.identity import members
from gateway.identity.permissions import AccountRight, Member, Permission, demand_right, membership
from gateway.identity.roles import find_role
from gateway.request_body import RequestBody

router = APIRouter(prefix="/organizations/{organization_id}", route_class=StrictRoute)
EXTENSION: dict[str, Any] = {"x-extension": True}


@declares("member and account.manage")
async def leaver(organization_id: UUID, caller: Caller, services: ServicesDep) -> Member:
    """Return a member whose key may manage its account."""
    async with services.database.acquire() as connection:
        found = await membership(connection, caller, organization_id)
    demand_right(caller, AccountRight.ACCOUNT_MANAGE)
    return found


class OrganizationMemberWithUser(Answer):
    """A member. Agents have no mailbox: theirs is an undeliverable address. `role_id` is a custom role's."""

    id: UUID
    organization_id: UUID
    user_id: UUID
    email: str
    name: str | None
    role: str
    role_id: UUID | None
    created_at: Moment


class OrganizationMembersResponse(Answer):
    """Envelope."""

    data: list[OrganizationMemberWithUser]
    pagination: PaginationMeta | None = None


class AssignRoleRequest(RequestBody):
    """A role by its id or by its name; where both are there they have to mean the same one."""

    role_id: UUID | None = None
    role_name: Annotated[StrictStr, Field(max_length=256)] | None = None


@router.get("/members", operation_id="list_members", tags=["Organizations"], responses=refusals(403, 500))
async def list_members(
    member: Annotated[Member, needs(Permission.ORG_READ)], services: ServicesDep
) -> OrganizationMembersResponse:
    """List the members, who joined first first."""
    async with services.database.acquire() as connection:
        found = await members.list_members(connection, member.organization_id)
    return OrganizationMembersResponse(data=[OrganizationMemberWithUser.model_validate(one) for one in found])


@router.put(
    "/members/{member_id}/role",
    operation_id="assign_role",
    tags=["RBAC"],
    responses=refusals(400, 401, 403, 404, 409),
)
async def assign_role(
    member_id: UUID,
    body: AssignRoleRequest,
    member: Annotated[Member, needs(Permission.ORG_MANAGE_MEMBERS)],
    services: ServicesDep,
) -> dict[str, Any]:
    """Give a member another role: one that holds no more than the caller does, as the member's present one must."""
    if body.role_id is None and body.role_name is None:
        raise refused("role_id", "or role_name is required")
    async with services.database.transaction() as connection:
        role = await find_role(connection, member.organization_id, role_id=body.role_id, name=body.role_name)
        if role is None:
            raise refused("role_id" if body.role_id else "role_name", "is no role of this organization")
        if body.role_name is not None and body.role_name.lower() != role.name.lower():
            raise refused("role_name", "is not the name of the role that role_id means")
        await members.assign_role(connection, member, member_id, role)
    return {}


@router.delete(
    "/members/{member_id}",
    status_code=204,
    operation_id="remove_member",
    tags=["Organizations"],
    responses=refusals(401, 403, 404, 409),
    openapi_extra=EXTENSION,
)
async def remove_member(
    member_id: UUID, member: Annotated[Member, needs(Permission.ORG_MANAGE_MEMBERS)], services: ServicesDep
) -> None:
    """Take a member out. The API keys that it made in this organization are revoked for good."""
    async with services.database.transaction() as connection:
        await members.remove_member(connection, member, member_id)
    services.identities.told(f"account:{member_id}")


@router.post(
    "/leave",
    status_code=204,
    operation_id="leave_organization",
    tags=["Organizations"],
    responses=refusals(401, 403, 409),
    openapi_extra=EXTENSION,
)
async def leave_organization(member: Annotated[Member, Depends(leaver)], services: ServicesDep) -> None:
    """Leave an organization. The API keys that the caller made in it are revoked for good."""
    async with services.database.transaction() as connection:
        await members.leave(connection, member)
    services.identities.told(f"account:{member.caller.account_id}")
