"""What people do with their own account, written into the audit log of their default organization."""

from __future__ import annotations

from uuid import UUID

from gateway.audit.entries import record
from gateway.audit.origin import origin
from gateway.database.pool import Connection
from gateway.identity.organizations import default_of


async def note(connection: Connection, action: str, account_id: UUID, about: UUID, **details: object) -> None:
    """Record an action of an account on itself or one of its sessions; last in its transaction, as `record` asks."""
    who = origin()
    if who.actor_id is None:  # a login, a link in a letter: the request proves who it is on its way
        who.actor_type, who.actor_id = "human", account_id
    home = await default_of(connection, account_id)
    await record(connection, action, home.id if home else None, about, details=details or None)
