"""Giving a call back that has ended: whole, to the lots it came from, through the ledger's own refund.

The publisher's earnings and the platform's fee go back with it; where they have been paid out, later earnings make up
for it. A second refund moves nothing. What does not live here: exchanges without an end (ledger/resolutions.py), and
money that came on a chain or went to another seller, which no lot can take back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson

from gateway.database.pool import Connection, Database
from gateway.database.statement import Statement
from gateway.errors import Conflict
from gateway.identity.organizations import default_of
from gateway.ledger.exchanges import refund
from gateway.ledger.resolutions import NOTE_RESOLUTION
from gateway.operators.approvals import Approval, FourEyes, Wanted, alone_or_asked
from gateway.operators.calls import Call, find_call
from gateway.operators.trail import write_down

ON_A_CHAIN = (
    "This call was paid on a chain, and its money is in a block: nothing here takes it back. Send it from the treasury,"
    " or grant credit (tollway wallet grant)."
)
UNENDED = "This call has no end yet. Decide about it: tollway exchanges resolve, POST /operator/exchanges/<id>/resolve."
DIRECT = "This is a direct charge: its publisher refunds it, with its penalties."
BOUGHT = "The gateway paid another seller for this call, who keeps the money: it is not given back from here."
NOTHING = "This call cost nothing, so there is nothing to give back."


@dataclass(frozen=True, slots=True)
class CallRefund:
    """What was given back, in atomic units; `repeated`: an earlier refund did, and nothing moved now."""

    request_id: UUID
    amount: int
    repeated: bool


IS_DIRECT = Statement("SELECT EXISTS (SELECT FROM ledger.direct_charge WHERE id = $1)", bool, scalar=True)
IS_BOUGHT = Statement("SELECT EXISTS (SELECT FROM chain.purchase WHERE exchange_id = $1)", bool, scalar=True)


async def refund_call(
    database: Database, request_id: str, *, operator: str, reason: str, grace: timedelta, rule: FourEyes
) -> CallRefund | Approval:
    """Give a call back, or store the request for another operator. Raises InvalidRequest, NotFound, Conflict."""
    async with database.transaction() as connection:
        call = await refundable(connection, request_id)
        if call.state != "refunded":
            body = orjson.dumps({"request_id": str(call.request_id)}).decode()
            wanted = Wanted("refund", str(call.request_id), str(call.request_id), call.charged, reason, body)
            waits = await alone_or_asked(connection, wanted, operator=operator, rule=rule)
            if waits is not None:
                return waits
        return await book(connection, call, operator=operator, reason=reason, grace=grace)


async def book(
    connection: Connection, call: Call, *, operator: str, reason: str, grace: timedelta, approved_by: str | None = None
) -> CallRefund:
    """Give a call back in the caller's transaction, last in it, and tell both sides' audit logs."""
    given = await refund(connection, call.request_id, reason="operator", status=None, grace=grace, only_open=False)
    if given.verdict == "refunded":
        await NOTE_RESOLUTION.run(connection, call.request_id, "refund", given.verdict, operator, reason)
        await _note(connection, call, operator, reason, given.amount, approved_by)
    return CallRefund(call.request_id, given.amount, repeated=given.verdict == "repeated")


async def refundable(connection: Connection, request_id: str) -> Call:
    """Return a call that can be given back, or was. Raises InvalidRequest, NotFound, Conflict."""
    call = await find_call(connection, request_id)
    if call.payment is not None:
        raise Conflict(ON_A_CHAIN)
    if call.state == "open":
        raise Conflict(UNENDED)
    if await IS_DIRECT.one(connection, call.request_id):
        raise Conflict(DIRECT)
    if await IS_BOUGHT.one(connection, call.request_id):
        raise Conflict(BOUGHT)
    if not call.charged:
        raise Conflict(NOTHING)
    return call


async def _note(
    connection: Connection, call: Call, operator: str, reason: str, amount: int, approved_by: str | None
) -> None:
    """Tell the buyer's log and the seller's: in the order of their ids, as everybody locks them."""
    told = {"reason": reason, "amount_atomic": str(amount), "request_id": str(call.request_id)}
    sides: set[UUID] = {one.organization_id for one in call.movements if one.organization_id is not None}
    for account_id in {one.account_id for one in call.movements if one.account_id is not None}:
        home = await default_of(connection, account_id)
        if home is not None:
            sides.add(home.id)
    await write_down(
        connection, "exchange.refund", operator, sorted(sides), call.request_id, told, approved_by=approved_by
    )
