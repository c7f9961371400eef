"""What the gateway's operator may do over HTTP: see and end exchanges without an end, forgive debts. Extensions.

Guarded by the operators' tokens (settings.secrets), not by an organization's keys: an operator stands above all
tenants. Without a token configured these paths answer 501.
"""

from __future__ import annotations

import hmac
from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPBearer
from pydantic import Field

from admin_api.kit.access import ServicesDep, guess
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment
from admin_api.kit.needs import declares
from admin_api.kit.once import Once
from admin_api.kit.problems import refusals
from gateway.audit.origin import origin
from gateway.errors import NotConfigured, Unauthenticated
from gateway.ledger.resolutions import debts, resolve, unended
from gateway.request_body import RequestBody
from gateway.services import Services

EXTENSION: dict[str, Any] = {"x-extension": True}
_token = HTTPBearer(scheme_name="operator_token", auto_error=False)


@declares("operator")
async def operator(request: Request, services: ServicesDep, _documented: Annotated[object, Security(_token)]) -> str:
    """Return the name of the operator whose token a request brings."""
    if not services.settings.secrets.operators:
        raise NotConfigured("This gateway has no operator token; its operator sets TOLLWAY_SECRETS_OPERATOR_TOKENS.")
    name = operator_of(request, services)
    if name is None:
        await guess(request, services)
        raise Unauthenticated("This needs an operator's token.")
    who = origin()
    who.actor_type, who.credential_type = "operator", "operator_token"
    request.state.operator = name
    return name


def operator_of(request: Request, services: Services) -> str | None:
    """Return whose operator token a request brings, None for nobody's: compared with each in constant time."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    found: str | None = None
    for name, token in services.settings.secrets.operators.items():
        if hmac.compare_digest(given.encode(), token.encode()) and scheme.lower() == "bearer":
            found = name
    return found


router = APIRouter(tags=["extensions"], prefix="/operator", route_class=StrictRoute)
Operator = Annotated[str, Depends(operator)]


class OpenExchange(Answer):
    """An exchange without an end; `amount_atomic` is a decimal string, because assets may have 18 decimals.

    Of a payment on a chain `payer` is the wallet that paid, network and address; else `owner_id` is the account. A
    `count` is a free call that counts against a free tier.
    """

    exchange_id: UUID
    kind: Literal["charge", "hold", "payment", "count"]
    owner_id: UUID | None
    payer: str | None
    publisher: str | None
    asset_symbol: str
    amount_atomic: str
    since: Moment
    worker_alive: bool


class OpenExchangesResponse(Answer):
    """Open exchanges, oldest first."""

    data: list[OpenExchange]


class WalletDebt(Answer):
    """A call that was delivered on trust and whose payment failed; `payer` is the wallet, network and address."""

    exchange_id: UUID
    payer: str
    publisher: str
    asset_symbol: str
    amount_atomic: str
    reason: str | None
    since: Moment


class WalletDebtsResponse(Answer):
    """Debts, oldest first."""

    data: list[WalletDebt]


class ResolveExchangeRequest(RequestBody):
    """The decision: give the money back, keep the charge, or let a debt count no more against its wallet."""

    decision: Literal["refund", "keep", "forgive"]
    note: Annotated[str, Field(max_length=1000)] | None = None


class Resolution(Answer):
    """What the ledger did."""

    verdict: str


class ResolutionResponse(Answer):
    """The outcome of a decision."""

    data: Resolution


@router.get(
    "/exchanges", operation_id="list_open_exchanges", responses=refusals(401, 429, 501), openapi_extra=EXTENSION
)
async def list_open_exchanges(_actor: Operator, services: ServicesDep) -> OpenExchangesResponse:
    """List up to 1,000 exchanges whose money moved and whose end is not recorded."""
    dead_after = timedelta(seconds=services.settings.money.dead_after)
    async with services.database.acquire() as connection:
        rows = await unended(connection, dead_after=dead_after, limit=1_000)
    return OpenExchangesResponse(
        data=[
            OpenExchange(
                exchange_id=row.exchange_id,
                kind=row.kind,
                owner_id=row.owner_id,
                payer=row.payer,
                publisher=row.publisher,
                asset_symbol=row.asset,
                amount_atomic=str(row.amount),
                since=row.since,
                worker_alive=row.worker_alive,
            )
            for row in rows
        ]
    )


@router.get("/debts", operation_id="list_wallet_debts", responses=refusals(401, 429, 501), openapi_extra=EXTENSION)
async def list_wallet_debts(_actor: Operator, services: ServicesDep) -> WalletDebtsResponse:
    """List up to 1,000 calls that wallets had on trust and have not paid. `resolve_exchange` forgives one."""
    async with services.database.acquire() as connection:
        rows = await debts(connection, limit=1_000)
    return WalletDebtsResponse(
        data=[
            WalletDebt(
                exchange_id=row.exchange_id,
                payer=row.payer,
                publisher=row.publisher,
                asset_symbol=row.asset,
                amount_atomic=str(row.amount),
                reason=row.reason,
                since=row.since,
            )
            for row in rows
        ]
    )


@router.post(
    "/exchanges/{exchange_id}/resolve",
    operation_id="resolve_exchange",
    responses=refusals(400, 401, 404, 429, 501),
    openapi_extra=EXTENSION,
)
async def resolve_exchange(
    exchange_id: UUID, request: ResolveExchangeRequest, actor: Operator, once: Once, services: ServicesDep
) -> ResolutionResponse:
    """End one open exchange, or forgive a debt, and write the audit line."""
    grace = timedelta(days=services.settings.money.refund_grace_days)
    verdict = await resolve(
        services.database, exchange_id, request.decision, actor=actor, note=request.note, grace=grace
    )
    return ResolutionResponse(data=Resolution(verdict=verdict))
