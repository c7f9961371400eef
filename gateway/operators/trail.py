"""What operators do, written down: for the owner what concerns him, for the platform who it was and why.

The owner's entry has the reason, and neither the operator's name, address nor notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from gateway.audit.entries import record
from gateway.audit.origin import Origin, acting, origin
from gateway.database.pool import Connection


async def write_down(
    connection: Connection,
    action: str,
    operator: str,
    organizations: Sequence[UUID],
    resource_id: UUID | None,
    told: Mapping[str, object],
    **kept: object,
) -> None:
    """Record an operator's action, last in its transaction: `told` to owners, and with `kept` for the platform."""
    who = origin()
    for organization_id in organizations:
        with acting(Origin("operator", credential_type=who.credential_type)):
            await record(connection, action, organization_id, resource_id, details=told)
    details = {**told, "operator": operator, "organization_ids": organizations, **kept}
    await record(connection, action, None, resource_id, details=details)
