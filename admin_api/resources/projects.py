"""Category `Projects`: what an organization keeps its branches, databases and computes in.

There are none of these yet: a project is its settings, its size is nothing, and there is nothing to connect to. Its IP
allow-list is in ip_allow_lists.py. Naming the organization of a new project is an extension.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field, StrictBool, StrictInt, StrictStr, WithJsonSchema

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import MAX_OFFSET, Answer, Moment, PaginationMeta, page
from admin_api.kit.needs import needs, needs_somewhere
from admin_api.kit.problems import refusals
from gateway.errors import NotFound
from gateway.identity.permissions import Permission
from gateway.identity.principals import Principal
from gateway.projects import projects
from gateway.projects.access import InProject
from gateway.projects.projects import Project as Stored
from gateway.request_body import RequestBody

router = APIRouter(tags=["Projects"], route_class=StrictRoute)
PATH = "/projects/{project_id}"
Reader = Annotated[InProject, needs(Permission.PROJECTS_READ, project=True)]
Writer = Annotated[InProject, needs(Permission.PROJECTS_WRITE, project=True)]
Lister = Annotated[Principal, needs_somewhere(Permission.PROJECTS_READ, "in each organization")]
Maker = Annotated[Principal, needs_somewhere(Permission.PROJECTS_WRITE, "in the organization that gets it")]

Name = Annotated[StrictStr, Field(min_length=1, max_length=256)]
Units = Annotated[StrictInt, Field(ge=1, le=1_024)]
Left = Annotated[str | None, WithJsonSchema({"type": "string"}), Field(exclude_if=lambda value: value is None)]
"""Left out of the answer while there is nothing to say: the contract knows no null there."""


class ProjectSettings(RequestBody):
    """What a project is set to. Null and left out are the same: a default, or in an update what it was."""

    compute_unit_min: Units | None = None
    compute_unit_max: Units | None = None
    block_public_connections: StrictBool | None = None
    block_vpc_connections: StrictBool | None = None
    enable_logical_replication: StrictBool | None = None
    hipaa: StrictBool | None = None
    protected_branches_only: StrictBool | None = None


class CreateProjectRequest(ProjectSettings):
    """A new project. Without an `organization_id`, an extension, it belongs to the caller's default organization."""

    name: Name
    region: Annotated[StrictStr, Field(max_length=100)]
    organization_id: UUID | None = None


class UpdateProjectRequest(ProjectSettings):
    """What is to change. A project's region is for good."""

    name: Name | None = None
    history_retention_seconds: StrictInt | None = None


class ProjectCreated(Answer):
    """A project as it was made."""

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
    is_service_project: bool = False
    default_branch_id: UUID | None = None
    branch_count: int = 0
    storage_bytes: int = 0
    postgres_version: Left = None
    created_at: Moment


class Project(ProjectCreated):
    """A project. What only computes use or change is zero or null, and `postgres_version` left out."""

    history_retention_seconds: int
    default_compute_size_min: float
    default_compute_size_max: float
    active_time_seconds: float = 0.0
    compute_last_active_at: Moment | None = None
    created_by: UUID
    updated_at: Moment
    deleted_at: Moment | None = None
    deleted_by: UUID | None = None


class ProjectSize(Answer):
    """What a project has stored."""

    project_id: UUID
    size_bytes: Annotated[int, Field(ge=0)]


class ProjectConnectionUriResponse(Answer):
    """Where a project's compute is connected to."""

    uri: str


class ProjectCreatedResponse(Answer):
    """Envelope."""

    data: ProjectCreated
    pagination: PaginationMeta | None = None


class ProjectResponse(Answer):
    """Envelope."""

    data: Project
    pagination: PaginationMeta | None = None


class PaginatedProjectResponse(Answer):
    """Envelope."""

    data: list[Project]
    pagination: PaginationMeta


class ProjectSizeResponse(Answer):
    """Envelope."""

    data: ProjectSize
    pagination: PaginationMeta | None = None


@router.get("/projects", operation_id="list_projects", responses=refusals(400, 401))
async def list_projects(
    caller: Lister,
    services: ServicesDep,
    limit: Annotated[int | None, Query(ge=1, le=100)] = None,
    offset: Annotated[int | None, Query(ge=0, le=MAX_OFFSET)] = None,
    show_service: bool = False,
) -> PaginatedProjectResponse:
    """List the projects of all the caller's organizations, newest first, 20 a page.

    There is no service project for `show_service` to show.
    """
    limit, offset = 20 if limit is None else limit, offset or 0
    async with services.database.acquire() as connection:
        found = await projects.page_of(connection, caller, limit=limit, offset=offset)
    shown = [_shown(one) for one in found.projects]
    meta = page(shown, total=found.total, limit=limit, offset=offset)
    return PaginatedProjectResponse(data=shown, pagination=PaginationMeta(**meta))


@router.post("/projects", status_code=201, operation_id="create_project", responses=refusals(400, 401, 403, 409))
async def create_project(body: CreateProjectRequest, caller: Maker, services: ServicesDep) -> ProjectCreatedResponse:
    """Make a project in a region of this gateway."""
    wanted = {name: value for name, value in _given(body).items() if name != "organization_id"}
    async with services.database.transaction() as connection:
        made = await projects.create_project(
            connection, caller, body.organization_id, wanted, services.settings.projects
        )
        await services.plans.demand_room(connection, made.organization_id, "projects", more=0)
    return ProjectCreatedResponse(data=ProjectCreated.model_validate(made))


@router.get(PATH, operation_id="get_project", responses=refusals(401, 403, 404))
async def get_project(inside: Reader) -> ProjectResponse:
    """Return a project."""
    return ProjectResponse(data=_shown(inside.project))


@router.patch(PATH, operation_id="update_project", responses=refusals(400, 401, 403, 404))
async def update_project(body: UpdateProjectRequest, inside: Writer, services: ServicesDep) -> ProjectResponse:
    """Change a project's settings. They are checked as the whole that comes out."""
    async with services.database.transaction() as connection:
        changed = await projects.update_project(connection, inside.project.id, _given(body), services.settings.projects)
    return ProjectResponse(data=_shown(changed))


@router.delete(PATH, operation_id="delete_project", responses=refusals(400, 401, 403, 404, 409))
async def delete_project(inside: Writer, services: ServicesDep) -> dict[str, Any]:
    """Delete a project that no publisher and no webhook names."""
    async with services.database.transaction() as connection:
        await projects.delete_project(connection, inside.project.id, inside.member.caller.account_id)
    return {}


@router.get(f"{PATH}/connection_uri", operation_id="get_project_connection_uri", responses=refusals(401, 403, 404))
async def get_project_connection_uri(
    inside: Writer,
    branch_id: UUID | None = None,
    endpoint_id: UUID | None = None,
    database_name: str | None = None,
    role_name: str | None = None,
    pooled: bool | None = None,
) -> ProjectConnectionUriResponse:
    """Say where to connect to: nowhere yet, so this is 404 for every project. A URI would let its reader write."""
    raise NotFound("This project has no branch and no endpoint, so there is nothing to connect to.")


@router.get(f"{PATH}/size", operation_id="get_project_size", responses=refusals(401, 403, 404))
async def get_project_size(inside: Reader) -> ProjectSizeResponse:
    """Say how much a project has stored: nothing, as long as it has no branches."""
    return ProjectSizeResponse(data=ProjectSize(project_id=inside.project.id, size_bytes=0))


def _given(body: RequestBody) -> dict[str, Any]:
    return {name: value for name, value in body.model_dump(exclude_unset=True).items() if value is not None}


def _shown(project: Stored) -> Project:
    made = ProjectCreated.model_validate(project)
    return Project(
        **made.model_dump(),
        history_retention_seconds=project.history_retention_seconds,
        default_compute_size_min=project.compute_unit_min,
        default_compute_size_max=project.compute_unit_max,
        created_by=project.created_by,
        updated_at=project.updated_at,
    )
