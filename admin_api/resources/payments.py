"""Category `payments`, as far as it is x402's: what can be paid with here, and the facilitator for other sellers.

Official resource servers use `<public URL>/payments` as their facilitator's URL. Verifying and settling are extensions;
a payment that is not in order is no problem document but the protocol's own answer, with its reason code.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPBearer
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, Response

from admin_api.kit.access import KeyField, ServicesDep, caller, idempotency_key, limited, public
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer
from admin_api.kit.needs import declares
from admin_api.kit.problems import refusals
from gateway.errors import Forbidden, RailNotAvailable
from gateway.identity.permissions import AccountRight, demand_right
from gateway.limits.policy import Check, Policy
from gateway.payments.facilitation import Requester, Settled
from gateway.services import Services

router = APIRouter(tags=["payments"], route_class=StrictRoute)
_bearer = HTTPBearer(scheme_name="bearer_auth", auto_error=False)

NO_CHAIN = "This gateway has no chain configured, so it settles nothing."


class SupportedKind(Answer):
    """One way to pay: a scheme on a network, in a version of the protocol."""

    x402Version: int
    scheme: str
    network: str
    extra: Any = None


class SupportedResponse(Answer):
    """What this facilitator settles, and by which addresses, per family of networks."""

    kinds: list[SupportedKind]
    extensions: list[str] | None = None
    signers: Any = None


class VerifyResponse(Answer):
    """Whether a payment would be settled now. `invalidReason` is a code of the protocol."""

    isValid: bool
    invalidReason: str | None = None
    invalidMessage: str | None = None
    payer: str | None = None


class SettleResponse(Answer):
    """How a settlement ended. `errorReason` is a code of the protocol; `transaction` is "" when nothing was sent."""

    success: bool
    transaction: str
    network: str
    payer: str | None = None
    amount: str | None = None
    errorReason: str | None = None
    errorMessage: str | None = None


_OBJECT = {"type": "object"}
EXTENSION: dict[str, Any] = {
    "x-extension": True,
    "security": [{"bearer_auth": []}, {}],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["x402Version", "paymentPayload", "paymentRequirements"],
                    "properties": {
                        "x402Version": {"type": "integer", "enum": [1, 2]},
                        "paymentPayload": _OBJECT,
                        "paymentRequirements": _OBJECT,
                    },
                }
            }
        },
    },
}


@declares("facilitator")
async def requester(
    request: Request, services: ServicesDep, _documented: Annotated[object, Security(_bearer)]
) -> Requester:
    """Return who may use the facilitator. Raises Unauthenticated, Forbidden, RailNotAvailable, RateLimited."""
    rules = services.settings.facilitator
    if rules.access == "off" or not services.settlements.chains:
        raise RailNotAvailable(NO_CHAIN if rules.access != "off" else "This gateway is no facilitator for others.")
    if rules.access == "open" and "authorization" not in request.headers:
        await public(request, services)
        return Requester(None, idempotency_key(request))
    principal = await caller(request, services, None)
    demand_right(principal, AccountRight.BUY)
    if rules.access == "listed" and str(principal.organization_id) not in rules.organizations:
        raise Forbidden("This gateway settles for organizations that its operator has listed; yours is not among them.")
    return Requester(principal.organization_id, idempotency_key(request))


RequesterDep = Annotated[Requester, Depends(requester)]


@router.get(
    "/payments/supported",
    operation_id="get_supported",
    dependencies=[Depends(public)],
    response_model=SupportedResponse,
    response_model_exclude_none=True,
    responses=refusals(429, 500),
)
async def get_supported(services: ServicesDep) -> dict[str, Any]:
    """List what can be paid with here, and what this facilitator settles for others: nothing where no chain is set."""
    return services.facilitation.supported()


@router.post(
    "/payments/verify",
    operation_id="facilitator_verify",
    response_model=VerifyResponse,
    responses=refusals(400, 401, 403, 429, 501, 503),
    openapi_extra=EXTENSION,
)
async def facilitator_verify(request: Request, who: RequesterDep, services: ServicesDep) -> Response:
    """Say whether a payment that a seller received would be settled now. Nothing is moved or reserved."""
    return JSONResponse(await services.facilitation.verify(await request.body(), who))


@router.post(
    "/payments/settle",
    operation_id="facilitator_settle",
    response_model=SettleResponse,
    responses=refusals(400, 401, 403, 429, 501, 503),
    openapi_extra=EXTENSION,
)
async def facilitator_settle(
    request: Request, who: RequesterDep, services: ServicesDep, _key: KeyField = None
) -> Response:
    """Move a payment's money to the payee that its payer signed for. Success is told once, or per Idempotency-Key.

    `settlement_pending` means that it is on its way: ask again, with the same body.
    """
    counted = str(who.organization_id) if who.organization_id is not None else await public(request, services)
    await limited(services, Check(counted, Policy("settlements", services.settings.facilitator.per_minute, 60)))
    settled = await services.facilitation.settle(await request.body(), who)
    services.metrics.facilitated(settled.network, settled.outcome)
    return JSONResponse(settled.answer, background=BackgroundTask(_note_cost, services, settled))


async def _note_cost(services: Services, settled: Settled) -> None:
    """Count the gas of a settlement that was ours, once the seller has its answer."""
    if settled.spent_for is not None:
        services.metrics.facilitator_spent(settled.network, await services.facilitation.cost(settled.spent_for))
