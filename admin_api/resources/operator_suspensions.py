"""What operators stop and start again: publishers, keys, accounts, organizations and wallets. Extensions.

What a suspension does, and whom it is told, is docs/operators.md's.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, Offset, OffsetPaginationMeta
from admin_api.kit.envelope import page as place
from admin_api.kit.problems import refusals
from admin_api.resources.operator import EXTENSION, Operator
from gateway.errors import InvalidRequest
from gateway.operators import suspending
from gateway.request_body import RequestBody

router = APIRouter(tags=["extensions"], prefix="/operator/suspensions", route_class=StrictRoute)
Kind = Literal["publisher", "key", "account", "organization", "wallet"]
Named = Annotated[str, Field(min_length=1, max_length=320)]
Reason = Annotated[str, Field(min_length=1, max_length=500)]
Note = Annotated[str, Field(max_length=1000)]


class SuspendRequest(RequestBody):
    """What to stop, by any name that it has. `reason` is shown to the owner, `note` to operators only."""

    kind: Kind
    subject: Named
    reason: Reason
    note: Note | None = None


class RestoreRequest(RequestBody):
    """What to start again. `note` is for operators only."""

    kind: Kind
    subject: Named
    note: Note | None = None


class OperatorSuspension(Answer):
    """A suspension; `label` is what people call its subject, `lifted_at` null while it lasts."""

    id: UUID
    kind: Kind
    subject: str
    label: str
    reason: str
    note: str | None
    suspended_by: str
    since: Moment
    lifted_by: str | None
    lifted_at: Moment | None
    lift_note: str | None


class SuspensionResponse(Answer):
    """Envelope."""

    data: OperatorSuspension


class SuspensionsResponse(Answer):
    """Suspensions, newest first."""

    data: list[OperatorSuspension]
    pagination: OffsetPaginationMeta


@router.post(
    "",
    status_code=201,
    operation_id="suspend",
    responses=refusals(400, 401, 404, 409, 429, 501),
    openapi_extra=EXTENSION,
)
async def suspend(request: SuspendRequest, actor: Operator, services: ServicesDep) -> SuspensionResponse:
    """Stop a publisher, key, account, organization or wallet until an operator restores it. Its owner cannot."""
    made = await suspending.suspend(
        services.database, request.kind, request.subject, operator=actor, reason=request.reason, note=request.note
    )
    return SuspensionResponse(data=OperatorSuspension.model_validate(made))


@router.post("/restore", operation_id="restore", responses=refusals(400, 401, 404, 429, 501), openapi_extra=EXTENSION)
async def restore(request: RestoreRequest, actor: Operator, services: ServicesDep) -> SuspensionResponse:
    """End a suspension: everything is as it was before."""
    lifted = await suspending.restore(
        services.database, request.kind, request.subject, operator=actor, note=request.note
    )
    return SuspensionResponse(data=OperatorSuspension.model_validate(lifted))


@router.get("", operation_id="list_suspensions", responses=refusals(400, 401, 404, 429, 501), openapi_extra=EXTENSION)
async def list_suspensions(
    _actor: Operator,
    services: ServicesDep,
    kind: Annotated[Kind | None, Query()] = None,
    subject: Annotated[str | None, Query(max_length=320, description="With kind: one subject's.")] = None,
    lifted: Annotated[bool, Query(description="Also those that were lifted.")] = False,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    offset: Offset = 0,
) -> SuspensionsResponse:
    """List suspensions, newest first."""
    if subject is not None and kind is None:
        raise InvalidRequest("Say what kind the subject is of.")
    async with services.database.acquire() as connection:
        rows, total = await suspending.page(connection, kind, subject, lifted=lifted, limit=limit, offset=offset)
    found = [OperatorSuspension.model_validate(row) for row in rows]
    return SuspensionsResponse(
        data=found, pagination=OffsetPaginationMeta(**place(found, total=total, limit=limit, offset=offset))
    )
