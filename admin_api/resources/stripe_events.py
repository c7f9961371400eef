"""Category `webhooks`: what Stripe says of card payments. Nobody is known here but by the signature of the body."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request

from admin_api.kit.access import ServicesDep
from admin_api.kit.needs import declares
from admin_api.kit.problems import refusals
from gateway.payments.stripe.intake import Taken

router = APIRouter(tags=["webhooks"])


@declares("stripe signature")
async def _take(
    request: Request,
    services: ServicesDep,
    stripe_signature: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Taken:
    """Take the event that the body is: the signature is over its bytes, so they are read as they came."""
    return await services.stripe_events.take(await request.body(), stripe_signature)


@router.post("/webhooks/stripe", operation_id="handle_stripe_webhook", responses=refusals(400, 500, 501))
async def handle_stripe_webhook(_taken: Annotated[Taken, Depends(_take)]) -> dict[str, Any]:
    """Take an event that Stripe has signed, once. Any other status than 200 has it sent again later."""
    return {}
