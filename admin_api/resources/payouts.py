"""Payouts of what publishers have earned: by their id (category `Organizations`), or by slug (`publisher-payments`).

Both are the same payouts. Approving and cancelling one are extensions.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field, StrictInt, StrictStr

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import MAX_OFFSET, Answer, Moment, PaginationMeta, page
from admin_api.kit.needs import Seller, needs
from admin_api.kit.once import Attempt, Once
from admin_api.kit.problems import refusals
from admin_api.resources.publisher_models import AssetInfo, PayoutStatus
from gateway.billing.payouts import Order, Payout
from gateway.catalog.fields import EXTENSION
from gateway.catalog.records import FIND_EVEN_DELETED, Record
from gateway.catalog.refusals import refused
from gateway.catalog.views import asset_view
from gateway.errors import NotFound
from gateway.identity.permissions import Member, Permission
from gateway.payments.evm.encoding import show_address
from gateway.request_body import RequestBody
from gateway.services import Services

router = APIRouter(route_class=StrictRoute)
OF_ORGANIZATION = "/organizations/{organization_id}/publishers/{publisher_id}/payouts"
OF_SELLER = "/billing/publishers/{slug}/payouts"
PAGE = 50
MARK: dict[str, Any] = {"x-extension": True}
Requester = Annotated[Member, needs(Permission.PAYOUTS_CREATE)]
Amount = Annotated[StrictInt, Field(ge=1)]
Destination = Annotated[StrictStr, Field(min_length=1, max_length=128)]
Description = Annotated[StrictStr, Field(max_length=1_000)]


class CreatePublisherPayoutRequest(RequestBody):
    """A payout of earnings; without an amount, of everything available, and without an address to the publisher's."""

    asset_id: UUID
    amount_atomic: Amount | None = None
    destination_wallet: Destination | None = None


class CreatePayoutRequest(RequestBody):
    """A payout in the publisher's primary asset. The same key with the same request is the same payout.

    `idempotency_key` is the `Idempotency-Key` of the request's head, in the body.
    """

    amount_atomic: Amount
    destination_wallet: Destination
    description: Description
    idempotency_key: UUID | None = None


class PublisherPayoutResponse(Answer):
    """A payout. `error_message` says why it waits, or has failed."""

    id: UUID
    publisher_id: UUID
    asset: AssetInfo
    amount: float
    amount_atomic: int
    destination_wallet: str
    status: PayoutStatus
    requested_at: Moment
    tx_hash: str | None
    error_message: str | None
    description: Annotated[str, EXTENSION]
    requested_by: Annotated[UUID, EXTENSION]
    needs_approval: Annotated[bool, EXTENSION]
    approved_by: Annotated[UUID | None, EXTENSION]
    ended_at: Annotated[Moment | None, EXTENSION]


class PublisherPayoutDataResponse(Answer):
    """Envelope."""

    data: PublisherPayoutResponse
    pagination: PaginationMeta | None = None


class PublisherPayoutsDataResponse(Answer):
    """Envelope."""

    data: list[PublisherPayoutResponse]
    pagination: PaginationMeta | None = None


class PayoutResponse(Answer):
    """The same payout without its surroundings."""

    id: UUID
    amount_atomic: int
    destination_wallet: str
    status: str
    tx_hash: str | None
    error_message: str | None


@router.get(
    OF_ORGANIZATION,
    tags=["Organizations"],
    operation_id="list_org_publisher_payouts",
    dependencies=[needs(Permission.EARNINGS_READ)],
    responses=refusals(400, 401, 403, 404, 500),
)
async def list_org_publisher_payouts(
    organization_id: UUID,
    publisher_id: UUID,
    services: ServicesDep,
    limit: Annotated[int | None, Query(ge=1, le=100)] = None,
    offset: Annotated[int | None, Query(ge=0, le=MAX_OFFSET)] = None,
) -> PublisherPayoutsDataResponse:
    """List a publisher's payouts, newest first."""
    await _owned(services, organization_id, publisher_id)
    size, start = limit or PAGE, offset or 0
    found, total = await services.payouts.page(publisher_id, size, start)
    pagination = PaginationMeta(**page(found, total=total, limit=size, offset=start))
    return PublisherPayoutsDataResponse(data=[_shown(services, one) for one in found], pagination=pagination)


@router.post(
    OF_ORGANIZATION,
    status_code=201,
    tags=["Organizations"],
    operation_id="create_org_publisher_payout",
    responses=refusals(400, 401, 403, 404, 409, 500, 501),
)
async def create_org_publisher_payout(
    organization_id: UUID,
    publisher_id: UUID,
    body: CreatePublisherPayoutRequest,
    member: Requester,
    once: Once,
    services: ServicesDep,
) -> PublisherPayoutDataResponse:
    """Request a payout. The money leaves the earnings at once, and is sent on the network of the publisher's wallet.

    Answers 501 where this gateway has no chain for that network.
    """
    publisher = await _owned(services, organization_id, publisher_id)
    if body.asset_id not in publisher.asset_ids:
        raise refused("asset_id", "is not an asset that this publisher accepts")
    order = Order(body.asset_id, body.amount_atomic, body.destination_wallet, key=_key(once, None))
    return _answer(services, await services.payouts.request(publisher_id, member, order))


@router.post(
    OF_ORGANIZATION + "/{payout_id}/approve",
    tags=["extensions"],
    operation_id="approve_publisher_payout",
    responses=refusals(401, 403, 404, 409, 500),
    openapi_extra=MARK,
)
async def approve_publisher_payout(
    organization_id: UUID, publisher_id: UUID, payout_id: UUID, member: Requester, once: Once, services: ServicesDep
) -> PublisherPayoutDataResponse:
    """Let a payout go that needs a second member: somebody else than who asked for it."""
    return _answer(services, await services.payouts.approve(publisher_id, payout_id, member))


@router.post(
    OF_ORGANIZATION + "/{payout_id}/cancel",
    tags=["extensions"],
    operation_id="cancel_publisher_payout",
    responses=refusals(401, 403, 404, 409, 500),
    openapi_extra=MARK,
)
async def cancel_publisher_payout(
    organization_id: UUID, publisher_id: UUID, payout_id: UUID, member: Requester, once: Once, services: ServicesDep
) -> PublisherPayoutDataResponse:
    """Cancel a payout that is still queued: its money goes back into the earnings."""
    return _answer(services, await services.payouts.cancel(publisher_id, payout_id, member))


@router.post(
    OF_SELLER,
    tags=["publisher-payments"],
    operation_id="create_payout",
    responses=refusals(400, 401, 403, 404, 409, 500, 501),
)
async def create_payout(
    slug: str,
    body: CreatePayoutRequest,
    seller: Annotated[Seller, needs(Permission.PAYOUTS_CREATE, seller=True)],
    once: Once,
    services: ServicesDep,
) -> PayoutResponse:
    """Request a payout in the publisher's primary asset, on the network of its wallet.

    Answers 501 where this gateway has no chain for that network.
    """
    publisher = seller.publisher
    order = Order(
        publisher.primary_asset_id, body.amount_atomic, body.destination_wallet, body.description,
        _key(once, body.idempotency_key),
    )  # fmt: skip
    return _bare(await services.payouts.request(publisher.id, seller.member, order))


@router.get(
    OF_SELLER + "/{payout_id}",
    tags=["publisher-payments"],
    operation_id="get_payout_status",
    responses=refusals(400, 401, 403, 404, 500),
)
async def get_payout_status(
    slug: str,
    payout_id: UUID,
    seller: Annotated[Seller, needs(Permission.EARNINGS_READ, seller=True)],
    services: ServicesDep,
) -> PayoutResponse:
    """Return where a payout stands."""
    return _bare(await services.payouts.find(seller.publisher.id, payout_id))


def _key(once: Attempt, in_body: UUID | None) -> UUID | None:
    """Return the key of a payout, which its head or its body has. Raises InvalidRequest where they differ."""
    if once.key is None:
        return in_body
    try:
        in_head = UUID(once.key)
    except ValueError:
        in_head = once.effect_id
    if in_body not in (None, in_head):
        raise refused("idempotency_key", "is another key than the Idempotency-Key of the request's head")
    return in_head


async def _owned(services: Services, organization_id: UUID, publisher_id: UUID) -> Record:
    async with services.database.acquire() as connection:
        found = await FIND_EVEN_DELETED.first(connection, organization_id, publisher_id)
    if found is None:
        raise NotFound("This organization has no publisher with this id.")
    return found


def _answer(services: Services, payout: Payout) -> PublisherPayoutDataResponse:
    return PublisherPayoutDataResponse(data=_shown(services, payout))


def _shown(services: Services, payout: Payout) -> PublisherPayoutResponse:
    asset = services.catalog.assets[payout.asset_id]
    return PublisherPayoutResponse(
        id=payout.id,
        publisher_id=payout.publisher_id,
        asset=AssetInfo.model_validate(asset_view(asset)),
        amount=payout.amount / 10**asset.decimals,
        amount_atomic=payout.amount,
        destination_wallet=show_address(payout.destination),
        status=PayoutStatus(payout.state),
        requested_at=payout.requested_at,
        tx_hash=_hash(payout),
        error_message=_message(payout),
        description=payout.description,
        requested_by=payout.requested_by,
        needs_approval=payout.needs_approval,
        approved_by=payout.approved_by,
        ended_at=payout.ended_at,
    )


def _bare(payout: Payout) -> PayoutResponse:
    return PayoutResponse(
        id=payout.id,
        amount_atomic=payout.amount,
        destination_wallet=show_address(payout.destination),
        status=payout.state,
        tx_hash=_hash(payout),
        error_message=_message(payout),
    )


def _hash(payout: Payout) -> str | None:
    return None if payout.transaction is None else "0x" + payout.transaction.hex()


def _message(payout: Payout) -> str | None:
    return "It waits for a second member's approval." if payout.waits_for_approval else payout.reason
