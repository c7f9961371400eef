"""Making, listing, changing and deleting projects, and the rules that their settings keep.

Deleting is soft: what was written down of a project goes on to name it. A project that publishers or webhooks name
stays, since each of them would silently mean something else without it. Who may do what is asked in access.py, but for
making one: there the request names the organization.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from gateway.audit.entries import record
from gateway.catalog.refusals import refused
from gateway.database.pool import Connection
from gateway.database.statement import Command, Statement
from gateway.errors import Conflict, InvalidRequest, NotFound
from gateway.identity import names, permissions
from gateway.identity.organizations import default_of
from gateway.identity.permissions import Permission, organizations_with
from gateway.identity.principals import Principal
from gateway.ids import uuid7
from gateway.settings import ProjectSettings

MAX_NAME = 100
SERVICE_PROJECT = "seren-services"
"""What the contract calls a project of the gateway's own; there is none, and nobody's may look like it."""
SHORTEST_HISTORY, LONGEST_HISTORY, HISTORY = 3_600, 2_592_000, 21_600
"""Seconds for which a project's history is kept: bounds and default of the contract."""
NAMED_AT_MOST = 5
"""Publishers and webhooks that a refusal to delete names."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project that is there. `tenant_id` is what its storage will be known by."""

    id: UUID
    organization_id: UUID
    tenant_id: UUID
    name: str
    region: str
    compute_unit_min: int
    compute_unit_max: int
    block_public_connections: bool
    block_vpc_connections: bool
    enable_logical_replication: bool
    hipaa: bool
    protected_branches_only: bool
    history_retention_seconds: int
    created_by: UUID
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the projects, and how many there are."""

    projects: list[Project]
    total: int


FIND = Statement(
    """
    SELECT id, organization_id, tenant_id, name, region, compute_unit_min, compute_unit_max, block_public_connections,
           block_vpc_connections, enable_logical_replication, hipaa, protected_branches_only,
           history_retention_seconds, created_by, created_at, updated_at
      FROM project.project WHERE id = $1 AND deleted_at IS NULL
    """,
    Project,
)
LOCK = Statement(
    """
    SELECT id, organization_id, tenant_id, name, region, compute_unit_min, compute_unit_max, block_public_connections,
           block_vpc_connections, enable_logical_replication, hipaa, protected_branches_only,
           history_retention_seconds, created_by, created_at, updated_at
      FROM project.project WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE
    """,
    Project,
)
# Whoever names the project at this moment, in a publisher or a webhook, is waited for.
LOCK_WHOLE = Command("SELECT FROM project.project WHERE id = $1 AND deleted_at IS NULL FOR UPDATE")
LIST = Statement(
    """
    SELECT id, organization_id, tenant_id, name, region, compute_unit_min, compute_unit_max, block_public_connections,
           block_vpc_connections, enable_logical_replication, hipaa, protected_branches_only,
           history_retention_seconds, created_by, created_at, updated_at
      FROM project.project WHERE organization_id = ANY ($1::uuid[]) AND deleted_at IS NULL
     ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3
    """,
    Project,
)
COUNT = Statement(
    "SELECT count(*) FROM project.project WHERE organization_id = ANY ($1::uuid[]) AND deleted_at IS NULL",
    int,
    scalar=True,
)
INSERT = Command(
    """
    INSERT INTO project.project (id, organization_id, tenant_id, name, region, compute_unit_min, compute_unit_max,
                                 block_public_connections, block_vpc_connections, enable_logical_replication, hipaa,
                                 protected_branches_only, history_retention_seconds, created_by)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    """
)
UPDATE = Command(
    """
    UPDATE project.project
       SET name = $2, compute_unit_min = $3, compute_unit_max = $4, block_public_connections = $5,
           block_vpc_connections = $6, enable_logical_replication = $7, hipaa = $8, protected_branches_only = $9,
           history_retention_seconds = $10, updated_at = now()
     WHERE id = $1
    """
)
DELETE = Command("UPDATE project.project SET deleted_at = now(), deleted_by = $2, updated_at = now() WHERE id = $1")
PUBLISHERS_OF = Statement(
    "SELECT slug FROM catalog.publisher WHERE project_id = $1 AND deleted_at IS NULL ORDER BY slug LIMIT $2",
    str,
    scalar=True,
)
WEBHOOKS_OF = Statement(
    "SELECT name FROM webhook.endpoint WHERE project_id = $1 ORDER BY created_at LIMIT $2", str, scalar=True
)


async def page_of(connection: Connection, caller: Principal, *, limit: int, offset: int) -> Page:
    """Return projects of all organizations in which the caller may see them, newest first."""
    mine = await organizations_with(connection, caller, Permission.PROJECTS_READ)
    return Page(await LIST.all(connection, mine, limit, offset), await COUNT.one(connection, mine))


async def create_project(
    connection: Connection,
    caller: Principal,
    organization_id: UUID | None,
    wanted: Mapping[str, Any],
    settings: ProjectSettings,
) -> Project:
    """Make a project in the organization named, else in the caller's default one.

    Raises Forbidden, InvalidRequest naming the field, or Conflict where the organization has too many.
    """
    organization_id = organization_id or await _default(connection, caller)
    member = await permissions.require(connection, caller, organization_id, Permission.PROJECTS_WRITE)
    if wanted["region"] not in settings.regions:
        raise refused("region", f"is none of this gateway's; there are: {', '.join(settings.regions)}")
    project = checked(_new(organization_id, caller.account_id, wanted), settings)
    # The organization is locked: of two that are made at once the second counts the first.
    await permissions.locked(connection, member, Permission.PROJECTS_WRITE)
    if await COUNT.one(connection, [organization_id]) >= settings.most:
        raise Conflict(f"An organization may have at most {settings.most} projects.", limit=settings.most)
    await INSERT.run(
        connection, project.id, organization_id, project.tenant_id, project.name, project.region,
        project.compute_unit_min, project.compute_unit_max, project.block_public_connections,
        project.block_vpc_connections, project.enable_logical_replication, project.hipaa,
        project.protected_branches_only, project.history_retention_seconds, project.created_by,
    )  # fmt: skip
    made = await FIND.one(connection, project.id)
    await _note(connection, "project.create", made, after=made)
    return made


async def update_project(
    connection: Connection, project_id: UUID, changes: Mapping[str, Any], settings: ProjectSettings
) -> Project:
    """Change what is named; the rules hold for the whole that comes out. Raises NotFound, InvalidRequest."""
    before = await locked(connection, project_id)
    project = checked(replace(before, **changes), settings, before)
    await UPDATE.run(
        connection, project.id, project.name, project.compute_unit_min, project.compute_unit_max,
        project.block_public_connections, project.block_vpc_connections, project.enable_logical_replication,
        project.hipaa, project.protected_branches_only, project.history_retention_seconds,
    )  # fmt: skip
    after = await FIND.one(connection, project_id)
    await _note(connection, "project.update", after, before=before, after=after)
    return after


async def delete_project(connection: Connection, project_id: UUID, account_id: UUID) -> None:
    """Delete a project that nothing names. Raises NotFound, or Conflict naming what does."""
    await LOCK_WHOLE.run(connection, project_id)
    before = await locked(connection, project_id)
    slugs = await PUBLISHERS_OF.all(connection, project_id, NAMED_AT_MOST)
    if slugs:
        raise Conflict(
            f"Publishers belong to this project: {', '.join(slugs)}. Change their project_id first, or set it to null.",
            publishers=slugs,
        )
    hooks = await WEBHOOKS_OF.all(connection, project_id, NAMED_AT_MOST)
    if hooks:
        raise Conflict(f"Webhooks are for this project alone: {', '.join(hooks)}. Delete them first.", webhooks=hooks)
    await DELETE.run(connection, project_id, account_id)
    await _note(connection, "project.delete", before, before=before)


async def locked(connection: Connection, project_id: UUID) -> Project:
    """Lock a project until the transaction ends, and return it as it is by then. Raises NotFound."""
    found = await LOCK.first(connection, project_id)
    if found is None:
        raise not_found()
    return found


def not_found() -> NotFound:
    """Return the answer for a project that is not there, and for one of somebody else's."""
    return NotFound("You have no project with this id.")


def checked(project: Project, settings: ProjectSettings, before: Project | None = None) -> Project:
    """Return a project whose settings agree with each other and with this gateway, its name in normal form.

    Raises InvalidRequest naming the field. What an operator no longer offers may stay as it was `before`.
    """
    name = _name(project.name)
    most = settings.compute_units if before is None else max(settings.compute_units, before.compute_unit_max)
    if project.compute_unit_min < 1:
        raise refused("compute_unit_min", "must be at least 1")
    if project.compute_unit_max > most:
        raise refused("compute_unit_max", f"must be at most {most} on this gateway")
    if project.compute_unit_min > project.compute_unit_max:
        raise refused("compute_unit_min", f"must be at most compute_unit_max, which is {project.compute_unit_max}")
    if project.block_public_connections and project.block_vpc_connections:
        raise refused("block_vpc_connections", "with block_public_connections too, nobody could connect at all")
    if project.hipaa and not settings.hipaa and not (before and before.hipaa):
        raise refused("hipaa", "is not offered: this gateway's operator promises nothing about health data")
    if not SHORTEST_HISTORY <= project.history_retention_seconds <= LONGEST_HISTORY:
        raise refused("history_retention_seconds", f"must be from {SHORTEST_HISTORY} to {LONGEST_HISTORY}")
    return replace(project, name=name)


def _name(text: str) -> str:
    try:
        name = names.check(text, longest=MAX_NAME)
    except names.NameRefused as error:
        raise refused("name", str(error)) from None
    if name.lower() == SERVICE_PROJECT:
        raise refused("name", f"must not be {SERVICE_PROJECT}, which is kept for a project of the gateway's own")
    return name


def _new(organization_id: UUID, account_id: UUID, wanted: Mapping[str, Any]) -> Project:
    """Return a project as it is asked for, not yet checked. A lower bound alone moves the upper one up."""
    least = wanted.get("compute_unit_min") or 1
    never = datetime.min
    defaults: dict[str, Any] = {
        "compute_unit_min": least,
        "compute_unit_max": least,
        "block_public_connections": False,
        "block_vpc_connections": False,
        "enable_logical_replication": False,
        "hipaa": False,
        "protected_branches_only": False,
        "history_retention_seconds": HISTORY,
    }
    return Project(
        id=uuid7(), organization_id=organization_id, tenant_id=uuid4(), created_by=account_id, created_at=never,
        updated_at=never, **{**defaults, **wanted},
    )  # fmt: skip


async def _default(connection: Connection, caller: Principal) -> UUID:
    if caller.confined:
        return caller.organization_id  # its key acts in no other one
    found = await default_of(connection, caller.account_id)
    if found is None:
        raise InvalidRequest("You belong to no organization, so there is no default one; name organization_id.")
    return found.id


async def _note(
    connection: Connection,
    action: str,
    project: Project,
    *,
    before: Project | None = None,
    after: Project | None = None,
) -> None:
    was, is_now = (None if one is None else _facts(one) for one in (before, after))
    await record(
        connection, action, project.organization_id, project.id, before=was, after=is_now,
        details={"name": project.name}, projects=[project.id],
    )  # fmt: skip


def _facts(project: Project) -> dict[str, Any]:
    return {name: value for name, value in asdict(project).items() if name != "updated_at"}
