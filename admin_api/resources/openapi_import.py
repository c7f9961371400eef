"""Importing an OpenAPI document into a publisher. An extension: the contract has no such operation.

A document that is fetched makes this gateway send a request somewhere, so that way has the limit of connection tests.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, StrictBool, StrictStr, model_validator

from admin_api.kit.access import ServicesDep, limited
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Answer
from admin_api.kit.needs import needs
from admin_api.kit.problems import refusals
from admin_api.resources.organization_publishers import desk
from gateway.catalog.fields import Url
from gateway.catalog.openapi.desk import Import, import_openapi
from gateway.catalog.openapi.text import MAX_DOCUMENT
from gateway.catalog.refusals import refused
from gateway.catalog.requests import EndpointDefinition
from gateway.identity.permissions import Permission
from gateway.limits.policy import Check, Policy
from gateway.request_body import RequestBody
from gateway.services import Services
from gateway.upstreams.documents import NotFetched, fetch

EXTENSION: dict[str, Any] = {"x-extension": True}
router = APIRouter(prefix="/organizations/{organization_id}", tags=["extensions"], route_class=StrictRoute)


class ImportOpenapiRequest(RequestBody):
    """An OpenAPI 3 document, JSON or YAML, as text or by its URL.

    `replace` drops endpoints that it does not describe, protected ones excepted; `dry_run` changes nothing.
    """

    document: Annotated[StrictStr, Field(max_length=MAX_DOCUMENT)] | None = None
    url: Url | None = None
    replace: StrictBool = False
    dry_run: StrictBool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> ImportOpenapiRequest:
        if (self.document is None) == (self.url is None):
            raise ValueError("must have either document or url")
        return self


class SkippedPart(Answer):
    """A part of the document that makes no endpoint: its place as a JSON pointer, and why."""

    place: str
    reason: str


class OpenapiImport(Answer):
    """What the import did or, as a dry run, would do; `endpoints` are all that the publisher has then."""

    dry_run: bool
    added: int
    changed: int
    removed: int
    skipped: list[SkippedPart]
    endpoints: list[EndpointDefinition]


class OpenapiImportDataResponse(Answer):
    """Envelope."""

    data: OpenapiImport


@router.post(
    "/publishers/{publisher_id}/import-openapi",
    operation_id="import_publisher_openapi",
    dependencies=[needs(Permission.PUBLISHERS_WRITE)],
    responses=refusals(400, 401, 403, 404, 429, 500),
    openapi_extra=EXTENSION,
)
async def import_publisher_openapi(
    organization_id: UUID, publisher_id: UUID, body: ImportOpenapiRequest, services: ServicesDep
) -> OpenapiImportDataResponse:
    """Make endpoints of an OpenAPI 3 document; prices come from `x-payment-info`. Fetched without credentials."""
    raw = await _document(services, organization_id, body)
    done = await import_openapi(
        desk(services), organization_id, publisher_id, raw, replace=body.replace, dry_run=body.dry_run
    )
    if not body.dry_run:
        await services.catalog.refresh(publisher_id)
    return OpenapiImportDataResponse(data=_shown(done, body.dry_run))


async def _document(services: Services, organization_id: UUID, body: ImportOpenapiRequest) -> bytes:
    if body.url is None:
        return (body.document or "").encode()
    policy = Policy("connection-tests", services.settings.limits.connection_tests, 60)
    await limited(services, Check(str(organization_id), policy))
    try:
        return await fetch(services.upstreams, services.guard, body.url, MAX_DOCUMENT)
    except NotFetched as error:
        raise refused("url", str(error)) from None


def _shown(done: Import, dry_run: bool) -> OpenapiImport:
    return OpenapiImport(
        dry_run=dry_run,
        added=done.merged.added,
        changed=done.merged.changed,
        removed=done.merged.removed,
        skipped=[SkippedPart.model_validate(one) for one in done.skipped],
        endpoints=[EndpointDefinition.model_validate(one) for one in done.merged.endpoints],
    )
