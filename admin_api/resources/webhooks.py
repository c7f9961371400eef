"""Category `Webhooks`: where an organization's events are sent, and what became of them.

Trying an endpoint and sending events again are extensions. What is sent, and how, is gateway/jobs/webhooks.py.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from admin_api.kit.access import ServicesDep
from admin_api.kit.body import StrictRoute
from admin_api.kit.envelope import Offset, rfc3339
from admin_api.kit.moments import moment
from admin_api.kit.needs import AUTHENTICATED, needs
from admin_api.kit.problems import refusals
from admin_api.resources.webhook_models import (
    CreateWebhookRequest,
    EventQueued,
    EventQueuedResponse,
    EventsQueued,
    EventsQueuedResponse,
    ReplayWebhookRequest,
    UpdateWebhookRequest,
    WebhookCreated,
    WebhookCreatedResponse,
    WebhookDelivery,
    WebhookInfo,
    WebhookInfoResponse,
    WebhooksResponse,
)
from gateway.audit.entries import record
from gateway.catalog.projects import check_project
from gateway.catalog.refusals import refused
from gateway.catalog.urls import UrlPolicy
from gateway.database.pool import Connection
from gateway.errors import Conflict, NotConfigured, NotFound
from gateway.identity.permissions import Member, Permission
from gateway.services import Services
from gateway.upstreams.credentials import NoKeys
from gateway.upstreams.documents import read_url
from gateway.upstreams.egress import EgressRefused
from gateway.webhooks import endpoints
from gateway.webhooks.endpoints import Attempt, Endpoint
from gateway.webhooks.events import ALL, EVENT_TYPES, TEST
from gateway.webhooks.outbox import emit_to

router = APIRouter(tags=["Webhooks"], route_class=StrictRoute)
PATH = "/organizations/{organization_id}/webhooks"
READER, MANAGER = needs(Permission.WEBHOOKS_READ), needs(Permission.WEBHOOKS_MANAGE)
EXTENSION: dict[str, Any] = {"x-extension": True}


@router.get(PATH, operation_id="list_webhooks", dependencies=[READER], responses=refusals(401, 403))
async def list_webhooks(organization_id: UUID, services: ServicesDep) -> WebhooksResponse:
    """List an organization's webhooks, newest first."""
    async with services.database.acquire() as connection:
        found = await endpoints.LIST.all(connection, organization_id)
    return WebhooksResponse(data=[_shown(one) for one in found])


@router.post(PATH, status_code=201, operation_id="create_webhook", responses=refusals(400, 401, 403, 409, 501))
async def create_webhook(
    organization_id: UUID,
    body: CreateWebhookRequest,
    member: Annotated[Member, MANAGER],
    services: ServicesDep,
) -> WebhookCreatedResponse:
    """Make a webhook. Its signing secret is in this answer and in no other."""
    events = _events(body.events)
    await _check_url(services, body.url)
    async with services.database.transaction() as connection:
        await check_project(connection, organization_id, {"project_id": body.project_id})
        try:
            made = await endpoints.create(
                connection, services.box, organization_id, member.caller.account_id, body.name, body.url, events,
                body.project_id,
            )  # fmt: skip
        except NoKeys:
            raise NotConfigured("This gateway has no keys to encrypt secrets with; its operator sets them.") from None
        if made is None:
            raise Conflict(f"An organization may have at most {endpoints.MOST} webhooks.", limit=endpoints.MOST)
        endpoint, secret = made
        await _note(connection, "webhook.create", endpoint, after=endpoint)
    return WebhookCreatedResponse(data=WebhookCreated(webhook=_shown(endpoint), secret=secret))


@router.get(
    f"{PATH}/{{webhook_id}}", operation_id="get_webhook", dependencies=[READER], responses=refusals(401, 403, 404)
)
async def get_webhook(organization_id: UUID, webhook_id: UUID, services: ServicesDep) -> WebhookInfoResponse:
    """Return a webhook; its secret is never shown again."""
    async with services.database.acquire() as connection:
        return WebhookInfoResponse(data=_shown(await _found(connection, organization_id, webhook_id)))


@router.patch(
    f"{PATH}/{{webhook_id}}",
    operation_id="update_webhook",
    dependencies=[MANAGER],
    responses=refusals(400, 401, 403, 404),
)
async def update_webhook(
    organization_id: UUID, webhook_id: UUID, body: UpdateWebhookRequest, services: ServicesDep
) -> WebhookInfoResponse:
    """Change a webhook. While it is not enabled, no events are kept for it; what was waiting goes on afterwards."""
    events = None if body.events is None else _events(body.events)
    if body.url is not None:
        await _check_url(services, body.url)
    async with services.database.transaction() as connection:
        before = await _locked(connection, organization_id, webhook_id)
        await endpoints.UPDATE.run(
            connection,
            webhook_id,
            before.name if body.name is None else body.name,
            before.url if body.url is None else body.url,
            before.events if events is None else events,
            before.enabled if body.enabled is None else body.enabled,
        )
        after = await _found(connection, organization_id, webhook_id)
        await _note(connection, "webhook.update", after, before=before, after=after)
    return WebhookInfoResponse(data=_shown(after))


@router.delete(
    f"{PATH}/{{webhook_id}}",
    status_code=204,
    operation_id="delete_webhook",
    dependencies=[MANAGER],
    responses=refusals(401, 403, 404),
)
async def delete_webhook(organization_id: UUID, webhook_id: UUID, services: ServicesDep) -> Response:
    """Delete a webhook with everything that still waits for it, and its log."""
    async with services.database.transaction() as connection:
        before = await _locked(connection, organization_id, webhook_id)
        await _note(connection, "webhook.delete", before)
        await endpoints.delete(connection, webhook_id)
    return Response(status_code=204)


@router.get(
    f"{PATH}/{{webhook_id}}/deliveries",
    operation_id="list_webhook_deliveries",
    dependencies=[READER],
    responses=refusals(400, 401, 403, 404),
)
async def list_webhook_deliveries(
    organization_id: UUID,
    webhook_id: UUID,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
    offset: Offset = 0,
) -> list[WebhookDelivery]:
    """List tries, newest first: one page of them. A page with fewer than `limit` is the last one."""
    async with services.database.acquire() as connection:
        await _found(connection, organization_id, webhook_id)
        tries = await endpoints.ATTEMPTS.all(connection, webhook_id, limit, offset)
    return [_delivery(one) for one in tries]


@router.post(
    f"{PATH}/{{webhook_id}}/rotate-secret",
    operation_id="rotate_webhook_secret",
    dependencies=[MANAGER],
    responses=refusals(401, 403, 404, 501),
)
async def rotate_webhook_secret(
    organization_id: UUID, webhook_id: UUID, services: ServicesDep
) -> WebhookCreatedResponse:
    """Make a new secret, shown this once. For 24 hours messages are signed with the one before it too."""
    async with services.database.transaction() as connection:
        endpoint = await _locked(connection, organization_id, webhook_id)
        try:
            secret = await endpoints.rotate(connection, services.box, webhook_id)
        except NoKeys:
            raise NotConfigured("This gateway has no keys to encrypt secrets with; its operator sets them.") from None
        await _note(connection, "webhook.rotate_secret", endpoint)
    return WebhookCreatedResponse(data=WebhookCreated(webhook=_shown(endpoint), secret=secret))


@router.post(
    f"{PATH}/{{webhook_id}}/test",
    status_code=202,
    operation_id="test_webhook",
    dependencies=[MANAGER],
    responses=refusals(401, 403, 404, 409),
    openapi_extra=EXTENSION,
)
async def test_webhook(organization_id: UUID, webhook_id: UUID, services: ServicesDep) -> EventQueuedResponse:
    """Send a `webhook.test` event, whatever the webhook has subscribed to; the deliveries show what became of it."""
    async with services.database.transaction() as connection:
        endpoint = await _enabled(connection, organization_id, webhook_id)
        event = await emit_to(connection, webhook_id, organization_id, TEST, {"webhook_id": str(webhook_id)})
        await _note(connection, "webhook.test", endpoint)
    return EventQueuedResponse(data=EventQueued(event_id=event))


@router.post(
    f"{PATH}/{{webhook_id}}/deliveries/{{delivery_id}}/replay",
    status_code=202,
    operation_id="replay_webhook_delivery",
    dependencies=[MANAGER],
    responses=refusals(401, 403, 404, 409),
    openapi_extra=EXTENSION,
)
async def replay_webhook_delivery(
    organization_id: UUID, webhook_id: UUID, delivery_id: UUID, services: ServicesDep
) -> EventQueuedResponse:
    """Send the event of a try once more, now, with its first id: a receiver that has seen it can tell."""
    async with services.database.transaction() as connection:
        endpoint = await _enabled(connection, organization_id, webhook_id)
        event = await endpoints.REPLAY.first(connection, webhook_id, delivery_id)
        if event is None:
            raise NotFound("This webhook's log has no delivery with this id.")
        await _note(connection, "webhook.replay", endpoint, event_id=str(event))
    return EventQueuedResponse(data=EventQueued(event_id=event))


@router.post(
    f"{PATH}/{{webhook_id}}/replay",
    status_code=202,
    operation_id="replay_webhook",
    dependencies=[MANAGER],
    responses=refusals(400, 401, 403, 404, 409),
    openapi_extra=EXTENSION,
)
async def replay_webhook(
    organization_id: UUID, webhook_id: UUID, body: ReplayWebhookRequest, services: ServicesDep
) -> EventsQueuedResponse:
    """Send the webhook's events since a time once more, oldest first, with their first ids, at most 1,000 at once.

    What still waits to be sent is left alone, so repeating this sends nothing twice.
    """
    since = moment("since", body.since)
    until = None if body.until is None else moment("until", body.until)
    if until is not None and until <= since:
        raise refused("until", "must be after since")
    async with services.database.transaction() as connection:
        endpoint = await _enabled(connection, organization_id, webhook_id)
        replay = await endpoints.replay(connection, endpoint, since, until, only_failed=body.only_failed)
        await _note(
            connection, "webhook.replay", endpoint, since=since, until=until,
            only_failed=body.only_failed, events=replay.events,
        )  # fmt: skip
    return EventsQueuedResponse(data=EventsQueued(events=replay.events, next_since=replay.next_since))


@router.get(
    "/webhooks/event-types", operation_id="list_event_types", dependencies=[AUTHENTICATED], responses=refusals(401)
)
async def list_event_types() -> list[str]:
    """List the event types that a webhook can want."""
    return EVENT_TYPES


def _events(wanted: list[str]) -> list[str]:
    """Return event types without repetitions. Raises InvalidRequest for an unknown one."""
    unknown = sorted(set(wanted) - {ALL, *EVENT_TYPES})
    if unknown:
        raise refused(
            "events", f"names no event type: {unknown[0][:100]}; GET /webhooks/event-types lists them, * is all"
        )
    return list(dict.fromkeys(wanted))


async def _check_url(services: Services, url: str) -> None:
    """Ask where a URL leads now. The egress guard asks again at every delivery."""
    try:
        read_url(services.guard, url)
        await UrlPolicy(services.guard, services.settings.proxy.allow_addresses).check(url.partition("?")[0])
    except EgressRefused as error:
        raise refused("url", str(error)) from None
    except ValueError as error:
        raise refused("url", str(error)) from None


async def _found(connection: Connection, organization_id: UUID, webhook_id: UUID) -> Endpoint:
    return _there(await endpoints.FIND.first(connection, organization_id, webhook_id))


async def _locked(connection: Connection, organization_id: UUID, webhook_id: UUID) -> Endpoint:
    return _there(await endpoints.LOCK.first(connection, organization_id, webhook_id))


async def _enabled(connection: Connection, organization_id: UUID, webhook_id: UUID) -> Endpoint:
    found = await _locked(connection, organization_id, webhook_id)
    if not found.enabled:
        raise Conflict("This webhook is not enabled, so nothing is sent to it.")
    return found


def _there(found: Endpoint | None) -> Endpoint:
    if found is None:
        raise NotFound("This organization has no webhook with this id.")
    return found


async def _note(
    connection: Connection,
    action: str,
    endpoint: Endpoint,
    *,
    before: Endpoint | None = None,
    after: Endpoint | None = None,
    **details: object,
) -> None:
    """Write down what was done to a webhook. Its URL counts as a secret: there may be one in it."""
    await record(
        connection, action, endpoint.organization_id, endpoint.id, before=before, after=after, secret=("url",),
        details={"name": endpoint.name, **details},
    )  # fmt: skip


def _shown(endpoint: Endpoint) -> WebhookInfo:
    return WebhookInfo(
        id=endpoint.id,
        organization_id=endpoint.organization_id,
        project_id=endpoint.project_id,
        name=endpoint.name,
        url=endpoint.url,
        events=endpoint.events,
        enabled=endpoint.enabled,
        disabled_reason=endpoint.disabled_reason,
        created_by=endpoint.created_by,
        created_at=endpoint.created_at,
    )


def _delivery(one: Attempt) -> WebhookDelivery:
    return WebhookDelivery(
        id=one.id,
        webhook_id=one.webhook_id,
        event_id=one.event_id,
        event_type=one.event_type,
        payload={"type": one.event_type, "timestamp": rfc3339(one.happened_at), "data": one.data},
        attempt_number=one.attempt_number,
        response_status=one.response_status,
        response_body=one.response_body,
        error_message=one.error_message,
        next_retry_at=one.next_retry_at,
        delivered_at=one.delivered_at,
        created_at=one.created_at,
    )
