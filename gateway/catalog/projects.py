"""Publishers and webhooks that belong to a project: it has to be one of their organization.

What does not live here: projects themselves (gateway/projects/, an upper step).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from gateway.catalog.refusals import refused
from gateway.database.pool import Connection
from gateway.database.statement import Statement

FIELD = "project_id"

# Held until the transaction ends: the project is not deleted before what names it is written.
HOLD = Statement(
    """
    SELECT true FROM project.project WHERE id = $1 AND organization_id = $2 AND deleted_at IS NULL FOR KEY SHARE
    """,
    bool,
    scalar=True,
)


async def check_project(connection: Connection, organization_id: UUID, named: Mapping[str, Any]) -> None:
    """Raise InvalidRequest when what is named is no project of the organization; another's is answered like none."""
    project_id = named.get(FIELD)
    if project_id is not None and not await HOLD.first(connection, UUID(str(project_id)), organization_id):
        raise refused(FIELD, "is no project of this organization")
