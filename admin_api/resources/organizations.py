"""Category `Organizations`: the organizations that the caller belongs to. Their publishers: organization_publishers."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta
from admin_api.kit.needs import Known
from admin_api.kit.problems import refusals
from gateway.identity.organizations import of_account

router = APIRouter(tags=["Organizations"], route_class=StrictRoute)


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


class OrganizationsResponse(Answer):
    """Envelope."""

    data: list[Organization]
    pagination: PaginationMeta | None = None


@router.get("/organizations", operation_id="list_organizations", responses=refusals(401))
async def list_organizations(caller: Known, services: ServicesDep) -> OrganizationsResponse:
    """List the caller's organizations, the default one first."""
    async with services.database.acquire() as connection:
        found = await of_account(connection, caller.account_id)
    return OrganizationsResponse(data=[Organization.model_validate(organization) for organization in found])
