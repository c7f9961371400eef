"""Category `IP Allow Lists`: from which addresses a project is reached.

`allow_lockout` is an extension. The rules are in gateway/projects/allow_list.py.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field, StrictStr

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment, PaginationMeta
from admin_api.kit.needs import needs
from admin_api.kit.problems import refusals
from admin_api.kit.segments import IP_ENTRY
from gateway.catalog.refusals import refused
from gateway.identity import names
from gateway.identity.allowed_addresses import MOST, network
from gateway.identity.permissions import Permission
from gateway.projects import allow_list
from gateway.projects.access import InProject
from gateway.projects.allow_list import Asker, Entry, Wanted
from gateway.request_body import RequestBody

router = APIRouter(tags=["IP Allow Lists"], route_class=StrictRoute)
PATH = "/projects/{project_id}/ip-allow"
Reader = Annotated[InProject, needs(Permission.IP_ALLOW_READ, project=True)]
Manager = Annotated[InProject, needs(Permission.IP_ALLOW_MANAGE, project=True)]
AllowLockout = Annotated[
    bool, Query(description="Extension: whether the list may leave out the address that asks for the change")
]

IpAddress = Annotated[StrictStr, Field(min_length=1, max_length=100)]
Description = Annotated[StrictStr, Field(max_length=256)]


class AddIpAllowListRequest(RequestBody):
    """An address or a network in CIDR notation, IPv4 or IPv6, without bits beyond its length."""

    ip_address: IpAddress
    description: Description | None = None


class ResetIpAllowListEntry(AddIpAllowListRequest):
    """An entry of the new list."""


class ResetIpAllowListRequest(RequestBody):
    """The new list, whole; an empty one lets everybody in, and therefore has to be written out."""

    entries: Annotated[list[ResetIpAllowListEntry], Field(max_length=MOST)] | None = None


class IpAllowList(Answer):
    """An entry: one address, or a network as address/length."""

    id: UUID
    project_id: UUID
    ip_address: str
    description: str | None
    created_by: UUID
    created_at: Moment
    updated_at: Moment


class IpAllowListResponse(Answer):
    """Envelope."""

    data: IpAllowList
    pagination: PaginationMeta | None = None


class IpAllowListsResponse(Answer):
    """Envelope."""

    data: list[IpAllowList]
    pagination: PaginationMeta | None = None


@router.get(PATH, operation_id="list_ip_allow_list", responses=refusals(401, 403, 404))
async def list_ip_allow_list(inside: Reader, services: ServicesDep) -> IpAllowListsResponse:
    """List from where a project is reached, newest first; nothing is from everywhere."""
    async with services.database.acquire() as connection:
        entries = await allow_list.LIST.all(connection, inside.project.id)
    return IpAllowListsResponse(data=[_shown(entry) for entry in entries])


@router.post(PATH, status_code=201, operation_id="add_ip_to_allow_list", responses=refusals(400, 401, 403, 404, 409))
async def add_ip_to_allow_list(
    body: AddIpAllowListRequest, inside: Manager, services: ServicesDep, allow_lockout: AllowLockout = False
) -> IpAllowListResponse:
    """Let an address or a network reach a project. The first entry shuts out everybody else."""
    wanted = _wanted(body, "")
    async with services.database.transaction() as connection:
        entry = await allow_list.add(connection, inside.project.id, wanted, _asker(inside, allow_lockout))
    return IpAllowListResponse(data=_shown(entry))


@router.put(f"{PATH}/reset", operation_id="reset_ip_allow_list", responses=refusals(400, 401, 403, 404, 409))
async def reset_ip_allow_list(
    body: ResetIpAllowListRequest, inside: Manager, services: ServicesDep, allow_lockout: AllowLockout = False
) -> IpAllowListsResponse:
    """Replace the list, whole or not at all. Entries whose network stays keep their ids."""
    if body.entries is None:
        raise refused("entries", "must be given; [] empties the list, which lets everybody in")
    wanted = [_wanted(one, f"entries.{position}.") for position, one in enumerate(body.entries)]
    async with services.database.transaction() as connection:
        entries = await allow_list.reset(connection, inside.project.id, wanted, _asker(inside, allow_lockout))
    return IpAllowListsResponse(data=[_shown(entry) for entry in entries])


@router.delete(
    f"{PATH}/{IP_ENTRY}",
    status_code=204,
    operation_id="remove_ip_from_allow_list",
    responses=refusals(401, 403, 404, 409),
)
async def remove_ip_from_allow_list(
    ip_id: UUID, inside: Manager, services: ServicesDep, allow_lockout: AllowLockout = False
) -> None:
    """Take an entry out. The last one to go lets everybody in."""
    async with services.database.transaction() as connection:
        await allow_list.remove(connection, inside.project.id, ip_id, _asker(inside, allow_lockout))


def _wanted(entry: AddIpAllowListRequest, place: str) -> Wanted:
    try:
        found = network(entry.ip_address)
    except ValueError as error:
        raise refused(f"{place}ip_address", str(error)) from None
    description = (entry.description or "").strip() or None
    try:
        return Wanted(found, None if description is None else names.check(description, longest=256))
    except names.NameRefused as error:
        raise refused(f"{place}description", str(error)) from None


def _asker(inside: InProject, may_lock_out: bool) -> Asker:
    return Asker(inside.member.caller.account_id, inside.address, may_lock_out)


def _shown(entry: Entry) -> IpAllowList:
    return IpAllowList(
        id=entry.id,
        project_id=entry.project_id,
        ip_address=entry.text,
        description=entry.description,
        created_by=entry.created_by,
        created_at=entry.created_at,
        updated_at=entry.updated_at,
    )
