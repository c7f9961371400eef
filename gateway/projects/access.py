"""The one place that answers "may this caller do X with this project, from here".

A project of an organization that the caller is not in is answered exactly like one that does not exist (404). Only then
is the address looked at, so that a list says nothing to strangers, and then the permission.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from gateway.database.pool import Connection
from gateway.errors import Forbidden
from gateway.identity.clients import Address
from gateway.identity.permissions import Member, Permission, membership
from gateway.identity.principals import Principal
from gateway.projects.allow_list import demand_reachable
from gateway.projects.projects import FIND, Project, not_found


@dataclass(frozen=True, slots=True)
class InProject:
    """A member of the organization that a project belongs to, and from where it asks."""

    member: Member
    project: Project
    address: Address | None


async def entered(
    connection: Connection, caller: Principal, project_id: UUID, permission: Permission, address: Address | None
) -> InProject:
    """Return the caller with a project. Raises NotFound, AddressNotAllowed, Forbidden, in this order."""
    project = await FIND.first(connection, project_id)
    if project is None:
        raise not_found()
    try:
        member = await membership(connection, caller, project.organization_id)
    except Forbidden:
        raise not_found() from None
    await demand_reachable(connection, project_id, address)
    member.demand(permission)
    return InProject(member, project, address)
