"""Trying a publisher's server before calls depend on it. Extensions: the contract has no such operation.

A try makes this gateway send a request somewhere, so it needs the right to change publishers, is limited per
organization, goes only where calls may go, and tells of the answer no more than status, type, times and certificate,
and of an MCP server its version and how many tools it has.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, StrictStr, field_validator

from admin_api.kit.access import ServicesDep, limited
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer, Moment
from admin_api.kit.needs import needs
from admin_api.kit.problems import refusals
from admin_api.resources.organization_publishers import desk
from gateway.catalog.fields import BaseUrl, HeaderName, PublicHeaders, QueryName, Secret, SecretHeaders, Url
from gateway.catalog.publishers import wire_values
from gateway.catalog.readings import AmbiguousPath, read_path
from gateway.catalog.refusals import refused
from gateway.catalog.requests import SECRET_FIELDS
from gateway.catalog.snapshot import Publisher
from gateway.identity.permissions import Permission
from gateway.limits.policy import Check, Policy
from gateway.proxy.connection_test import Method, keep_seen, stored, try_connection
from gateway.request_body import RequestBody
from gateway.services import Services
from gateway.upstreams.probe import Finding, Outcome

EXTENSION: dict[str, Any] = {"x-extension": True}
router = APIRouter(prefix="/organizations/{organization_id}", tags=["extensions"], route_class=StrictRoute)


class ConnectionTestOptions(RequestBody):
    """What to ask the server for: one request without a body, below the publisher's base URL. MCP servers are asked for
    their tools."""

    method: Method = "GET"
    path: Annotated[StrictStr, Field(max_length=2_048, pattern=r"^/[!-~]*$")] = "/"

    @field_validator("path")
    @classmethod
    def _below_the_base(cls, value: str) -> str:
        try:
            read_path(value.partition("?")[0].encode())
        except AmbiguousPath as error:
            raise ValueError(f"cannot be used: {error}") from None
        return value


class ConnectionTestRequest(ConnectionTestOptions):
    """A server that is no publisher's yet, and how to authenticate to it; fields as in CreatePublisherRequest. One of
    `api_url` and `mcp_endpoint`."""

    api_url: BaseUrl | None = None
    mcp_endpoint: Url | None = None
    upstream_headers: PublicHeaders = None
    api_headers: SecretHeaders = None
    upstream_api_key: Secret | None = None
    api_key_header: HeaderName | None = None
    api_key_query_param: QueryName | None = None


class TlsSession(Answer):
    """The TLS session and the certificate that was accepted."""

    version: str
    issuer: str | None
    expires_at: Moment | None


class ConnectionTimes(Answer):
    """Milliseconds per step, null for steps that were not reached; `connect_ms` includes TLS."""

    resolve_ms: int | None
    connect_ms: int | None
    first_byte_ms: int | None


class McpServerFound(Answer):
    """The version of MCP that the server agreed to, and its tools; `for_sale` needs a publisher, which has prices."""

    version: str
    tools: int
    for_sale: int | None


class ConnectionTest(Answer):
    """What the try showed. `ok`: the server answers, and takes the credentials; `detail` says what to do otherwise."""

    ok: bool
    outcome: Outcome
    detail: str
    status: int | None
    content_type: str | None
    tls: TlsSession | None
    times: ConnectionTimes
    mcp: McpServerFound | None


class ConnectionTestDataResponse(Answer):
    """Envelope."""

    data: ConnectionTest


@router.post(
    "/test-connection",
    operation_id="test_new_publisher_connection",
    dependencies=[needs(Permission.PUBLISHERS_WRITE)],
    responses=refusals(400, 401, 403, 429, 500),
    openapi_extra=EXTENSION,
)
async def try_new_publisher(
    organization_id: UUID, body: ConnectionTestRequest, services: ServicesDep
) -> ConnectionTestDataResponse:
    """Try a server before creating a publisher for it. Nothing is stored; redirects are not followed."""
    await _counted(services, organization_id)
    field, url = ("api_url", body.api_url) if body.mcp_endpoint is None else ("mcp_endpoint", body.mcp_endpoint)
    if url is None or (body.api_url is not None and body.mcp_endpoint is not None):
        raise refused("api_url", "or mcp_endpoint is required, and not both")
    try:
        desk(services).urls.check_scheme(url)
    except ValueError as error:
        raise refused(field, str(error)) from None
    given = wire_values(body)
    if body.mcp_endpoint is not None:
        given["integration_type"] = "mcp"
    secrets = {name: given.pop(name) for name in SECRET_FIELDS if given.get(name) is not None}
    return ConnectionTestDataResponse(data=_shown(await _tried(services, given, secrets, body)))


@router.post(
    "/publishers/{publisher_id}/test-connection",
    operation_id="test_publisher_connection",
    dependencies=[needs(Permission.PUBLISHERS_WRITE)],
    responses=refusals(400, 401, 403, 404, 429, 500),
    openapi_extra=EXTENSION,
)
async def try_publisher(
    organization_id: UUID,
    publisher_id: UUID,
    body: ConnectionTestOptions,
    services: ServicesDep,
) -> ConnectionTestDataResponse:
    """Try a publisher's server with its stored credentials. Redirects are not followed. What an MCP server has is kept
    as the publisher's `mcp_capabilities`."""
    await _counted(services, organization_id)
    desk_ = desk(services)
    async with services.database.acquire() as connection:
        record = (await desk_.get(connection, organization_id, publisher_id)).record
        publisher = await stored(connection, record.id, services.box.open)
    draft = desk_.draft_of(record)
    found = await _tried(services, draft.document, draft.secrets, body, publisher)
    async with services.database.acquire() as connection:
        await keep_seen(connection, record.id, draft.document.get("mcp_endpoint"), found)
    return ConnectionTestDataResponse(data=_shown(found))


async def _counted(services: Services, organization_id: UUID) -> None:
    policy = Policy("connection-tests", services.settings.limits.connection_tests, 60)
    await limited(services, Check(str(organization_id), policy))


async def _tried(
    services: Services,
    document: dict[str, Any],
    secrets: dict[str, Any],
    options: ConnectionTestOptions,
    publisher: Publisher | None = None,
) -> Finding:
    return await try_connection(
        services.guard, services.settings, services.authenticate, document, secrets,
        publisher=publisher, method=options.method, path=options.path,
    )  # fmt: skip


def _shown(found: Finding) -> ConnectionTest:
    times = {name: found.times.get(name) for name in ConnectionTimes.model_fields}
    return ConnectionTest(
        ok=found.ok,
        outcome=found.outcome,
        detail=found.detail,
        status=found.status,
        content_type=found.content_type,
        tls=None if found.tls is None else TlsSession.model_validate(found.tls),
        times=ConnectionTimes.model_validate(times),
        mcp=None if found.mcp is None else McpServerFound.model_validate(found.mcp),
    )
