"""What operators find: accounts, keys, publishers, one call (and its refund), and any audit log. Extensions.

Pages say whether there is more, not how much: counting all of it would read all of it.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, Offset
from admin_api.kit.once import Once
from admin_api.kit.problems import refusals
from admin_api.resources.audit_logs import AuditLog, Filtered, shown
from admin_api.resources.operator import EXTENSION, Operator
from admin_api.resources.operator_approvals import MoneyApproval, shown_approval
from gateway.audit import log
from gateway.audit.entries import NO_ORGANIZATION
from gateway.audit.verify import LAST_CHECKPOINT, verify
from gateway.operators import search
from gateway.operators.approvals import Approval, FourEyes
from gateway.operators.calls import Call, Payment, find_call
from gateway.operators.refunds import refund_call
from gateway.request_body import RequestBody

router = APIRouter(tags=["extensions"], prefix="/operator", route_class=StrictRoute)
Text = Annotated[str | None, Query(min_length=1, max_length=320)]
Limit = Annotated[int, Query(ge=1, le=100)]
REFUSALS: dict[int | str, dict[str, Any]] = refusals(400, 401, 404, 429, 501)


class FoundAccount(Answer):
    """An account, with the organizations that it is a member of."""

    id: UUID
    kind: str
    name: str
    email: str | None
    status: str
    suspended: bool
    organization_ids: list[UUID]
    created_at: Moment


class FoundKey(Answer):
    """An API key without its secret."""

    id: UUID
    prefix: str
    name: str
    account_id: UUID
    account_name: str
    organization_id: UUID
    suspended: bool
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None


class FoundPublisher(Answer):
    """A publisher, deleted ones included."""

    id: UUID
    slug: str
    name: str
    organization_id: UUID
    status: Literal["active", "inactive", "suspended", "deleted"]
    is_verified: bool
    created_at: Moment
    deleted_at: Moment | None


class FoundAccountsResponse(Answer):
    """A page."""

    data: list[FoundAccount]
    has_more: bool


class FoundKeysResponse(Answer):
    """A page."""

    data: list[FoundKey]
    has_more: bool


class FoundPublishersResponse(Answer):
    """A page."""

    data: list[FoundPublisher]
    has_more: bool


class CallMovement(Answer):
    """Money that moved for a call, or was held."""

    kind: str
    wallet: str | None
    account_id: UUID | None
    publisher_id: UUID | None
    publisher_slug: str | None
    organization_id: UUID | None
    asset_symbol: str
    amount_atomic: str
    fee_atomic: str
    at: Moment


class CallEnd(Answer):
    """How a call ended; `status` is what the upstream answered."""

    outcome: str
    reason: str
    status: int | None
    bytes_in: int
    bytes_out: int
    method: str | None
    endpoint: str | None
    row_count: int | None
    ended_at: Moment


class CallPayment(Answer):
    """The payment on a chain that a call brought along."""

    network: str
    payer: str
    payee: str
    asset_symbol: str
    amount_atomic: str
    state: str
    reason: str | None
    publisher_slug: str | None
    transaction: str | None
    repayment: str | None


class FoundCall(Answer):
    """One call: what moved for it, and how it ended. Amounts are decimal strings of atomic units."""

    request_id: UUID
    began_at: Moment
    state: Literal["open", "settled", "refunded"]
    charged_atomic: str
    refunded_atomic: str
    movements: list[CallMovement]
    end: CallEnd | None
    payment: CallPayment | None
    counted: list[str]
    decisions: list[dict[str, str | None]]


class FoundCallResponse(Answer):
    """Envelope."""

    data: FoundCall


class AuditPageResponse(Answer):
    """Entries, newest first."""

    data: list[AuditLog]
    total: int
    limit: int
    offset: int


class AuditHead(Answer):
    """The last checkpoint, as `tollway audit head` prints it; null before there is one."""

    head: str | None


class AuditHeadResponse(Answer):
    """Envelope."""

    data: AuditHead


class AuditProof(Answer):
    """What a proof of all chains has found."""

    sound: bool
    chains: int
    entries: int
    checkpoints: int
    findings: list[str]


class AuditProofResponse(Answer):
    """Envelope."""

    data: AuditProof


@router.get("/accounts", operation_id="find_accounts", responses=REFUSALS, openapi_extra=EXTENSION)
async def find_accounts(
    _actor: Operator, services: ServicesDep, q: Text = None, limit: Limit = 50, offset: Offset = 0
) -> FoundAccountsResponse:
    """Find accounts by id, e-mail address, name, prepaid wallet (agent:<id>) or organization id, newest first."""
    async with services.database.acquire() as connection:
        rows = await search.accounts(connection, q, limit + 1, offset)
    found = [FoundAccount.model_validate(row) for row in rows]
    return FoundAccountsResponse(data=found[:limit], has_more=len(found) > limit)


@router.get("/keys", operation_id="find_keys", responses=REFUSALS, openapi_extra=EXTENSION)
async def find_keys(
    _actor: Operator, services: ServicesDep, q: Text = None, limit: Limit = 50, offset: Offset = 0
) -> FoundKeysResponse:
    """Find API keys by prefix, key id or id, or all of an account or organization, newest first."""
    async with services.database.acquire() as connection:
        rows = await search.keys(connection, q, limit + 1, offset)
    found = [FoundKey.model_validate(row) for row in rows]
    return FoundKeysResponse(data=found[:limit], has_more=len(found) > limit)


@router.get("/publishers", operation_id="find_publishers", responses=REFUSALS, openapi_extra=EXTENSION)
async def find_publishers(
    _actor: Operator,
    services: ServicesDep,
    q: Text = None,
    status: Annotated[Literal["active", "inactive", "suspended", "deleted"] | None, Query()] = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> FoundPublishersResponse:
    """Find publishers by slug, name or id, or all of an organization or creator, newest first."""
    async with services.database.acquire() as connection:
        rows = await search.publishers(connection, q, status, limit + 1, offset)
    found = [FoundPublisher.model_validate(row) for row in rows]
    return FoundPublishersResponse(data=found[:limit], has_more=len(found) > limit)


@router.get("/calls/{request_id}", operation_id="find_call", responses=REFUSALS, openapi_extra=EXTENSION)
async def get_call(request_id: UUID, _actor: Operator, services: ServicesDep) -> FoundCallResponse:
    """Return one call by its X-Request-Id: who paid whom how much, how it ended, and what became of the money."""
    async with services.database.acquire() as connection:
        call = await find_call(connection, str(request_id))
    return FoundCallResponse(data=shown_call(call))


class RefundCallRequest(RequestBody):
    """Why; both sides read it in their audit logs."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


class CallRefund(Answer):
    """What was given back; `repeated`: by an earlier refund, and nothing was moved now.

    With an `approval` (202) nothing was given back yet: another operator has to approve it.
    """

    request_id: UUID
    amount_atomic: str
    repeated: bool
    approval: MoneyApproval | None


class CallRefundResponse(Answer):
    """Envelope."""

    data: CallRefund


@router.post(
    "/calls/{request_id}/refund",
    operation_id="refund_call",
    responses={
        **refusals(400, 401, 404, 409, 429, 501),
        202: {"model": CallRefundResponse, "description": "Waits for another operator"},
    },
    openapi_extra=EXTENSION,
)
async def give_call_back(
    request_id: UUID, request: RefundCallRequest, actor: Operator, once: Once, services: ServicesDep, response: Response
) -> CallRefundResponse:
    """Give a call that has ended back whole, to the lots it was paid from. A second time moves nothing."""
    grace = timedelta(days=services.settings.money.refund_grace_days)
    rule = FourEyes.of(services.settings.money)
    done = await refund_call(
        services.database, str(request_id), operator=actor, reason=request.reason, grace=grace, rule=rule
    )
    if isinstance(done, Approval):
        response.status_code = 202
        waits = CallRefund(request_id=request_id, amount_atomic="0", repeated=False, approval=shown_approval(done))
        return CallRefundResponse(data=waits)
    given = CallRefund(
        request_id=done.request_id, amount_atomic=str(done.amount), repeated=done.repeated, approval=None
    )  # fmt: skip
    return CallRefundResponse(data=given)


@router.get("/audit-logs", operation_id="read_audit_logs", responses=REFUSALS, openapi_extra=EXTENSION)
async def read_audit_logs(
    _actor: Operator,
    services: ServicesDep,
    which: Filtered,
    organization_id: Annotated[UUID | None, Query(description="Whose log; without it the platform's own.")] = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> AuditPageResponse:
    """Read the audit log of any organization, or the platform's own, newest first."""
    async with services.database.acquire() as connection:
        entries, total = await log.page(
            connection, organization_id or NO_ORGANIZATION, which, limit=limit, offset=offset
        )  # fmt: skip
    return AuditPageResponse(data=[shown(entry) for entry in entries], total=total, limit=limit, offset=offset)


@router.get("/audit/head", operation_id="audit_head", responses=REFUSALS, openapi_extra=EXTENSION)
async def audit_head(_actor: Operator, services: ServicesDep) -> AuditHeadResponse:
    """Return the last checkpoint of all audit logs, to keep where the database's owner cannot write."""
    async with services.database.acquire() as connection:
        last = await LAST_CHECKPOINT.first(connection)
    return AuditHeadResponse(data=AuditHead(head=None if last is None else f"{last.number}:{last.digest.hex()}"))


@router.get("/audit/proof", operation_id="prove_audit_logs", responses=REFUSALS, openapi_extra=EXTENSION)
async def prove_audit_logs(_actor: Operator, services: ServicesDep) -> AuditProofResponse:
    """Recompute every chain and checkpoint, and say what is wrong. It reads all entries there are."""
    async with services.database.acquire() as connection:
        proof = await verify(connection)
    return AuditProofResponse(data=AuditProof.model_validate(proof))


def _payment(payment: Payment) -> CallPayment:
    return CallPayment.model_validate({**asdict(payment), "amount_atomic": str(payment.amount)})


def shown_call(call: Call) -> FoundCall:
    """Return a call as operators see it."""
    payment = call.payment
    return FoundCall(
        request_id=call.request_id,
        began_at=call.began_at,
        state=call.state,
        charged_atomic=str(call.charged),
        refunded_atomic=str(call.refunded),
        movements=[
            CallMovement.model_validate({**asdict(row), "amount_atomic": str(row.amount), "fee_atomic": str(row.fee)})
            for row in call.movements
        ],
        end=None if call.end is None else CallEnd.model_validate(call.end),
        payment=None if payment is None else _payment(payment),
        counted=call.counted,
        decisions=call.decisions,
    )
