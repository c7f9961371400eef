"""Operators correct the balances of wallets, with a reason that their owners read. Extensions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, Offset
from admin_api.kit.once import Once
from admin_api.kit.problems import refusals
from admin_api.resources.operator import EXTENSION, Operator
from admin_api.resources.operator_approvals import MoneyApproval, shown_approval
from gateway.ledger.corrections import Correction
from gateway.operators.approvals import Approval, FourEyes
from gateway.operators.correcting import CorrectionRequest, correct_balance, corrections_of
from gateway.request_body import RequestBody

router = APIRouter(tags=["extensions"], prefix="/operator/wallets", route_class=StrictRoute)
WalletName = Annotated[
    str, Path(min_length=1, max_length=320, description="agent:<account id>, an account's id or an agent's name.")
]


class CorrectWalletRequest(RequestBody):
    """What to credit or to take, in atomic units. The same `reference` again is the same correction.

    `money` is `paid`, or `promotional`, which alone can expire; a debit takes only what it names. `reason` is shown to
    the owner.
    """

    direction: Literal["credit", "debit"]
    amount_atomic: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,37}$")]
    money: Literal["paid", "promotional"] = "paid"
    reference: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S")]
    expires_in_days: Annotated[int, Field(ge=1, le=3650)] | None = None


class WalletCorrection(Answer):
    """A correction of a balance; `approved_by` is the second operator, where one was needed."""

    id: UUID
    wallet: str
    reference: str
    direction: Literal["credit", "debit"]
    money: Literal["paid", "promotional"]
    amount_atomic: str
    expires_at: Moment | None
    reason: str
    corrected_by: str
    approved_by: str | None
    created_at: Moment


class CorrectedWallet(Answer):
    """The correction; `repeated`: it was booked before, and nothing was moved now.

    With an `approval` (202) nothing was moved yet: another operator has to approve it.
    """

    correction: WalletCorrection | None
    repeated: bool
    approval: MoneyApproval | None


class CorrectedWalletResponse(Answer):
    """Envelope."""

    data: CorrectedWallet


class WalletCorrectionsResponse(Answer):
    """A page."""

    data: list[WalletCorrection]
    has_more: bool


@router.post(
    "/{wallet}/corrections",
    status_code=201,
    operation_id="correct_wallet",
    responses={
        **refusals(400, 401, 404, 409, 429, 501),
        200: {"model": CorrectedWalletResponse, "description": "Corrected before"},
        202: {"model": CorrectedWalletResponse, "description": "Waits for another operator"},
    },
    openapi_extra=EXTENSION,
)
async def correct_wallet(
    wallet: WalletName,
    request: CorrectWalletRequest,
    actor: Operator,
    once: Once,
    services: ServicesDep,
    response: Response,
) -> CorrectedWalletResponse:
    """Credit a prepaid wallet, or take from it: all of it or nothing, once per reference, with a reason."""
    asked = CorrectionRequest(
        wallet=wallet,
        direction=request.direction,
        money=request.money,
        amount=int(request.amount_atomic),
        reference=request.reference,
        reason=request.reason,
        expires_in_days=request.expires_in_days,
    )
    done = await correct_balance(
        services.database,
        services.catalog.default_asset,
        asked,
        operator=actor,
        rule=FourEyes.of(services.settings.money),
    )
    if isinstance(done, Approval):
        response.status_code = 202
        waits = CorrectedWallet(correction=None, repeated=False, approval=shown_approval(done))
        return CorrectedWalletResponse(data=waits)
    response.status_code = 200 if done.repeated else 201
    return CorrectedWalletResponse(
        data=CorrectedWallet(correction=shown(done.correction), repeated=done.repeated, approval=None)
    )  # fmt: skip


@router.get(
    "/{wallet}/corrections",
    operation_id="list_wallet_corrections",
    responses=refusals(400, 401, 404, 429, 501),
    openapi_extra=EXTENSION,
)
async def list_wallet_corrections(
    wallet: WalletName,
    _actor: Operator,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    offset: Offset = 0,
) -> WalletCorrectionsResponse:
    """List the corrections of a wallet, newest first."""
    rows = await corrections_of(services.database, services.catalog.default_asset, wallet, limit + 1, offset)
    return WalletCorrectionsResponse(data=[shown(row) for row in rows[:limit]], has_more=len(rows) > limit)


def shown(correction: Correction) -> WalletCorrection:
    """Return a correction as operators see it."""
    return WalletCorrection.model_validate({**asdict(correction), "amount_atomic": str(correction.amount)})
