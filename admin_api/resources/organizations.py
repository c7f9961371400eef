"""Category `Organizations`: the organizations that the caller belongs to, and shared ones that it makes.

Making, renaming and deleting are extensions. Members: members.py; publishers: organization_publishers.py.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, StrictStr

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta, SuspensionTold
from admin_api.kit.needs import AccountManager, Known, needs
from admin_api.kit.problems import refusals
from gateway.catalog.fields import EXTENSION as ADDED
from gateway.catalog.refusals import refused
from gateway.identity import names, organizations
from gateway.identity.permissions import Member, Permission
from gateway.request_body import RequestBody

router = APIRouter(tags=["Organizations"], route_class=StrictRoute)
EXTENSION: dict[str, Any] = {"x-extension": True}


class Organization(Answer):
    """One organization."""

    id: UUID
    name: str
    slug: str
    is_personal: bool
    created_by: UUID
    stripe_customer_id: str | None
    created_at: Moment
    updated_at: Moment
    deleted_at: Moment | None
    suspension: Annotated[SuspensionTold | None, ADDED]


class OrganizationResponse(Answer):
    """Envelope."""

    data: Organization


class OrganizationsResponse(Answer):
    """Envelope."""

    data: list[Organization]
    pagination: PaginationMeta | None = None


class OrganizationName(RequestBody):
    """What an organization is called."""

    name: Annotated[StrictStr, Field(max_length=256)]


@router.get("/organizations", operation_id="list_organizations", responses=refusals(401))
async def list_organizations(caller: Known, services: ServicesDep) -> OrganizationsResponse:
    """List the caller's organizations, the default one first."""
    async with services.database.acquire() as connection:
        found = await organizations.of_account(connection, caller.account_id)
    return OrganizationsResponse(data=[Organization.model_validate(organization) for organization in found])


@router.post(
    "/organizations",
    status_code=201,
    operation_id="create_organization",
    responses=refusals(400, 401, 403, 409),
    openapi_extra=EXTENSION,
)
async def create_organization(
    body: OrganizationName, caller: AccountManager, services: ServicesDep
) -> OrganizationResponse:
    """Make a shared organization; the caller is its owner."""
    async with services.database.transaction() as connection:
        made = await organizations.create_organization(connection, caller.account_id, _name(body))
    return OrganizationResponse(data=Organization.model_validate(made))


@router.get(
    "/organizations/{organization_id}",
    operation_id="get_organization",
    responses=refusals(401, 403),
    openapi_extra=EXTENSION,
)
async def get_organization(
    member: Annotated[Member, needs(Permission.ORG_READ)], services: ServicesDep
) -> OrganizationResponse:
    """Return one organization."""
    async with services.database.acquire() as connection:
        found = await organizations.load_organization(connection, member.organization_id)
    return OrganizationResponse(data=Organization.model_validate(found))


@router.patch(
    "/organizations/{organization_id}",
    operation_id="update_organization",
    responses=refusals(400, 401, 403),
    openapi_extra=EXTENSION,
)
async def update_organization(
    body: OrganizationName, member: Annotated[Member, needs(Permission.ORG_UPDATE)], services: ServicesDep
) -> OrganizationResponse:
    """Rename an organization. Its slug stays."""
    async with services.database.transaction() as connection:
        found = await organizations.rename_organization(connection, member, _name(body))
    return OrganizationResponse(data=Organization.model_validate(found))


@router.delete(
    "/organizations/{organization_id}",
    status_code=204,
    operation_id="delete_organization",
    responses=refusals(401, 403, 409),
    openapi_extra=EXTENSION,
)
async def delete_organization(member: Annotated[Member, needs(Permission.ORG_DELETE)], services: ServicesDep) -> None:
    """Delete a shared organization that has no publishers. Its API keys and invitations die with it."""
    async with services.database.transaction() as connection:
        await organizations.delete_organization(connection, member)
    services.identities.forget()


def _name(body: OrganizationName) -> str:
    try:
        return names.check(body.name, longest=100)
    except names.NameRefused as error:
        raise refused("name", str(error)) from None
