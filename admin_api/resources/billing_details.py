"""Who an organization is to a bookkeeper: what stands on its invoices. Extensions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field, StrictStr

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment
from admin_api.kit.needs import needs
from admin_api.kit.problems import refusals
from gateway.billing.invoices import details
from gateway.billing.invoices.document import clean
from gateway.catalog.refusals import refused
from gateway.countries import COUNTRIES
from gateway.identity.permissions import Member, Permission
from gateway.request_body import RequestBody

router = APIRouter(tags=["billing"], route_class=StrictRoute)
EXTENSION: dict[str, Any] = {"x-extension": True}


class BillingDetailsRequest(RequestBody):
    """Who the organization is to a bookkeeper. `address` has several lines; `country` is ISO 3166, such as DE."""

    legal_name: Annotated[StrictStr, Field(min_length=1, max_length=200)]
    address: Annotated[StrictStr, Field(min_length=1, max_length=500)]
    country: Annotated[StrictStr, Field(pattern="^[A-Z]{2}$")]
    tax_id: Annotated[StrictStr, Field(min_length=1, max_length=40)] | None = None


class BillingDetails(Answer):
    """What stands on the organization's next invoices."""

    legal_name: str
    address: str
    country: str
    tax_id: str | None
    updated_at: Moment


class BillingDetailsResponse(Answer):
    """Envelope; `data` is null while none were given."""

    data: BillingDetails | None


@router.get(
    "/organizations/{organization_id}/billing-details",
    operation_id="get_billing_details",
    responses=refusals(401, 403),
    openapi_extra=EXTENSION,
)
async def get_billing_details(
    member: Annotated[Member, needs(Permission.BILLING_READ)], services: ServicesDep
) -> BillingDetailsResponse:
    """Return what stands on the organization's next invoices, null while nothing was given."""
    async with services.database.acquire() as connection:
        found = await details.find(connection, member.organization_id)
    return BillingDetailsResponse(data=None if found is None else BillingDetails.model_validate(found))


@router.put(
    "/organizations/{organization_id}/billing-details",
    operation_id="update_billing_details",
    responses=refusals(400, 401, 403),
    openapi_extra=EXTENSION,
)
async def update_billing_details(
    body: BillingDetailsRequest, member: Annotated[Member, needs(Permission.BILLING_MANAGE)], services: ServicesDep
) -> BillingDetailsResponse:
    """Replace what stands on the organization's next invoices. Those that are issued keep what they say."""
    for name in ("legal_name", "address", "tax_id"):
        value = getattr(body, name)
        if value is not None and not clean(value):
            raise refused(name, "must not be blank")
    if body.country not in COUNTRIES:
        raise refused("country", "is no ISO 3166 country such as DE or GB")
    given = details.Details(body.legal_name.strip(), body.address.strip(), body.country, body.tax_id)
    async with services.database.transaction() as connection:
        stored = await details.put(connection, member, given)
    return BillingDetailsResponse(data=BillingDetails.model_validate(stored))
