"""Refunding a deposit to its card; above the bound of four eyes another operator approves it.

The refund is an order (billing/card_refunds.py): a row in the transaction that counts it, or that approves it. Sending
it is the caller's, or a gateway's job.
"""

from __future__ import annotations

from uuid import UUID

import orjson

from gateway.billing.card_refunds import FIND_OPEN, RefundOrder, lock_refundable, most_refundable, order
from gateway.billing.card_rows import Deposit
from gateway.database.pool import Connection, Database
from gateway.errors import Conflict
from gateway.operators.approvals import Approval, FourEyes, Wanted, alone_or_asked
from gateway.operators.trail import write_down


async def refund_deposit(
    database: Database,
    deposit_id: UUID,
    cents: int | None,
    *,
    spent_too: bool,
    operator: str,
    rule: FourEyes,
) -> RefundOrder | Approval:
    """Order a refund, or store the request for another operator. Raises NotFound, Conflict.

    Without `cents` it is all that can go back. An order that is still open is returned as it is, and counts no more.
    """
    async with database.transaction() as connection:
        deposit = await lock_refundable(connection, deposit_id)
        unsent = await FIND_OPEN.first(connection, deposit_id)
        if unsent is not None and cents in (None, unsent.cents):
            return unsent
        cents = await _demand(connection, deposit, cents, unsent, spent_too=spent_too)
        body = orjson.dumps({"cents": cents, "spent_too": spent_too}).decode()
        amount = cents * (deposit.amount // deposit.cents)
        wanted = Wanted("deposit_refund", str(deposit_id), str(deposit_id), amount, "", body)
        waits = await alone_or_asked(connection, wanted, operator=operator, rule=rule)
        if waits is not None:
            return waits
        ordered = await order(connection, deposit, cents, sends_itself=True)
        await _note(connection, deposit, ordered, operator=operator)
        return ordered


async def apply_approved(connection: Connection, approval: Approval, *, operator: str) -> None:
    """Order what was approved, in the caller's transaction; a gateway sends it. Raises NotFound, Conflict."""
    request = orjson.loads(approval.request)
    deposit = await lock_refundable(connection, UUID(approval.subject))
    unsent = await FIND_OPEN.first(connection, deposit.id)
    cents = await _demand(connection, deposit, request["cents"], unsent, spent_too=request["spent_too"])
    ordered = await order(connection, deposit, cents, sends_itself=False)
    await _note(connection, deposit, ordered, operator=approval.asked_by, approved_by=operator)


async def _demand(
    connection: Connection, deposit: Deposit, cents: int | None, unsent: RefundOrder | None, *, spent_too: bool
) -> int:
    """Return how many cents go back. Raises Conflict for more than there is, and while an order is open."""
    if unsent is not None:
        raise Conflict(f"A refund of {dollars(unsent.cents)} of this deposit is on its way to Stripe; try again then.")
    most = await most_refundable(connection, deposit, spent_too=spent_too)
    wanted = most if cents is None else cents
    if 0 < wanted <= most:
        return wanted
    why = f" here ({deposit.reason}); look at Stripe" if deposit.reason else ""
    spent = " and leave nothing owed (--spent-too gives back more)" if most < deposit.left_cents else ""
    raise Conflict(f"{dollars(most)} of it can be given back{spent}{why}.")


async def _note(
    connection: Connection, deposit: Deposit, ordered: RefundOrder, *, operator: str, approved_by: str | None = None
) -> None:
    told = {"order": str(ordered.id), "cents": ordered.cents}
    theirs = [] if deposit.organization_id is None else [deposit.organization_id]
    await write_down(connection, "deposit.give_back", operator, theirs, deposit.id, told, approved_by=approved_by)


def dollars(cents: int) -> str:
    """Return cents as people write dollars."""
    return f"{'-' if cents < 0 else ''}${abs(cents) // 100}.{abs(cents) % 100:02}"
