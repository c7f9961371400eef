"""Category `Audit Logs`: who changed what in an organization, as a page, one by one, or whole (an extension).

The log is append-only; what writes it is gateway/audit/entries.py, and what proves it `tollway audit verify`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.responses import StreamingResponse

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import MAX_OFFSET, Answer, Moment, PaginationMeta
from admin_api.kit.moments import moment
from admin_api.kit.needs import needs
from admin_api.kit.problems import refusals
from gateway.audit.entries import Entry
from gateway.audit.log import Filter, export, find, page
from gateway.errors import NotFound
from gateway.identity.permissions import Permission
from gateway.json_text import json_text

router = APIRouter(prefix="/organizations/{organization_id}/audit-logs", tags=["Audit Logs"], route_class=StrictRoute)

READER = needs(Permission.AUDIT_READ)
FORMATS = {"ndjson": "application/x-ndjson", "csv": "text/csv"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class AuditLog(Answer):
    """One change. `metadata` has the changed fields, digests before and after, and names that help to read it.

    `credential` in there says which API key or session was used.
    """

    id: UUID
    organization_id: UUID | None
    actor_type: str
    actor_id: UUID | None
    action: str
    action_category: str | None
    resource_type: str
    resource_id: UUID | None
    status: str
    error_message: str | None
    ip_address: str | None
    user_agent: str | None
    request_id: str | None
    metadata: Any
    created_at: Moment


class AuditLogResponse(Answer):
    """Envelope."""

    data: AuditLog
    pagination: PaginationMeta | None = None


class AuditLogList(Answer):
    """A page; where it lies in the whole is told in here, not in `pagination`."""

    data: list[AuditLog]
    total: int
    limit: int
    offset: int


class AuditLogListResponse(Answer):
    """Envelope."""

    data: AuditLogList
    pagination: PaginationMeta | None = None


def filtered(
    actor_id: Annotated[UUID | None, Query(description="The account that acted.")] = None,
    action: Annotated[str | None, Query(max_length=100, description="Such as publisher.update.")] = None,
    resource_type: Annotated[str | None, Query(max_length=100, description="Such as publisher.")] = None,
    resource_id: Annotated[UUID | None, Query()] = None,
    status: Annotated[str | None, Query(max_length=100, description="success or denied.")] = None,
    action_category: Annotated[
        str | None, Query(max_length=100, description="access, catalog, money or settings.")
    ] = None,
    start_date: Annotated[
        str | None, Query(max_length=64, description="The first moment or UTC day; ISO 8601.")
    ] = None,
    end_date: Annotated[
        str | None, Query(max_length=64, description="The moment before which it ends, or the last UTC day; ISO 8601.")
    ] = None,
) -> Filter:
    """Return the filter of a request; all of it has to match. Raises InvalidRequest."""
    since = None if start_date is None else moment("start_date", start_date)
    until = None if end_date is None else moment("end_date", end_date, days=1)
    return Filter(actor_id, action, resource_type, resource_id, status, action_category, since, until)


Filtered = Annotated[Filter, Depends(filtered)]


@router.get("", operation_id="list_audit_logs", dependencies=[READER], responses=refusals(400, 401, 403, 404))
async def list_audit_logs(
    organization_id: UUID,
    services: ServicesDep,
    which: Filtered,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
) -> AuditLogListResponse:
    """List what was changed in an organization, and what members were refused, newest first."""
    async with services.database.acquire() as connection:
        entries, total = await page(connection, organization_id, which, limit=limit, offset=offset)
    found = [shown(entry) for entry in entries]
    return AuditLogListResponse(data=AuditLogList(data=found, total=total, limit=limit, offset=offset))


@router.get(
    "/export",
    operation_id="export_audit_logs",
    dependencies=[READER],
    response_class=StreamingResponse,
    responses={
        **refusals(400, 401, 403),
        200: {"content": {media: {"schema": {"type": "string"}} for media in FORMATS.values()}},
    },
    openapi_extra={"x-extension": True},
)
async def export_audit_logs(
    organization_id: UUID,
    services: ServicesDep,
    which: Filtered,
    format: Annotated[Literal["ndjson", "csv"], Query()] = "ndjson",
) -> StreamingResponse:
    """Send the whole log, or what matches of it, oldest first: a JSON object a line, or CSV with a heading."""
    rounds = export(services.database, organization_id, which)
    lines = _lines(rounds) if format == "ndjson" else _table(rounds)
    name = f'attachment; filename="audit-{organization_id}.{format}"'
    return StreamingResponse(lines, media_type=FORMATS[format], headers={"Content-Disposition": name})


@router.get("/{log_id}", operation_id="get_audit_log", dependencies=[READER], responses=refusals(401, 403, 404))
async def get_audit_log(organization_id: UUID, log_id: UUID, services: ServicesDep) -> AuditLogResponse:
    """Return one entry of an organization's log."""
    async with services.database.acquire() as connection:
        entry = await find(connection, organization_id, log_id)
    if entry is None:
        raise NotFound("This organization's audit log has no entry with this id.")
    return AuditLogResponse(data=shown(entry))


def shown(entry: Entry) -> AuditLog:
    """Return an entry as it is answered."""
    metadata = dict(entry.metadata)
    if entry.credential_type is not None:
        identity = None if entry.credential_id is None else str(entry.credential_id)
        metadata["credential"] = {"type": entry.credential_type, "id": identity}
    return AuditLog(
        id=entry.id,
        organization_id=entry.chain,
        actor_type=entry.actor_type,
        actor_id=entry.actor_id,
        action=entry.action,
        action_category=entry.category,
        resource_type=entry.resource_type,
        resource_id=entry.resource_id,
        status=entry.status,
        error_message=entry.error_message,
        ip_address=entry.ip_address,
        user_agent=entry.user_agent,
        request_id=entry.request_id,
        metadata=metadata,
        created_at=entry.created_at,
    )


def _document(entry: Entry) -> dict[str, Any]:
    """Return an entry with its place in the chain: what a copy needs to be compared with the log."""
    document = shown(entry).model_dump(mode="json")
    return {**document, "sequence": entry.seq, "digest": entry.digest.hex()}


async def _lines(rounds: AsyncGenerator[list[Entry]]) -> AsyncGenerator[bytes]:
    async for entries in rounds:
        yield b"".join(json_text(_document(entry)) + b"\n" for entry in entries)


async def _table(rounds: AsyncGenerator[list[Entry]]) -> AsyncGenerator[bytes]:
    columns = [*AuditLog.model_fields, "sequence", "digest"]
    yield _rows([columns], str)
    async for entries in rounds:
        documents = [_document(entry) for entry in entries]
        yield _rows([[document[name] for name in columns] for document in documents], _cell)


def _rows(rows: Iterable[list[Any]], cell: Callable[[Any], str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    """Return a value as a cell that no spreadsheet takes for a formula: user agents are anybody's text."""
    text = "" if value is None else str(value)
    if isinstance(value, dict):
        text = json_text(cast("object", value)).decode()
    return f"'{text}" if text.startswith(_FORMULA) else text
