"""Four eyes: requests to move money above a bound wait for another operator, and expire.

What one operator has moved alone lately counts against the bound, every kind of act together, so that it is not passed
in parts. Here requests are made, found and decided about; what an approval does is approving.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import orjson

from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, Forbidden, NotFound
from gateway.ids import uuid7
from gateway.operators.trail import write_down
from gateway.settings import MoneySettings

Kind = Literal["correction", "refund", "grant", "resolution", "deposit_refund"]
Detail = str | int | bool | None
State = Literal["pending", "approved", "declined", "expired"]


@dataclass(frozen=True, slots=True)
class FourEyes:
    """Above which amount (atomic units; 0: never) another operator has to approve, and within what time.

    The same time is for how long what an operator has moved alone counts.
    """

    above: int
    within: timedelta

    @classmethod
    def of(cls, money: MoneySettings) -> FourEyes:
        """Return the operators' rule of a gateway."""
        return cls(money.four_eyes_above, timedelta(seconds=money.four_eyes_within))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an operator wants to do. `request` is JSON: all that the approval needs."""

    kind: Kind
    subject: str
    reference: str
    amount: int
    reason: str
    request: str


@dataclass(frozen=True, slots=True)
class Approval:
    """A request and what became of it; `subject` is a wallet, a call or a deposit, `amount` atomic units."""

    id: UUID
    kind: Kind
    subject: str
    reference: str
    amount: int
    reason: str
    request: str
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    state: State
    decided_by: str | None
    decided_at: datetime | None
    note: str | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", int(self.amount))

    @property
    def details(self) -> dict[str, Detail]:
        """Return all that would be done: the direction of a correction, the decision about an exchange."""
        return orjson.loads(self.request)


# One that is pending for too long is expired, whatever its row says.
_APPROVAL = """
    SELECT a.id, a.kind, a.subject, a.reference, a.amount, a.reason, a.request, a.asked_by, a.asked_at, a.expires_at,
           CASE WHEN a.state = 'pending' AND a.expires_at <= now() THEN 'expired' ELSE a.state END AS state,
           a.decided_by, a.decided_at, a.note
      FROM ledger.approval a
"""
# Until the transaction ends, so that of two at once the second counts the first.
ONE_AT_A_TIME = Command("SELECT pg_advisory_xact_lock(hashtextextended('four eyes: ' || lower($1), 0))")
MOVE_ALONE = Statement(
    """
    INSERT INTO ledger.moved_alone (id, operator, kind, subject, amount)
    SELECT $1, lower($2), $3, $4, $5::text::numeric
     WHERE $6::text::numeric = 0
        OR $5::text::numeric + (SELECT coalesce(sum(m.amount), 0) FROM ledger.moved_alone m
                                 WHERE m.operator = lower($2) AND m.moved_at > now() - $7::interval)
           <= $6::text::numeric
    RETURNING true
    """,
    bool,
    scalar=True,
)
EXPIRE = Command(
    """
    UPDATE ledger.approval SET state = 'expired'
     WHERE kind = $1 AND subject = $2 AND reference = $3 AND state = 'pending' AND expires_at <= now()
    """
)
ASK = Statement(
    """
    INSERT INTO ledger.approval (id, kind, subject, reference, amount, reason, request, asked_by, expires_at)
    VALUES ($1, $2, $3, $4, $5::text::numeric, $6, $7, $8, now() + $9::interval)
    ON CONFLICT (kind, subject, reference) WHERE state = 'pending' DO NOTHING RETURNING id::text
    """,
    UUID,
    scalar=True,
)
FIND_PENDING = Statement(
    _APPROVAL + " WHERE a.kind = $1 AND a.subject = $2 AND a.reference = $3 AND a.state = 'pending'", Approval
)
FIND_APPROVAL = Statement(_APPROVAL + " WHERE a.id = $1", Approval)
LOCK_APPROVAL = Statement(_APPROVAL + " WHERE a.id = $1 FOR UPDATE", Approval)
LIST_APPROVALS = Statement(
    _APPROVAL
    + """
     WHERE $1::text IS NULL
        OR $1 = CASE WHEN a.state = 'pending' AND a.expires_at <= now() THEN 'expired' ELSE a.state END
     ORDER BY a.asked_at DESC, a.id DESC LIMIT $2 OFFSET $3
    """,
    Approval,
)
DECIDE = Command("UPDATE ledger.approval SET state = $2, decided_by = $3, decided_at = now(), note = $4 WHERE id = $1")


async def alone_or_asked(
    connection: Connection, wanted: Wanted, *, operator: str, rule: FourEyes
) -> Approval | None:  # fmt: skip
    """Count what an operator moves alone; above the bound store the request for another one, and return that.

    The caller moves the money afterwards, in the same transaction. What repeats an earlier move is not brought here.
    """
    await ONE_AT_A_TIME.run(connection, operator)
    alone = await MOVE_ALONE.first(
        connection, uuid7(), operator, wanted.kind, wanted.subject, str(wanted.amount), str(rule.above), rule.within
    )
    return None if alone else await ask(connection, wanted, operator=operator, rule=rule)


async def ask(connection: Connection, wanted: Wanted, *, operator: str, rule: FourEyes) -> Approval:
    """Store a request for another operator, once while it is pending. Raises Conflict where it says something else."""
    key = (wanted.kind, wanted.subject, wanted.reference)
    await EXPIRE.run(connection, *key)
    new = await ASK.first(
        connection, uuid7(), *key, str(wanted.amount), wanted.reason, wanted.request, operator, rule.within
    )  # fmt: skip
    if new is not None:
        approval = await FIND_APPROVAL.one(connection, new)
        await note_approval(connection, "request", approval, operator)
        return approval
    pending = await FIND_PENDING.first(connection, *key)
    if pending is None or pending.request != wanted.request:
        raise Conflict("Another request with this reference waits for an approval; decline that one first.")
    return pending


async def pending_for(connection: Connection, approval_id: UUID) -> Approval:
    """Return a pending request, locked until the transaction ends. Raises NotFound, Conflict."""
    approval = await LOCK_APPROVAL.first(connection, approval_id)
    if approval is None:
        raise NotFound("There is no request with this id.")
    if approval.state != "pending":
        by = f" by {approval.decided_by}" if approval.decided_by else ""
        raise Conflict(f"This request is {approval.state}{by}, so nothing was done now.", state=approval.state)
    return approval


def demand_another(approval: Approval, operator: str) -> None:
    """Refuse an approval by the operator who asked. Raises Forbidden."""
    if approval.asked_by.lower() == operator.lower():
        raise Forbidden(f"{operator} has asked for this: another operator approves it.")


async def decline(connection: Connection, approval_id: UUID, *, operator: str, note: str | None) -> Approval:
    """End a request without doing it; who asked may take it back so. Raises NotFound, Conflict."""
    await pending_for(connection, approval_id)
    await DECIDE.run(connection, approval_id, "declined", operator, note)
    declined = await FIND_APPROVAL.one(connection, approval_id)
    await note_approval(connection, "decline", declined, operator)
    return declined


async def note_approval(connection: Connection, what: str, approval: Approval, operator: str) -> None:
    """Tell the platform's audit log; its owner hears of what was done, not of what was asked."""
    told: dict[str, object] = {
        "kind": approval.kind,
        "subject": approval.subject,
        "reference": approval.reference,
        "amount_atomic": str(approval.amount),
        "reason": approval.reason,
        "asked_by": approval.asked_by,
        "note": approval.note,
    }
    await write_down(connection, f"approval.{what}", operator, [], approval.id, told)
