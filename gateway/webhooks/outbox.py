"""The outbox: an event and its deliveries, written in the transaction of what happened.

So no event is lost, and none is sent of what was rolled back. An organization without a webhook that wants it costs one
look at an index and writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from uuid import UUID

import orjson

from gateway.database.pool import Connection
from gateway.database.statement import Command
from gateway.ids import uuid7

EMIT = Command(
    """
    WITH wanted AS (
        SELECT id FROM webhook.endpoint
         WHERE organization_id = $2 AND enabled AND events && ARRAY[$3::text, '*']
           AND (project_id IS NULL OR project_id = ANY ($5::uuid[]))
    ), event AS (
        INSERT INTO webhook.event (id, organization_id, type, data, created_at)
        SELECT $1, $2, $3, $4, clock_timestamp() WHERE EXISTS (SELECT FROM wanted) RETURNING id
    )
    INSERT INTO webhook.delivery (id, endpoint_id, event_id) SELECT gen_random_uuid(), wanted.id, event.id
      FROM wanted, event
    """
)
EMIT_TO = Command(
    """
    WITH event AS (
        INSERT INTO webhook.event (id, organization_id, type, data, created_at)
        VALUES ($1, $2, $3, $4, clock_timestamp()) RETURNING id
    )
    INSERT INTO webhook.delivery (id, endpoint_id, event_id) SELECT gen_random_uuid(), $5, event.id FROM event
    """
)


async def emit(
    connection: Connection,
    organization_id: UUID,
    event_type: str,
    data: Mapping[str, object],
    projects: Collection[UUID] = (),
) -> int:
    """Write an event down for every webhook that wants it, in the transaction of what happened; return how many do.

    For a change that is audited `record` does it. `data` is sent as it is: names, ids and amounts, never a secret.
    A webhook of one project hears of it when that is one of `projects`.
    """
    told = _told(organization_id, data)
    return await EMIT.run(connection, uuid7(), organization_id, event_type, told, list(projects))


async def emit_to(
    connection: Connection, endpoint_id: UUID, organization_id: UUID, event_type: str, data: Mapping[str, object]
) -> UUID:
    """Write an event down for one webhook, whatever it wants, and return its id."""
    event = uuid7()
    await EMIT_TO.run(connection, event, organization_id, event_type, _told(organization_id, data), endpoint_id)
    return event


def _told(organization_id: UUID, data: Mapping[str, object]) -> object:
    return orjson.loads(orjson.dumps({"organization_id": str(organization_id), **data}, default=str))
