"""The documented endpoints of a publisher, one by one. An extension: the contract has them as a list of the publisher.

Each change is made to the list that is there when it is written, under the publisher's lock, so two at once are both
kept.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer
from admin_api.kit.needs import needs
from admin_api.kit.problems import refusals
from admin_api.resources.organization_publishers import desk
from gateway.catalog.endpoint_list import Change, adding, changing, find, id_of, removing
from gateway.catalog.publishers import wire_values
from gateway.catalog.requests import EndpointDefinition, EndpointFields
from gateway.identity.permissions import Permission
from gateway.services import Services

EXTENSION: dict[str, Any] = {"x-extension": True}
router = APIRouter(
    prefix="/organizations/{organization_id}/publishers/{publisher_id}/endpoints",
    tags=["extensions"],
    route_class=StrictRoute,
)


class PublisherEndpoint(EndpointDefinition):
    """An endpoint with its id, which follows from its method and path and stays as long as they do."""

    id: UUID


class PublisherEndpointDataResponse(Answer):
    """Envelope."""

    data: PublisherEndpoint


class PublisherEndpointsDataResponse(Answer):
    """Envelope."""

    data: list[PublisherEndpoint]


@router.get(
    "",
    operation_id="list_publisher_endpoints",
    dependencies=[needs(Permission.PUBLISHERS_READ)],
    responses=refusals(401, 403, 404, 500),
    openapi_extra=EXTENSION,
)
async def list_publisher_endpoints(
    organization_id: UUID, publisher_id: UUID, services: ServicesDep
) -> PublisherEndpointsDataResponse:
    """List a publisher's documented endpoints in their order."""
    endpoints = await _listed(services, organization_id, publisher_id)
    return PublisherEndpointsDataResponse(data=[_shown(publisher_id, one) for one in endpoints])


@router.post(
    "",
    status_code=201,
    operation_id="add_publisher_endpoint",
    dependencies=[needs(Permission.PUBLISHERS_WRITE)],
    responses=refusals(400, 401, 403, 404, 409, 500),
    openapi_extra=EXTENSION,
)
async def add_publisher_endpoint(
    organization_id: UUID, publisher_id: UUID, body: EndpointDefinition, services: ServicesDep
) -> PublisherEndpointDataResponse:
    """Add one endpoint at the end of the list. 409 where its method and path are described already."""
    fresh = wire_values(body)
    endpoints = await _written(
        services, organization_id, publisher_id, "publisher.add_endpoint", adding(publisher_id, fresh)
    )
    return PublisherEndpointDataResponse(data=_shown(publisher_id, endpoints[-1]))


@router.get(
    "/{endpoint_id}",
    operation_id="get_publisher_endpoint",
    dependencies=[needs(Permission.PUBLISHERS_READ)],
    responses=refusals(401, 403, 404, 500),
    openapi_extra=EXTENSION,
)
async def get_publisher_endpoint(
    organization_id: UUID, publisher_id: UUID, endpoint_id: UUID, services: ServicesDep
) -> PublisherEndpointDataResponse:
    """Return one endpoint."""
    endpoints = await _listed(services, organization_id, publisher_id)
    return PublisherEndpointDataResponse(data=_shown(publisher_id, find(publisher_id, endpoints, endpoint_id)))


@router.patch(
    "/{endpoint_id}",
    operation_id="change_publisher_endpoint",
    dependencies=[needs(Permission.PUBLISHERS_WRITE)],
    responses=refusals(400, 401, 403, 404, 500),
    openapi_extra=EXTENSION,
)
async def change_publisher_endpoint(
    organization_id: UUID, publisher_id: UUID, endpoint_id: UUID, body: EndpointFields, services: ServicesDep
) -> PublisherEndpointDataResponse:
    """Change the fields that the body names; null takes one away. Method and path stay: they are what the id says."""
    change = changing(publisher_id, endpoint_id, wire_values(body))
    endpoints = await _written(services, organization_id, publisher_id, "publisher.change_endpoint", change)
    return PublisherEndpointDataResponse(data=_shown(publisher_id, find(publisher_id, endpoints, endpoint_id)))


@router.delete(
    "/{endpoint_id}",
    operation_id="remove_publisher_endpoint",
    dependencies=[needs(Permission.PUBLISHERS_WRITE)],
    responses=refusals(401, 403, 404, 500),
    openapi_extra=EXTENSION,
)
async def remove_publisher_endpoint(
    organization_id: UUID, publisher_id: UUID, endpoint_id: UUID, services: ServicesDep
) -> dict[str, Any]:
    """Take one endpoint out of the list. Its path is sold like any that is not documented then, or not at all."""
    change = removing(publisher_id, endpoint_id)
    await _written(services, organization_id, publisher_id, "publisher.remove_endpoint", change)
    return {}


async def _listed(services: Services, organization_id: UUID, publisher_id: UUID) -> list[dict[str, Any]]:
    async with services.database.acquire() as connection:
        publisher = await desk(services).get(connection, organization_id, publisher_id)
    return publisher.record.document.get("endpoints") or []


async def _written(
    services: Services, organization_id: UUID, publisher_id: UUID, action: str, change: Change
) -> list[dict[str, Any]]:
    publisher = await desk(services).change_endpoints(organization_id, publisher_id, action, change)
    await services.catalog.refresh(publisher_id)
    return publisher.record.document.get("endpoints") or []


def _shown(publisher_id: UUID, endpoint: dict[str, Any]) -> PublisherEndpoint:
    return PublisherEndpoint.model_validate({**endpoint, "id": str(id_of(publisher_id, endpoint))})
