"""Deciding about an exchange without an end, or a debt; above the bound of four eyes another operator approves it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import orjson

from gateway.database.pool import Connection, Database
from gateway.ledger.resolutions import Decision, at_stake, resolve
from gateway.operators.approvals import Approval, FourEyes, Wanted, alone_or_asked


async def resolve_exchange(
    database: Database,
    exchange_id: UUID,
    decision: Decision,
    *,
    operator: str,
    actor: str,
    note: str | None,
    grace: timedelta,
    rule: FourEyes,
) -> str | Approval:
    """Decide about an exchange, or store the request for another operator. Raises NotFound, Conflict.

    Returns what the ledger did. What counts is the most that the decision can move: a hold that is kept is taken
    whole, and a debt that is forgiven is written off.
    """
    async with database.transaction() as connection:
        amount = await at_stake(connection, exchange_id, decision)
        if amount:  # a free call that was counted moves nothing
            body = orjson.dumps({"decision": decision, "note": note}).decode()
            wanted = Wanted("resolution", str(exchange_id), str(exchange_id), amount, note or "", body)
            waits = await alone_or_asked(connection, wanted, operator=operator, rule=rule)
            if waits is not None:
                return waits
        return await resolve(connection, exchange_id, decision, actor=actor, note=note, grace=grace)


async def apply_approved(connection: Connection, approval: Approval, *, operator: str, grace: timedelta) -> None:
    """Do what an approval stands for, in the caller's transaction. Raises NotFound where it has an end by now."""
    request = orjson.loads(approval.request)
    await resolve(
        connection,
        UUID(approval.subject),
        request["decision"],
        actor=f"{approval.asked_by}, approved by {operator}",
        note=request["note"],
        grace=grace,
    )
