"""Operators decide about exchanges without an end, and forgive debts. Extensions."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import Field

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment
from admin_api.kit.once import Once
from admin_api.kit.problems import refusals
from admin_api.resources.operator import EXTENSION, Operator
from admin_api.resources.operator_approvals import MoneyApproval, shown_approval
from gateway.ledger.resolutions import debts, unended
from gateway.operators import resolving
from gateway.operators.approvals import Approval, FourEyes
from gateway.request_body import RequestBody

router = APIRouter(tags=["extensions"], prefix="/operator", route_class=StrictRoute)


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
    """What the ledger did.

    With an `approval` (202, verdict `waits`) nothing was done yet: another operator has to approve it.
    """

    verdict: str
    approval: MoneyApproval | None


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
    responses={
        **refusals(400, 401, 404, 409, 429, 501),
        202: {"model": ResolutionResponse, "description": "Waits for another operator"},
    },
    openapi_extra=EXTENSION,
)
async def resolve_exchange(
    exchange_id: UUID,
    request: ResolveExchangeRequest,
    actor: Operator,
    once: Once,
    services: ServicesDep,
    response: Response,
) -> ResolutionResponse:
    """End one open exchange, or forgive a debt, and write the audit line."""
    done = await resolving.resolve_exchange(
        services.database,
        exchange_id,
        request.decision,
        operator=actor,
        actor=actor,
        note=request.note,
        grace=timedelta(days=services.settings.money.refund_grace_days),
        rule=FourEyes.of(services.settings.money),
    )
    if isinstance(done, Approval):
        response.status_code = 202
        return ResolutionResponse(data=Resolution(verdict="waits", approval=shown_approval(done)))
    return ResolutionResponse(data=Resolution(verdict=done, approval=None))
