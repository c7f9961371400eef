"""Category `Organizations`: the publishers of an organization, from their owner's side.

Every operation declares what it needs in the organization of the path, and looks the publisher up inside it: who is not
a member learns nothing (403), and another organization's publisher is not there (404).
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, StrictStr

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.needs import needs
from admin_api.kit.problems import refusals
from admin_api.resources import publisher_models as models
from admin_api.store.readiness import not_ready
from gateway.catalog import logos
from gateway.catalog.assets import Asset
from gateway.catalog.earnings import Earnings
from gateway.catalog.history import note
from gateway.catalog.publishers import PublisherDesk
from gateway.catalog.records import FIND_EVEN_DELETED, LIST_OF_ORGANIZATION, TOUCH_PUBLISHER, Publisher, assemble
from gateway.catalog.refusals import refused
from gateway.catalog.requests import CreatePublisherRequest, UpdatePricingRequest, UpdatePublisherRequest
from gateway.catalog.sales import FIND_SALE, schema_view
from gateway.catalog.urls import UrlPolicy
from gateway.catalog.views import asset_view, logo_url, owner_view
from gateway.database.pool import Connection
from gateway.errors import NotFound
from gateway.identity.permissions import Member, Permission
from gateway.request_body import RequestBody
from gateway.services import Services
from gateway.upstreams.postgres.onboarding import DatabaseInspector

router = APIRouter(
    prefix="/organizations/{organization_id}/publishers", tags=["Organizations"], route_class=StrictRoute
)


class LogoUploadRequest(RequestBody):
    """A logo as base64."""

    logo: Annotated[StrictStr, Field(max_length=2_000_000)]
    content_type: StrictStr


@router.get(
    "",
    operation_id="list_org_publishers",
    dependencies=[needs(Permission.PUBLISHERS_READ)],
    responses=refusals(401, 403, 500),
)
async def list_org_publishers(organization_id: UUID, services: ServicesDep) -> models.PublishersDataResponse:
    """List the organization's publishers, inactive ones too, newest first. Deleted ones are gone."""
    async with services.database.acquire() as connection:
        publishers = await assemble(connection, await LIST_OF_ORGANIZATION.all(connection, organization_id))
    return models.PublishersDataResponse(data=[_shown(services, publisher) for publisher in publishers])


@router.post("", status_code=201, operation_id="create_publisher", responses=refusals(400, 401, 403, 409, 500))
async def create_publisher(
    organization_id: UUID,
    body: CreatePublisherRequest,
    member: Annotated[Member, needs(Permission.PUBLISHERS_WRITE)],
    services: ServicesDep,
) -> models.PublisherDataResponse:
    """Create a publisher. It is in the store at once, and can be called."""

    async def room(connection: Connection) -> None:
        await services.plans.demand_room(connection, organization_id, "publishers")

    publisher = await desk(services).create(organization_id, member.caller.account_id, body, room)
    return await _changed(services, publisher)


@router.get(
    "/{publisher_id}",
    operation_id="get_org_publisher",
    dependencies=[needs(Permission.PUBLISHERS_READ)],
    responses=refusals(401, 403, 404, 500),
)
async def get_org_publisher(
    organization_id: UUID, publisher_id: UUID, services: ServicesDep
) -> models.PublisherDataResponse:
    """Return a publisher as its owner sees it; credentials are never shown."""
    publisher = await _owned(services, organization_id, publisher_id)
    return await _with_schema(services, publisher)


@router.put(
    "/{publisher_id}",
    operation_id="update_publisher",
    dependencies=[needs(Permission.PUBLISHERS_WRITE)],
    responses=refusals(400, 401, 403, 404, 500),
)
async def update_publisher(
    organization_id: UUID, publisher_id: UUID, body: UpdatePublisherRequest, services: ServicesDep
) -> models.PublisherDataResponse:
    """Change the fields that the body names. Null clears a field that may be empty."""
    return await _changed(services, await desk(services).update(organization_id, publisher_id, body))


@router.delete(
    "/{publisher_id}",
    operation_id="delete_publisher",
    dependencies=[needs(Permission.PUBLISHERS_WRITE)],
    responses=refusals(401, 403, 404, 500),
)
async def delete_publisher(organization_id: UUID, publisher_id: UUID, services: ServicesDep) -> dict[str, Any]:
    """Delete a publisher: it cannot be called any more, its credentials are destroyed, its slug stays reserved."""
    await desk(services).delete(organization_id, publisher_id)
    await services.catalog.refresh(publisher_id)
    return {}


@router.put(
    "/{publisher_id}/pricing",
    operation_id="update_publisher_pricing",
    dependencies=[needs(Permission.PUBLISHERS_WRITE)],
    responses=refusals(400, 401, 403, 404, 500),
)
async def update_publisher_pricing(
    organization_id: UUID, publisher_id: UUID, body: UpdatePricingRequest, services: ServicesDep
) -> models.PricingConfigDataResponse:
    """Change the prices in one accepted asset. Null clears a price."""
    row, asset = await desk(services).update_pricing(organization_id, publisher_id, body)
    await services.catalog.refresh(publisher_id)
    return models.PricingConfigDataResponse(data=models.PricingConfigResponse.model_validate(row.wire(asset)))


@router.get(
    "/{publisher_id}/earnings",
    operation_id="get_org_publisher_earnings",
    dependencies=[needs(Permission.EARNINGS_READ)],
    responses=refusals(401, 403, 404, 500),
)
async def get_org_publisher_earnings(
    organization_id: UUID, publisher_id: UUID, services: ServicesDep
) -> models.PublisherEarningsDataResponse:
    """Return what the publisher has earned, one row per asset that it is booked in; also of one that was deleted."""
    async with services.database.acquire() as connection:
        record = await FIND_EVEN_DELETED.first(connection, organization_id, publisher_id)
        if record is None:
            raise NotFound("This organization has no publisher with this id.")
        (publisher,) = await assemble(connection, [record])
        earnings = await services.payouts.earnings(connection, publisher_id, organization_id)
    booked = dict.fromkeys([asset.ledger_asset_id for asset in publisher.assets] + list(earnings))
    rows = [
        _earnings(publisher, services.catalog.assets[asset_id], earnings.get(asset_id, Earnings(asset_id)))
        for asset_id in booked
    ]
    return models.PublisherEarningsDataResponse(data=rows)


@router.post(
    "/{publisher_id}/logo",
    operation_id="upload_publisher_logo",
    dependencies=[needs(Permission.PUBLISHERS_WRITE)],
    responses=refusals(400, 401, 403, 404, 413, 500),
)
async def upload_publisher_logo(
    organization_id: UUID, publisher_id: UUID, body: LogoUploadRequest, services: ServicesDep
) -> models.LogoUploadDataResponse:
    """Store a logo of at most 1 MiB: PNG, JPEG, WebP, or an SVG without anything active."""
    publisher = await _owned(services, organization_id, publisher_id)
    try:
        logo = logos.read_logo(body.logo, body.content_type)
    except logos.LogoRefused as error:
        raise refused(error.field, str(error)) from None
    async with services.database.transaction() as connection:
        await logos.put_logo(connection, publisher_id, logo)
        await TOUCH_PUBLISHER.run(connection, publisher_id)
        await note(connection, "publisher.upload_logo", organization_id, publisher.record, digest=logo.digest.hex())
    url = logo_url(services.settings.public_url, publisher.record.slug)
    return models.LogoUploadDataResponse(data=models.LogoUploadResponse(logo_url=url, message="The logo is stored."))


def desk(services: Services) -> PublisherDesk:
    """Return where publishers are written."""
    urls = UrlPolicy(services.guard, services.settings.proxy.allow_addresses)
    return PublisherDesk(services.database, services.box, urls, services.settings, DatabaseInspector(services.guard))


async def _owned(services: Services, organization_id: UUID, publisher_id: UUID) -> Publisher:
    async with services.database.acquire() as connection:
        return await desk(services).get(connection, organization_id, publisher_id)


async def _changed(services: Services, publisher: Publisher) -> models.PublisherDataResponse:
    """Answer with a publisher that was written. This worker's snapshot need not wait for its own notification."""
    await services.catalog.refresh(publisher.record.id)
    return await _with_schema(services, publisher)


async def _with_schema(services: Services, publisher: Publisher) -> models.PublisherDataResponse:
    shown = _shown(services, publisher)
    async with services.database.acquire() as connection:
        sale = await FIND_SALE.first(connection, publisher.record.id)
    if sale is not None:
        shown.database_schema = models.DatabaseSchema.model_validate(schema_view(sale, owner=True))
    return models.PublisherDataResponse(data=shown)


def _shown(services: Services, publisher: Publisher) -> models.PublisherResponse:
    shown = models.PublisherResponse.model_validate(owner_view(publisher, services.settings.public_url))
    shown.x402_accepts = models.payable(publisher, services.kinds)
    shown.not_ready = not_ready(publisher, services)
    shown.ready = shown.not_ready is None
    return shown


def _earnings(publisher: Publisher, asset: Asset, earnings: Earnings) -> models.PublisherEarningsResponse:
    unit = 10**asset.decimals
    return models.PublisherEarningsResponse(
        publisher_id=publisher.record.id,
        publisher_slug=publisher.record.slug,
        publisher_name=publisher.record.name,
        asset=models.AssetInfo.model_validate(asset_view(asset)),
        wallet_address=publisher.record.wallet_address,
        total_revenue=earnings.revenue / unit,
        total_revenue_atomic=earnings.revenue,
        available=earnings.available / unit,
        available_atomic=earnings.available,
        pending_payout=earnings.paying_out / unit,
        pending_payout_atomic=earnings.paying_out,
        total_withdrawn=earnings.withdrawn / unit,
        total_withdrawn_atomic=earnings.withdrawn,
        request_count=publisher.usage.calls,
        held_back_atomic=earnings.holdings.held_back,
        deficit_atomic=earnings.holdings.deficit,
        promotional_atomic=earnings.holdings.promotional,
        promotional_payable_atomic=earnings.holdings.promotional_payable,
        frees_at=earnings.frees_at,
        all_free_at=earnings.all_free_at,
    )
