"""Suspending and restoring: one row each time, its audit entries in the same transaction.

What a suspension does is gateway/suspensions.py's; workers hear of it by the row's trigger, at the commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.database.pool import Connection, Database, UniqueViolation
from gateway.database.statement import Statement
from gateway.errors import Conflict, NotFound
from gateway.ids import uuid7
from gateway.operators.subjects import Subject, resolve
from gateway.operators.trail import write_down
from gateway.suspensions import Kind

RESOURCE = {"key": "api_key"}
"""What the audit log calls a kind, where that is another word."""


@dataclass(frozen=True, slots=True)
class SuspensionRow:
    """A suspension as operators see it. `label` is what people call its subject; lifted ones stay."""

    id: UUID
    kind: Kind
    subject: str
    label: str
    reason: str
    note: str | None
    suspended_by: str
    since: datetime
    lifted_by: str | None
    lifted_at: datetime | None
    lift_note: str | None


_SUSPENSION = """
    SELECT s.id, s.kind, s.subject, s.reason, s.note, s.suspended_by, s.since, s.lifted_by, s.lifted_at, s.lift_note,
           coalesce(CASE s.kind
               WHEN 'publisher' THEN (SELECT p.slug FROM catalog.publisher p WHERE p.id = s.subject::uuid)
               WHEN 'key' THEN (SELECT 'seren_' || k.key_id || '_' FROM identity.api_key k WHERE k.id = s.subject::uuid)
               WHEN 'account' THEN (SELECT a.name FROM identity.account a WHERE a.id = s.subject::uuid)
               WHEN 'organization' THEN (SELECT o.slug FROM identity.organization o WHERE o.id = s.subject::uuid) END,
               s.subject) AS label
      FROM identity.suspension s
"""
INSERT_SUSPENSION = Statement(
    """
    INSERT INTO identity.suspension (id, kind, subject, reason, note, suspended_by) VALUES ($1, $2, $3, $4, $5, $6)
    RETURNING id::text
    """,
    UUID,
    scalar=True,
)
LIFT_SUSPENSION = Statement(
    """
    UPDATE identity.suspension SET lifted_by = $3, lifted_at = now(), lift_note = $4
     WHERE kind = $1 AND subject = $2 AND lifted_at IS NULL RETURNING id::text
    """,
    UUID,
    scalar=True,
)
FIND_SUSPENSION = Statement(_SUSPENSION + " WHERE s.id = $1", SuspensionRow)
LIST_SUSPENSIONS = Statement(
    _SUSPENSION
    + """
     WHERE ($1::text IS NULL OR s.kind = $1) AND ($2::text IS NULL OR s.subject = $2)
       AND ($3::boolean OR s.lifted_at IS NULL)
     ORDER BY s.since DESC, s.id DESC LIMIT $4 OFFSET $5
    """,
    SuspensionRow,
)
COUNT_SUSPENSIONS = Statement(
    """
    SELECT count(*) FROM identity.suspension s
     WHERE ($1::text IS NULL OR s.kind = $1) AND ($2::text IS NULL OR s.subject = $2)
       AND ($3::boolean OR s.lifted_at IS NULL)
    """,
    int,
    scalar=True,
)


async def suspend(
    database: Database, kind: Kind, name: str, *, operator: str, reason: str, note: str | None
) -> SuspensionRow:
    """Stop something until an operator restores it. Raises NotFound, and Conflict where it is suspended already."""
    try:
        async with database.transaction() as connection:
            subject = await resolve(connection, kind, name)
            made = await INSERT_SUSPENSION.one(connection, uuid7(), kind, subject.subject, reason, note, operator)
            await _note(connection, "suspend", operator, subject, {"reason": reason}, note=note, suspension_id=made)
            return await FIND_SUSPENSION.one(connection, made)
    except UniqueViolation:
        raise Conflict(
            f"This {kind} is suspended already; restore it first to suspend it for another reason."
        ) from None


async def restore(database: Database, kind: Kind, name: str, *, operator: str, note: str | None) -> SuspensionRow:
    """Let something go on as it was before. Raises NotFound where it is not suspended."""
    async with database.transaction() as connection:
        subject = await resolve(connection, kind, name)
        lifted = await LIFT_SUSPENSION.first(connection, kind, subject.subject, operator, note)
        if lifted is None:
            raise NotFound(f"This {kind} is not suspended.")
        await _note(connection, "restore", operator, subject, {}, note=note, suspension_id=lifted)
        return await FIND_SUSPENSION.one(connection, lifted)


async def page(
    connection: Connection, kind: Kind | None, name: str | None, *, lifted: bool, limit: int, offset: int
) -> tuple[list[SuspensionRow], int]:
    """Return some suspensions, newest first, and how many match. `name` asks for `kind`. Raises NotFound."""
    subject = None if name is None or kind is None else (await resolve(connection, kind, name)).subject
    total = await COUNT_SUSPENSIONS.one(connection, kind, subject, lifted)
    return await LIST_SUSPENSIONS.all(connection, kind, subject, lifted, limit, offset), total


async def _note(
    connection: Connection, what: str, operator: str, subject: Subject, told: dict[str, object], **kept: object
) -> None:
    action = f"{RESOURCE.get(subject.kind, subject.kind)}.{what}"
    told = {"name": subject.label, **told}
    owners = [] if subject.organization_id is None else [subject.organization_id]
    await write_down(connection, action, operator, owners, subject.id, told, **kept)
