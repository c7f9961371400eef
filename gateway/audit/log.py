"""Reading the audit log of one organization: a page by filters, one entry, and all of it for an export."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from gateway.audit.entries import Entry
from gateway.database.pool import Connection, Database
from gateway.database.statement import Statement

EXPORT_ROUND = 500


@dataclass(frozen=True, slots=True)
class Filter:
    """What entries have to match, all of it; nothing matches everything."""

    actor_id: UUID | None = None
    action: str | None = None
    resource_type: str | None = None
    resource_id: UUID | None = None
    status: str | None = None
    category: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def values(self) -> list[object]:
        """Return the values in the order of the statements' parameters."""
        return [getattr(self, name) for name in _NAMES]


_NAMES = tuple(one.name for one in fields(Filter))

# Newest first; $1 is the chain, $2 to $9 the filter.
PAGE = Statement(
    """
    SELECT * FROM audit.entry
     WHERE chain = $1 AND ($2::uuid IS NULL OR actor_id = $2) AND ($3::text IS NULL OR action = $3)
       AND ($4::text IS NULL OR resource_type = $4) AND ($5::uuid IS NULL OR resource_id = $5)
       AND ($6::text IS NULL OR status = $6) AND ($7::text IS NULL OR category = $7)
       AND ($8::timestamptz IS NULL OR created_at >= $8) AND ($9::timestamptz IS NULL OR created_at < $9)
     ORDER BY seq DESC LIMIT $10 OFFSET $11
    """,
    Entry,
)
COUNT = Statement(
    """
    SELECT count(*) FROM audit.entry
     WHERE chain = $1 AND ($2::uuid IS NULL OR actor_id = $2) AND ($3::text IS NULL OR action = $3)
       AND ($4::text IS NULL OR resource_type = $4) AND ($5::uuid IS NULL OR resource_id = $5)
       AND ($6::text IS NULL OR status = $6) AND ($7::text IS NULL OR category = $7)
       AND ($8::timestamptz IS NULL OR created_at >= $8) AND ($9::timestamptz IS NULL OR created_at < $9)
    """,
    int,
    scalar=True,
)
# Oldest first, on from a place: an export reads in rounds, so that it holds neither a connection nor a transaction.
ROUND = Statement(
    """
    SELECT * FROM audit.entry
     WHERE chain = $1 AND ($2::uuid IS NULL OR actor_id = $2) AND ($3::text IS NULL OR action = $3)
       AND ($4::text IS NULL OR resource_type = $4) AND ($5::uuid IS NULL OR resource_id = $5)
       AND ($6::text IS NULL OR status = $6) AND ($7::text IS NULL OR category = $7)
       AND ($8::timestamptz IS NULL OR created_at >= $8) AND ($9::timestamptz IS NULL OR created_at < $9)
       AND seq > $10
     ORDER BY seq LIMIT $11
    """,
    Entry,
)
FIND = Statement("SELECT * FROM audit.entry WHERE chain = $1 AND id = $2", Entry)


async def page(
    connection: Connection, organization_id: UUID, which: Filter, *, limit: int, offset: int
) -> tuple[list[Entry], int]:
    """Return a page, newest first, and how many entries match in all."""
    total = await COUNT.one(connection, organization_id, *which.values())
    return await PAGE.all(connection, organization_id, *which.values(), limit, offset), total


async def find(connection: Connection, organization_id: UUID, entry_id: UUID) -> Entry | None:
    """Return an entry of an organization."""
    return await FIND.first(connection, organization_id, entry_id)


async def export(database: Database, organization_id: UUID, which: Filter) -> AsyncGenerator[list[Entry]]:
    """Yield every entry that matches, oldest first, in rounds."""
    last = 0
    while True:
        async with database.acquire() as connection:
            found = await ROUND.all(connection, organization_id, *which.values(), last, EXPORT_ROUND)
        if found:
            yield found
            last = found[-1].seq
        if len(found) < EXPORT_ROUND:
            return
