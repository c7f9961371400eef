"""Four eyes: operators see what waits for another operator's approval, and decide about it. Extensions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, Offset
from admin_api.kit.once import Once
from admin_api.kit.problems import refusals
from admin_api.resources.operator import EXTENSION, Operator
from gateway.operators import approvals
from gateway.operators.approvals import Approval, Detail, Kind
from gateway.operators.approving import approve
from gateway.request_body import RequestBody

router = APIRouter(tags=["extensions"], prefix="/operator/approvals", route_class=StrictRoute)
State = Literal["pending", "approved", "declined", "expired"]
ApprovalId = Annotated[UUID, Path(alias="id")]


class MoneyApproval(Answer):
    """A request to move money, and what became of it; `subject` is a wallet, a call by its request id, or a deposit.

    `details` is all that would be done: whether a correction is a credit or a debit, and of which money, say.
    """

    id: UUID
    kind: Kind
    subject: str
    reference: str
    amount_atomic: str
    reason: str
    details: dict[str, Detail]
    asked_by: str
    asked_at: Moment
    expires_at: Moment
    state: State
    decided_by: str | None
    decided_at: Moment | None
    note: str | None


class MoneyApprovalResponse(Answer):
    """Envelope."""

    data: MoneyApproval


class MoneyApprovalsResponse(Answer):
    """A page."""

    data: list[MoneyApproval]
    has_more: bool


class DeclineRequest(RequestBody):
    """Why; for operators only."""

    note: Annotated[str, Field(max_length=1000)] | None = None


@router.get(
    "", operation_id="list_approvals", responses=refusals(400, 401, 404, 429, 501), openapi_extra=EXTENSION
)  # fmt: skip
async def list_approvals(
    _actor: Operator,
    services: ServicesDep,
    state: Annotated[State | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    offset: Offset = 0,
) -> MoneyApprovalsResponse:
    """List requests that need or needed another operator, newest first."""
    async with services.database.acquire() as connection:
        rows = await approvals.LIST_APPROVALS.all(connection, state, limit + 1, offset)
    return MoneyApprovalsResponse(data=[shown_approval(row) for row in rows[:limit]], has_more=len(rows) > limit)


@router.post(
    "/{id}/approve",
    operation_id="approve_request",
    responses=refusals(400, 401, 403, 404, 409, 429, 501),
    openapi_extra=EXTENSION,
)
async def approve_request(
    approval_id: ApprovalId, actor: Operator, once: Once, services: ServicesDep
) -> MoneyApprovalResponse:
    """Do what another operator has asked for, once. It is judged anew: a balance may have changed since."""
    grace = timedelta(days=services.settings.money.refund_grace_days)
    asset = services.catalog.default_asset
    done = await approve(services.database, approval_id, operator=actor, asset=asset, grace=grace)
    return MoneyApprovalResponse(data=shown_approval(done))


@router.post(
    "/{id}/decline",
    operation_id="decline_request",
    responses=refusals(400, 401, 404, 409, 429, 501),
    openapi_extra=EXTENSION,
)
async def decline_request(
    approval_id: ApprovalId, request: DeclineRequest, actor: Operator, services: ServicesDep
) -> MoneyApprovalResponse:
    """End a request without doing it. Who asked may take it back so."""
    async with services.database.transaction() as connection:
        declined = await approvals.decline(connection, approval_id, operator=actor, note=request.note)
    return MoneyApprovalResponse(data=shown_approval(declined))


def shown_approval(approval: Approval) -> MoneyApproval:
    """Return a request as operators see it."""
    return MoneyApproval.model_validate(
        {**asdict(approval), "amount_atomic": str(approval.amount), "details": approval.details}
    )
