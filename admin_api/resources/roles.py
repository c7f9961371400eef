"""Category `RBAC`: what can be permitted, the roles of an organization, and what the caller may do in it."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, StrictStr
from starlette.responses import PlainTextResponse

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta
from admin_api.kit.needs import AUTHENTICATED, AnyMember, needs
from admin_api.kit.problems import refusals
from gateway.catalog.refusals import refused
from gateway.errors import NotFound
from gateway.identity import names, permissions, roles
from gateway.identity.permissions import Member
from gateway.identity.roles import Role
from gateway.request_body import RequestBody

router = APIRouter(tags=["RBAC"], route_class=StrictRoute)
BASE = "/organizations/{organization_id}"
Manager = Annotated[Member, needs(permissions.Permission.ORG_MANAGE_ROLES)]
Description = Annotated[StrictStr, Field(max_length=500)]
PermissionNames = Annotated[list[StrictStr], Field(max_length=100)]


class Permission(Answer):
    """One permission: an action on a type of resource."""

    id: UUID
    name: str
    resource_type: str
    action: str
    description: str | None
    created_at: Moment


class RbacRole(Answer):
    """A role with what it holds."""

    id: UUID
    name: str
    description: str | None
    permissions: list[str]
    is_built_in: bool
    created_at: Moment


class RbacRoleResponse(Answer):
    """Envelope."""

    data: RbacRole
    pagination: PaginationMeta | None = None


class RbacRolesResponse(Answer):
    """Envelope."""

    data: list[RbacRole]
    pagination: PaginationMeta | None = None


class CreateRoleRequest(RequestBody):
    """A role and the names of what it holds."""

    name: Annotated[StrictStr, Field(max_length=256)]
    description: Description | None = None
    permissions: PermissionNames


class UpdateRoleRequest(RequestBody):
    """What is to change. A description of null is none; another null is left as it is."""

    name: Annotated[StrictStr, Field(max_length=256)] | None = None
    description: Description | None = None
    permissions: PermissionNames | None = None


@router.get("/permissions", operation_id="list_permissions", dependencies=[AUTHENTICATED], responses=refusals(401))
async def list_permissions() -> list[Permission]:
    """List every permission that a role can hold."""
    return [
        Permission(
            id=roles.id_of(f"permission:{one.value}"),
            name=one.value,
            resource_type=one.value.partition(".")[0],
            action=one.value.partition(".")[2],
            description=permissions.DESCRIPTIONS[one],
            created_at=roles.INTRODUCED,
        )
        for one in permissions.Permission
    ]


@router.get(f"{BASE}/permissions/mine", operation_id="get_my_permissions", responses=refusals(401, 403))
async def get_my_permissions(member: AnyMember) -> list[str]:
    """List what the caller may do in an organization: what its role holds, less what its API key's scopes leave out."""
    return sorted(one.value for one in member.permissions)


@router.get(
    f"{BASE}/permissions/check/{{permission}}",
    operation_id="check_permission",
    response_class=PlainTextResponse,
    responses={**refusals(401, 403), 200: {"content": {"text/plain": {"schema": {"type": "boolean"}}}}},
)
async def check_permission(permission: str, member: AnyMember) -> PlainTextResponse:
    """Say whether the caller may do something in an organization; a permission that does not exist is `false`."""
    return PlainTextResponse("true" if permission in [one.value for one in member.permissions] else "false")


@router.get(f"{BASE}/roles", operation_id="list_organization_roles", responses=refusals(401, 403))
async def list_organization_roles(member: AnyMember, services: ServicesDep) -> RbacRolesResponse:
    """List the roles that can be given: the built-in ones, then the organization's own."""
    async with services.database.acquire() as connection:
        found = await roles.list_roles(connection, member.organization_id)
    return RbacRolesResponse(data=[_shown(role) for role in found])


@router.post(
    f"{BASE}/roles",
    status_code=201,
    operation_id="create_organization_role",
    responses=refusals(400, 401, 403, 409),
)
async def create_organization_role(body: CreateRoleRequest, member: Manager, services: ServicesDep) -> RbacRoleResponse:
    """Make a custom role. It holds no more than the caller does."""
    name, held = _name(body.name), _permissions(body.permissions)
    async with services.database.transaction() as connection:
        made = await roles.create_role(connection, member, name, body.description, held)
    return RbacRoleResponse(data=_shown(made))


@router.get(f"{BASE}/roles/{{role_id}}", operation_id="get_role", responses=refusals(401, 403, 404))
async def get_role(role_id: UUID, member: AnyMember, services: ServicesDep) -> RbacRoleResponse:
    """Return one role."""
    async with services.database.acquire() as connection:
        found = await roles.find_role(connection, member.organization_id, role_id=role_id)
    if found is None:
        raise NotFound("This organization has no role with this id.")
    return RbacRoleResponse(data=_shown(found))


@router.patch(f"{BASE}/roles/{{role_id}}", operation_id="update_role", responses=refusals(400, 401, 403, 404, 409))
async def update_role(
    role_id: UUID, body: UpdateRoleRequest, member: Manager, services: ServicesDep
) -> RbacRoleResponse:
    """Change a custom role. Who has it may do what it holds from then on."""
    changes: dict[str, Any] = {}
    if body.name is not None:
        changes["name"] = _name(body.name)
    if body.permissions is not None:
        changes["permissions"] = _permissions(body.permissions)
    if "description" in body.model_fields_set:
        changes["description"] = body.description
    async with services.database.transaction() as connection:
        found = await roles.update_role(connection, member, role_id, changes)
    return RbacRoleResponse(data=_shown(found))


@router.delete(
    f"{BASE}/roles/{{role_id}}",
    status_code=204,
    operation_id="delete_organization_role",
    responses=refusals(400, 401, 403, 404, 409),
)
async def delete_organization_role(role_id: UUID, member: Manager, services: ServicesDep) -> None:
    """Delete a custom role that no member and no open invitation has."""
    async with services.database.transaction() as connection:
        await roles.delete_role(connection, member, role_id)


def _name(text: str) -> str:
    try:
        return names.check(text)
    except names.NameRefused as error:
        raise refused("name", str(error)) from None


def _permissions(given: list[str]) -> frozenset[permissions.Permission]:
    known = {one.value: one for one in permissions.Permission}
    if any(name not in known for name in given):
        raise refused("permissions", "has a name that GET /permissions does not list")
    return frozenset(known[name] for name in given)


def _shown(role: Role) -> RbacRole:
    return RbacRole(
        id=role.id,
        name=role.name,
        description=role.description,
        permissions=sorted(one.value for one in role.permissions),
        is_built_in=role.is_built_in,
        created_at=role.created_at,
    )
