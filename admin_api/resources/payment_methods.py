"""Category `payments`: the ways to pay that the caller's default organization has stored.

A client gives the card to Stripe and only its id to us: numbers of cards never come here.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, StrictBool, StrictStr

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, PaginationMeta, page
from admin_api.kit.needs import needs
from admin_api.kit.once import Once
from admin_api.kit.problems import refusals
from gateway.billing.payment_methods import PaymentMethod as Stored
from gateway.billing.payment_methods import methods_of
from gateway.catalog.refusals import refused
from gateway.identity.permissions import Member, Permission
from gateway.payments.stripe.client import StripeRefused
from gateway.request_body import RequestBody
from gateway.services import Services

router = APIRouter(tags=["payments"], route_class=StrictRoute)

Reader = Annotated[Member, needs(Permission.BILLING_READ, default=True)]
Manager = Annotated[Member, needs(Permission.BILLING_MANAGE, default=True)]
StripeMethodId = Annotated[StrictStr, Field(pattern=r"^[A-Za-z]{2,8}_[A-Za-z0-9_]{1,240}$")]


class PaymentMethod(Answer):
    """A stored way to pay."""

    id: str
    type_: str
    is_default: bool
    card_brand: str | None
    card_last4: str | None
    card_exp_month: int | None
    card_exp_year: int | None
    bank_last4: str | None


class PaymentMethodsResponse(Answer):
    """A page of them: there are few, so it has all."""

    data: list[PaymentMethod]
    pagination: PaginationMeta | None = None


class AddPaymentMethodRequest(RequestBody):
    """A payment method that a client has made at Stripe."""

    stripe_payment_method_id: StripeMethodId
    set_as_default: StrictBool


class PaymentMethodAdded(Answer):
    """What it is called here."""

    id: str
    message: str


class PaymentMethodAddedResponse(Answer):
    """Envelope."""

    data: PaymentMethodAdded
    pagination: PaginationMeta | None = None


@router.get("/billing/payment-methods", operation_id="list_payment_methods", responses=refusals(500))
async def list_payment_methods(member: Reader, services: ServicesDep) -> PaymentMethodsResponse:
    """List what the caller's default organization has stored, its default first."""
    async with services.database.acquire() as connection:
        stored = await methods_of(connection, member.organization_id)
    shown = [_shown(one) for one in stored]
    meta = page(shown, total=len(shown), limit=max(len(shown), 1), offset=0)
    return PaymentMethodsResponse(data=shown, pagination=PaginationMeta(**meta))


@router.post("/billing/payment-methods", operation_id="add_payment_method", responses=refusals(400, 409, 500, 501))
async def add_payment_method(
    body: AddPaymentMethodRequest, member: Manager, once: Once, services: ServicesDep
) -> PaymentMethodAddedResponse:
    """Store a payment method by its id at Stripe. The first one is the default; the same again is the same."""
    made = await store(services, member, body.stripe_payment_method_id, as_default=body.set_as_default)
    return PaymentMethodAddedResponse(data=PaymentMethodAdded(id=str(made), message="The payment method is stored."))


@router.delete(
    "/billing/payment-methods/{id}",
    operation_id="delete_payment_method",
    status_code=204,
    responses=refusals(404, 409, 500),
)
async def delete_payment_method(id: UUID, member: Manager, once: Once, services: ServicesDep) -> None:
    """Forget a payment method. Of several the oldest other one becomes the default; the last one pays the plan."""
    await services.payment_methods.remove(member.organization_id, id)


async def store(services: Services, member: Member, stripe_id: str, *, as_default: bool) -> UUID:
    """Store a payment method for a member's organization. Raises InvalidRequest where Stripe does not take it."""
    try:
        return await services.payment_methods.add(
            member.organization_id, member.caller.account_id, stripe_id, as_default=as_default
        )
    except StripeRefused as error:
        raise refused("stripe_payment_method_id", f"is not taken by Stripe ({error.code or 'refused'})") from None


def _shown(one: Stored) -> PaymentMethod:
    is_card = one.kind == "card"
    return PaymentMethod(
        id=str(one.id),
        type_=one.kind,
        is_default=one.is_default,
        card_brand=one.brand,
        card_last4=one.last4 if is_card else None,
        card_exp_month=one.exp_month,
        card_exp_year=one.exp_year,
        bank_last4=None if is_card else one.last4,
    )
