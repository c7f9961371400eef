"""Approving what another operator has asked for: its effect and the decision are one transaction.

Everything is judged anew: a balance that has changed since is a refusal, and the request stays pending.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from gateway.catalog.assets import Asset
from gateway.database.pool import Connection, Database
from gateway.operators import correcting, deposit_refunds, granting, refunds, resolving
from gateway.operators.approvals import DECIDE, FIND_APPROVAL, Approval, demand_another, note_approval, pending_for
from gateway.operators.wallets import find_wallet


async def approve(
    database: Database, approval_id: UUID, *, operator: str, asset: Asset, grace: timedelta
) -> Approval:  # fmt: skip
    """Do what was asked for, once. Raises NotFound, Forbidden for who asked, Conflict where it cannot be done now."""
    async with database.transaction() as connection:
        approval = await pending_for(connection, approval_id)
        demand_another(approval, operator)
        await _apply(connection, approval, operator, asset, grace)
        await DECIDE.run(connection, approval_id, "approved", operator, None)
        approved = await FIND_APPROVAL.one(connection, approval_id)
        await note_approval(connection, "approve", approved, operator)
        return approved


async def _apply(connection: Connection, approval: Approval, operator: str, asset: Asset, grace: timedelta) -> None:
    asked_by = approval.asked_by
    if approval.kind == "refund":
        call = await refunds.refundable(connection, approval.subject)
        await refunds.book(
            connection, call, operator=asked_by, approved_by=operator, reason=approval.reason, grace=grace
        )  # fmt: skip
        return
    if approval.kind == "resolution":
        await resolving.apply_approved(connection, approval, operator=operator, grace=grace)
        return
    if approval.kind == "deposit_refund":
        await deposit_refunds.apply_approved(connection, approval, operator=operator)
        return
    wallet = await find_wallet(connection, approval.subject, asset)
    if approval.kind == "grant":
        grant = granting.of_approval(approval)
        await granting.book(connection, wallet, grant, operator=asked_by, approved_by=operator)
    else:
        correction = correcting.of_approval(approval)
        await correcting.book(connection, wallet, correction, operator=asked_by, approved_by=operator)
